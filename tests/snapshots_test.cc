// A snapshot of a region in use is what it was at one moment, whatever happens afterwards.
#include "pkram/snapshots.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::Pfn;
using pkram::Snapshots;

constexpr uint64_t kPages = 2000;

// Changes that go on all the time, to the files "0" to "19" of a directory.
class Changes {
 public:
  Changes(Filesystem* fs, Ino directory, unsigned seed)
      : fs_(fs), directory_(directory), random_(seed) {}

  void Make(int count) {
    for (int i = 0; i < count; ++i) One();
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }
  std::string Name() { return std::to_string(Below(20)); }
  // Looked up and forgotten, as names come and go.
  Ino Find(const std::string& name) {
    const auto found = fs_->Lookup(directory_, name);
    if (!found.ok()) return 0;
    fs_->Forget((*found).ino, 1);
    return (*found).ino;
  }
  void One() {
    const Context context{.uid = 0, .gid = 0, .now = {2000 + ++time_, 1}};
    const std::string name = Name(), other = Name();
    const Ino ino = Find(name);
    switch (Below(8)) {
      case 0: {
        const auto made = fs_->MakeNode(context, directory_, name, S_IFREG | 0644);
        if (made.ok()) fs_->Forget((*made).ino, 1);
        break;
      }
      case 1:
      case 2:
      case 3: {
        const std::string bytes(1 + Below(60000), static_cast<char>('a' + Below(26)));
        if (ino != 0) (void)fs_->Write(context, ino, Below(100000), BytesOf(bytes));
        break;
      }
      case 4:
        (void)fs_->Rename(context, directory_, name, directory_, other, 0);
        break;
      case 5:
        (void)fs_->Unlink(context, directory_, name);
        break;
      case 6: {
        AttrChange change;
        change.what = AttrChange::kSetSize;
        change.size = Below(50000);
        if (ino != 0) (void)fs_->SetAttr(context, ino, change);
        break;
      }
      default: {
        const Ino to = Find(other);
        if (ino != 0 && to != 0) (void)fs_->CopyRange(context, ino, 0, to, 0, 65536);
      }
    }
  }

  Filesystem* const fs_;
  const Ino directory_;
  std::minstd_rand random_;
  int64_t time_ = 0;
};

Ino MakeDirectory(Filesystem* fs, const std::string& name) {
  const Context context{.uid = 0, .gid = 0, .now = {2000, 1}};
  return (*fs->MakeDirectory(context, kRootIno, name, 0755)).ino;
}

// What a snapshot delivers, over what an earlier one has.
class Delivered {
 public:
  Delivered() { EXPECT_EQ(ftruncate(file_.fd(), kPages * kPageSize), 0); }
  Snapshots::Sink sink() {
    seen_.clear();
    return [this](Pfn first, absl::Span<const std::byte> bytes) {
      EXPECT_EQ(pwrite(file_.fd(), bytes.data(), bytes.size(), static_cast<off_t>(first.offset())),
                static_cast<ssize_t>(bytes.size()));
      for (uint64_t i = 0; i < bytes.size() / kPageSize; ++i) {
        EXPECT_TRUE(seen_.insert((first + i).value()).second) << "twice";
      }
      return absl::OkStatus();
    };
  }
  // When it is mounted, it shows what was seen then.
  void ExpectIs(const Picture& then) {
    pkram::MemoryFile copy;
    copy.Restore(file_.Save());
    {
      const Mounted mounted(copy);
      ASSERT_NE(mounted.fs(), nullptr);
      EXPECT_TRUE(PictureOf(mounted.fs()) == then);
    }
    FsCheck check;
    EXPECT_GE(pkram::UsedPages(copy, &check), 0);
  }

 private:
  pkram::MemoryFile file_;
  std::set<uint64_t> seen_;
};

class SnapshotsTest : public testing::Test {
 protected:
  SnapshotsTest() { Restart(); }
  void Restart() {
    snapshots_.emplace();
    file_.emplace();
    pkram::FormatRegion(&*file_, kPages);
  }
  // The moment, and what can be seen at that time.
  Picture Begin(const Mounted& mounted, Snapshots::Take take) {
    EXPECT_TRUE(mounted.fs()->Freeze());
    Picture then = PictureOf(mounted.fs());
    pkram::Region& region = *mounted.region();
    snapshots_->Begin(region.mapping(), region.space().InUse(), take);
    EXPECT_TRUE(mounted.fs()->Thaw());
    return then;
  }

  std::optional<pkram::MemoryFile> file_;
  std::optional<Snapshots> snapshots_;
};

TEST_F(SnapshotsTest, WhatChangesAfterTheMomentIsNotInIt) {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    Restart();
    const Mounted mounted = Mounted::WithWatch(*file_, &*snapshots_);
    Changes changes(mounted.fs(), MakeDirectory(mounted.fs(), "d"), seed);
    changes.Make(60);
    Delivered delivered;
    for (const auto take :
         {Snapshots::Take::kAll, Snapshots::Take::kChanged, Snapshots::Take::kChanged}) {
      const Picture then = Begin(mounted, take);
      changes.Make(20);
      // And while it is delivered.
      const Snapshots::Sink sink = delivered.sink();
      int pieces = 0;
      ASSERT_EQ(snapshots_->Stream([&](Pfn first, absl::Span<const std::byte> bytes) {
        if (++pieces % 3 == 0) changes.Make(1);
        return sink(first, bytes);
      }),
                absl::OkStatus());
      EXPECT_GT(snapshots_->counts().aside, 0u);
      delivered.ExpectIs(then);
      snapshots_->Settle();
    }
    // Pages that have not changed are left out.
    for (const bool changed : {true, false}) {
      Begin(mounted, Snapshots::Take::kChanged);
      ASSERT_EQ(snapshots_->Stream(delivered.sink()), absl::OkStatus());
      EXPECT_EQ(snapshots_->counts().pages > 0, changed);
      snapshots_->Settle();
    }
  }
}

// One that could not be delivered, or was not settled, takes nothing away from the next.
TEST_F(SnapshotsTest, WhatWasNotSettledComesAgain) {
  const Mounted mounted = Mounted::WithWatch(*file_, &*snapshots_);
  Changes changes(mounted.fs(), MakeDirectory(mounted.fs(), "d"), 1);
  Delivered delivered;
  changes.Make(100);
  Begin(mounted, Snapshots::Take::kAll);
  ASSERT_EQ(snapshots_->Stream(delivered.sink()), absl::OkStatus());
  snapshots_->Settle();
  changes.Make(10);
  Begin(mounted, Snapshots::Take::kChanged);
  changes.Make(10);
  int left = 5;
  EXPECT_EQ(snapshots_->Stream([&](Pfn, absl::Span<const std::byte>) {
    return --left > 0 ? absl::OkStatus() : absl::ResourceExhaustedError("full");
  }),
            absl::ResourceExhaustedError("full"));
  changes.Make(10);
  Begin(mounted, Snapshots::Take::kChanged);
  snapshots_->Cancel();
  changes.Make(10);
  const Picture then = Begin(mounted, Snapshots::Take::kChanged);
  changes.Make(10);
  // (Over the one that was settled.)
  ASSERT_EQ(snapshots_->Stream(delivered.sink()), absl::OkStatus());
  delivered.ExpectIs(then);
}

TEST_F(SnapshotsTest, WritersGoOnWhileItIsTaken) {
  const Mounted mounted = Mounted::WithWatch(*file_, &*snapshots_);
  std::vector<Ino> directories;
  for (const char* name : {"a", "b", "c"}) {
    directories.push_back(MakeDirectory(mounted.fs(), name));
  }
  std::atomic<bool> stop = false;
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < directories.size(); ++i) {
    writers.emplace_back([&, i] {
      Changes changes(mounted.fs(), directories[i], i + 1);
      while (!stop) changes.Make(1);
    });
  }
  Delivered delivered;
  for (int i = 0; i < 20; ++i) {
    const Picture then = Begin(mounted, i == 0 ? Snapshots::Take::kAll : Snapshots::Take::kChanged);
    ASSERT_EQ(snapshots_->Stream(delivered.sink()), absl::OkStatus());
    snapshots_->Settle();
    delivered.ExpectIs(then);
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
}

// With a slow disk, the number of pages aside has a bound.
TEST_F(SnapshotsTest, WhoeverWouldCopyTooMuchAsideWaitsForTheStream) {
  constexpr uint64_t kMany = Snapshots::kMostAside + 4000;
  pkram::MemoryFile file;
  pkram::FormatRegion(&file, kMany + 1000);
  Snapshots snapshots;
  const Mounted mounted = Mounted::WithWatch(file, &snapshots);
  const Context context{.uid = 0, .gid = 0, .now = {2000, 1}};
  const Ino ino = (*mounted.fs()->MakeNode(context, kRootIno, "f", S_IFREG | 0644)).ino;
  const std::string before(kMany * kPageSize, 'b'), after(kMany * kPageSize, 'a');
  ASSERT_EQ(*mounted.fs()->Write(context, ino, 0, BytesOf(before)), before.size());
  snapshots.Begin(mounted.region()->mapping(), mounted.region()->space().InUse(),
                  Snapshots::Take::kAll);
  std::thread writer([&] {
    // In pieces, as the kernel sends them.
    for (size_t at = 0; at < after.size(); at += 1 << 20) {
      const std::string_view piece = std::string_view(after).substr(at, 1 << 20);
      EXPECT_EQ(*mounted.fs()->Write(context, ino, at, BytesOf(piece)), piece.size());
    }
  });
  while (snapshots.counts().waits == 0) std::this_thread::yield();
  uint64_t pages = 0, old = 0;
  ASSERT_EQ(snapshots.Stream([&](Pfn, absl::Span<const std::byte> bytes) {
    for (uint64_t i = 0; i < bytes.size(); i += kPageSize, ++pages) {
      old += bytes[i] == std::byte{'b'};
      EXPECT_NE(bytes[i], std::byte{'a'});
    }
    return absl::OkStatus();
  }),
            absl::OkStatus());
  writer.join();
  EXPECT_EQ(old, kMany);
  EXPECT_EQ(TextOf(*mounted.fs()->Read(ino, 0, 10)), "aaaaaaaaaa");
}

}  // namespace
}  // namespace pkramfs
