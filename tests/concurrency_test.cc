// Many threads on one filesystem: what the thread sanitizer and the end state say.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "tests/eventually.h"
#include "tests/fs_fixture.h"
#include "tests/processes.h"

namespace pkramfs {
namespace {

class ConcurrencyTest : public FsTest {};

TEST_F(ConcurrencyTest, ThreadsMakeMoveAndRemoveInSharedDirectories) {
  std::vector<Ino> dirs;
  for (int i = 0; i < 4; ++i) dirs.push_back(Make("dir" + std::to_string(i), S_IFDIR | 0755));
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      const Context context{.uid = 0, .gid = 0, .now = {7, t}};
      for (int i = 0; i < 1500; ++i) {
        const Ino dir = dirs[random() % dirs.size()];
        const Ino other = dirs[random() % dirs.size()];
        const std::string name = "n" + std::to_string(random() % 40);
        const std::string other_name = "n" + std::to_string(random() % 40);
        switch (random() % 8) {
          case 0:
          case 1: {
            const auto made = fs().MakeNode(context, dir, name, S_IFREG | 0644);
            if (!made.ok()) break;
            (void)fs().Write(context, (*made).ino, 0, BytesOf(std::string(random() % 9000, 'x')));
            fs().Forget((*made).ino, 1);
            break;
          }
          case 2: {
            const auto made = fs().MakeDirectory(context, dir, name, 0755);
            if (made.ok()) fs().Forget((*made).ino, 1);
            break;
          }
          case 3:
            (void)fs().Unlink(context, dir, name);
            break;
          case 4:
            (void)fs().RemoveDirectory(context, dir, name);
            break;
          case 5:
            (void)fs().Rename(context, dir, name, other, other_name, 0);
            break;
          case 6:
            (void)fs().Rename(context, dir, name, other, other_name, 2);
            break;
          default: {
            const auto found = fs().Lookup(dir, name);
            if (!found.ok()) break;
            const Ino ino = (*found).ino;
            const auto linked = fs().Link(context, ino, other, other_name);
            if (linked.ok()) fs().Forget(ino, 1);
            (void)fs().SetXattr(context, ino, "user.t", name, 0);
            (void)fs().GetXattr(ino, "user.t");
            (void)fs().SetAttr(context, ino,
                               {.what = AttrChange::kSetSize, .size = random() % 9000});
            (void)fs().ReadDirectory(dir, 0, [](const DirEntry&) { return true; });
            fs().Forget(ino, 1);
          }
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  const Picture picture = PictureOf(&fs());
  Remount();
  EXPECT_EQ(PictureOf(&fs()), picture);
}

// A thread that makes files, writes to them and deletes them needs the lock of the free pages for
// none of it, once it has pages at hand.
TEST_F(ConcurrencyTest, AThreadWithFilesOfItsOwnLeavesTheFreePagesAlone) {
  const Ino dir = Make("dir", S_IFDIR | 0755);
  for (const size_t size : {1000, 4096}) {
    const std::string bytes(size, 'x');
    const auto cycle = [&] {
      const Ino ino = Make("file", S_IFREG | 0644, dir);
      Put(ino, 0, bytes);
      Put(ino, 0, bytes);
      ASSERT_TRUE(fs().Unlink(ctx(), dir, "file").ok());
      fs().Forget(ino, 1);
    };
    for (int i = 0; i < 40; ++i) cycle();
    const uint64_t before = region().space().depot().visits();
    for (int i = 0; i < 100; ++i) cycle();
    EXPECT_EQ(region().space().depot().visits(), before) << size;
  }
}

TEST_F(ConcurrencyTest, WritersFillTheRegionAndDeletersEmptyIt) {
  const uint64_t empty = FreePages();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const Context context{.uid = 0, .gid = 0, .now = {7, t}};
      const std::string name = "file" + std::to_string(t);
      const std::string chunk(256 << 10, static_cast<char>('a' + t));
      for (int round = 0; round < 6; ++round) {
        const auto made = fs().MakeNode(context, kRootIno, name, S_IFREG | 0644);
        if (!made.ok()) continue;
        const Ino ino = (*made).ino;
        uint64_t size = 0;
        for (;;) {
          const auto written = fs().Write(context, ino, size, BytesOf(chunk));
          if (!written.ok()) break;
          size += *written;
        }
        // Nobody else's bytes are ever in it.
        for (uint64_t at = 0; at < size; at += 1 << 20) {
          const auto answer = fs().Read(ino, at, 4096);
          const std::string text = TextOf(*answer);
          EXPECT_EQ(text.find_first_not_of(chunk[0]), std::string::npos);
        }
        (void)fs().Unlink(context, kRootIno, name);
        fs().Forget(ino, 1);
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_GE(FreePages() + 2, empty);
}

// A region has 16 journal slots.  Each store takes long, until someone had to wait for one.
TEST_F(ConcurrencyTest, NobodyFailsWhenTheJournalIsFull) {
  constexpr unsigned kThreads = 24;
  std::atomic<bool> has_waited{false};
  std::vector<Ino> dirs;
  for (unsigned t = 0; t < kThreads; ++t) {
    dirs.push_back(Make("dir" + std::to_string(t), S_IFDIR | 0755));
  }
  mounted_.reset();
  mounted_ = std::make_unique<Mounted>(file_, 0, [&] {
    if (!has_waited) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const Context context{.uid = 0, .gid = 0, .now = {7, t}};
      for (int i = 0; i < 100 || !has_waited; ++i) {
        const std::string name = "n" + std::to_string(i % 10);
        const auto made = fs().MakeNode(context, dirs[t], name, S_IFREG | 0644);
        EXPECT_TRUE(made.ok()) << made.error();
        EXPECT_EQ(fs().Link(context, (*made).ino, dirs[t], "linked" + name).error(), 0);
        EXPECT_EQ(fs().Unlink(context, dirs[t], name).error(), 0);
        EXPECT_EQ(fs().Unlink(context, dirs[t], "linked" + name).error(), 0);
        fs().Forget((*made).ino, 2);
        if (region().journal().waits() > 0) has_waited = true;
      }
      EXPECT_TRUE(fs().MakeNode(context, dirs[t], "last", S_IFREG | 0644).ok());
    });
  }
  for (auto& t : threads) t.join();
  const Picture picture = PictureOf(&fs());
  EXPECT_EQ(picture.size(), 1 + 2 * kThreads);
  Remount();
  EXPECT_EQ(PictureOf(&fs()), picture);
}

class FewInodesConcurrencyTest : public ConcurrencyTest {
 protected:
  FewInodesConcurrencyTest() { max_inodes_ = 2000; }
};

// Threads keep free numbers of inodes at hand; all of them are used before there is none.
TEST_F(FewInodesConcurrencyTest, AsManyFilesAsThereMayBe) {
  for (int round = 0; round < 2; ++round) {
    std::atomic<int> made{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 5; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0;; ++i) {
          const std::string name = std::to_string(t) + "." + std::to_string(i);
          const auto file = fs().MakeNode({}, kRootIno, name, S_IFREG | 0644);
          if (!file.ok()) {
            EXPECT_EQ(file.error(), ENOSPC);
            return;
          }
          fs().Forget((*file).ino, 1);
          ++made;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(made, 1999);
    EXPECT_EQ(fs().StatFs().free_inodes, 0u);
    for (const std::string& name : Names()) EXPECT_TRUE(fs().Unlink({}, kRootIno, name).ok());
    EXPECT_EQ(fs().StatFs().free_inodes, 1999u);
  }
}

// A file is made on a full filesystem, right after another one was deleted, and before the kernel
// forgets that.  `fs` has space for it then.
void ExpectItWaits(Filesystem* fs, pkram::Region* region, Ino file, const std::string& name) {
  const auto works = [fs] {
    const auto made = fs->MakeNode({}, kRootIno, "another", S_IFREG | 0644);
    if (made.ok()) fs->Forget((*made).ino, 1);
    return made.ok();
  };
  EXPECT_FALSE(works());
  region->space().set_forgetting(std::chrono::minutes(1));
  ASSERT_TRUE(fs->Unlink({}, kRootIno, name).ok());
  std::atomic<pid_t> thread_id{0};
  std::atomic<bool> done{false};
  bool worked = false;
  std::thread thread([&] {
    thread_id = gettid();
    worked = works();
    done = true;
  });
  // Until it waits, or has failed.
  EXPECT_TRUE(Eventually([&] {
    return done ||
           (thread_id != 0 && StateIn("/proc/self/task/" + std::to_string(thread_id)) == 'S');
  }));
  EXPECT_FALSE(done);
  fs->Forget(file, 1);
  thread.join();
  EXPECT_TRUE(worked);
}

TEST_F(ConcurrencyTest, PagesThatTheKernelIsAboutToForgetAreWaitedFor) {
  const Ino file = Make("file"), large = Make("large");
  const std::string piece(1 << 16, 'x');
  for (uint64_t at = 0; fs().Write({}, large, at, BytesOf(piece)).ok(); at += piece.size()) {
  }
  ExpectItWaits(&fs(), &region(), file, "file");
}

TEST_F(FewInodesConcurrencyTest, ANumberThatTheKernelIsAboutToForgetIsWaitedFor) {
  const Ino file = Make("file");
  while (fs().StatFs().free_inodes > 0) Make(std::to_string(fs().StatFs().free_inodes));
  ExpectItWaits(&fs(), &region(), file, "file");
  EXPECT_EQ(fs().StatFs().free_inodes, 0u);
}

}  // namespace
}  // namespace pkramfs
