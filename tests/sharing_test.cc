// Files that share pages: what a copy costs, and that neither side ever sees what is
// done to the other.
#include <fcntl.h>

#include <chrono>
#include <optional>
#include <random>
#include <thread>

#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;

constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

std::string Pages(uint64_t count, char first = 'a') {
  std::string s;
  for (uint64_t i = 0; i < count; ++i) {
    s += std::string(kPageSize, static_cast<char>(first + i % 26));
  }
  return s;
}

class SharingTest : public FsTest {
 protected:
  explicit SharingTest(uint64_t pages = 8192) : FsTest(pages) {}
  void Copy(Ino from, uint64_t from_offset, Ino to, uint64_t to_offset, size_t size) {
    const auto r = fs().CopyRange(ctx(), from, from_offset, to, to_offset, size);
    ASSERT_TRUE(r.ok()) << r.error();
    ASSERT_EQ(*r, size);
  }
  // A file and its copy.
  void MakeTwo(const std::string& text) {
    a_ = Make("a");
    b_ = Make("b");
    Put(a_, 0, text);
    Copy(a_, 0, b_, 0, text.size());
  }
  int Fallocate(Ino ino, uint64_t from, uint64_t to, int mode) {
    return fs().Fallocate(ctx(), ino, from, to - from, mode).error();
  }
  // Whether two files have the page in common.
  bool Common(Ino x, Ino y, uint64_t page) {
    const auto at = [&](Ino ino) { return fs().Read(ino, page * kPageSize, 1); };
    const auto one = at(x), other = at(y);
    return (*one).iov[0].iov_base == (*other).iov[0].iov_base;
  }

  Ino a_ = 0, b_ = 0;
};

TEST_F(SharingTest, ACopyCostsItsLinksOnly) {
  const std::string text = Pages(1000) + "the end";
  const Ino a = Make("a"), b = Make("b");
  Put(a, 0, text);
  const uint64_t before = FreePages();
  Copy(a, 0, b, 0, text.size());
  EXPECT_EQ(before - FreePages(), 2u);
  EXPECT_TRUE(Text(b) == text);
  EXPECT_EQ(AttrOf(b).blocks, 1001 * 8u);
  EXPECT_TRUE(Common(a, b, 0) && Common(a, b, 1000));
  Remount();
  EXPECT_EQ(before - FreePages(), 2u);
  EXPECT_TRUE(Text(Find("b")) == text);
  EXPECT_TRUE(Text(Find("a")) == text);
}

TEST_F(SharingTest, HolesStayHoles) {
  const Ino a = Make("a"), b = Make("b");
  Put(a, 600 * kPageSize, "behind a hole");
  Put(b, 0, Pages(700));
  Copy(a, 0, b, 0, 600 * kPageSize);
  EXPECT_EQ(AttrOf(b).blocks, 100 * 8u);
  EXPECT_EQ(*fs().Seek(b, 0, SEEK_DATA), 600 * kPageSize);
  EXPECT_TRUE(Text(b) == std::string(600 * kPageSize, '\0') + Pages(700).substr(600 * kPageSize));
}

TEST_F(SharingTest, WhatIsDoneToOneIsNotSeenInTheOther) {
  struct Deed {
    const char* name;
    std::function<void(Ino, std::string*)> run;  // to a file, and to what it should hold
  };
  const auto write = [this](uint64_t at, size_t n) {
    return [this, at, n](Ino ino, std::string* text) {
      Put(ino, at, std::string(n, '!'));
      text->resize(std::max(text->size(), at + n));
      text->replace(at, n, n, '!');
    };
  };
  const auto resize = [this](uint64_t size) {
    return [this, size](Ino ino, std::string* text) {
      ASSERT_EQ(Resize(ino, size), 0);
      text->resize(size);
    };
  };
  const auto zero = [this](uint64_t from, uint64_t to, int mode) {
    return [this, from, to, mode](Ino ino, std::string* text) {
      ASSERT_EQ(Fallocate(ino, from, to, mode), 0);
      if ((mode & FALLOC_FL_KEEP_SIZE) == 0) text->resize(std::max(text->size(), to));
      const size_t end = std::min(to, text->size());
      if (from < end) text->replace(from, end - from, end - from, '\0');
    };
  };
  const auto both = [](auto first, auto second) {
    return [first, second](Ino ino, std::string* text) {
      first(ino, text);
      second(ino, text);
    };
  };
  const uint64_t size = 20 * kPageSize + 100;
  const std::vector<Deed> deeds = {
      {"a byte", write(5 * kPageSize + 7, 1)},
      {"a page", write(5 * kPageSize, kPageSize)},
      {"across pages", write(5 * kPageSize + 7, 3 * kPageSize)},
      {"everything", write(0, size)},
      {"an append", write(size, 10)},
      {"an append of pages", write(size, 3 * kPageSize)},
      {"behind a gap", write(size + 5 * kPageSize, 10)},
      {"cut", resize(7 * kPageSize + 9)},
      {"cut to nothing", resize(0)},
      {"grown", resize(size + 10)},
      {"cut and grown", both(resize(7 * kPageSize + 9), resize(9 * kPageSize))},
      {"cut, and written behind", both(resize(7 * kPageSize + 9), write(7 * kPageSize + 50, 5))},
      {"punched", zero(3 * kPageSize, 6 * kPageSize, kPunch)},
      {"punched in parts", zero(3 * kPageSize + 5, 6 * kPageSize + 9, kPunch)},
      {"punched in a page", zero(3 * kPageSize + 5, 3 * kPageSize + 9, kPunch)},
      {"zeroed", zero(3 * kPageSize, 6 * kPageSize, FALLOC_FL_ZERO_RANGE)},
      {"zeroed in parts", zero(3 * kPageSize + 5, 6 * kPageSize + 9, FALLOC_FL_ZERO_RANGE)},
      {"zeroed in a page", zero(3 * kPageSize + 5, 3 * kPageSize + 9, FALLOC_FL_ZERO_RANGE)},
      {"zeroed and grown", zero(3 * kPageSize + 5, size + 5000, FALLOC_FL_ZERO_RANGE)},
      {"zeroed behind the end", zero(size + 10, size + 20, FALLOC_FL_ZERO_RANGE)},
      {"zeroed to the last byte", zero(kPageSize + 1, size, FALLOC_FL_ZERO_RANGE)},
  };
  for (const Deed& deed : deeds) {
    for (const bool to_copy : {false, true}) {
      for (const bool killed : {false, true}) {
        SCOPED_TRACE(std::string(deed.name) + (to_copy ? ", to the copy" : ", to the source") +
                     (killed ? ", after a kill" : ""));
        const std::string text = Pages(20) + std::string(100, '.');
        MakeTwo(text);
        if (killed) {
          Remount();
          a_ = Find("a"), b_ = Find("b");
        }
        std::string changed = text;
        deed.run(to_copy ? b_ : a_, &changed);
        EXPECT_TRUE(Text(to_copy ? a_ : b_) == text);
        EXPECT_TRUE(Text(to_copy ? b_ : a_) == changed);
        Remount();
        EXPECT_TRUE(Text(Find(to_copy ? "a" : "b")) == text);
        EXPECT_TRUE(Text(Find(to_copy ? "b" : "a")) == changed);
        ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, to_copy ? "b" : "a").ok());
        EXPECT_TRUE(Text(Find(to_copy ? "a" : "b")) == text);
        ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, to_copy ? "a" : "b").ok());
      }
    }
  }
}

TEST_F(SharingTest, APageIsFreeWhenItsLastFileIsGone) {
  const uint64_t before = FreePages();
  MakeTwo(Pages(300));
  const Ino c = Make("c");
  Copy(b_, 0, c, 0, 300 * kPageSize);
  Copy(c, 0, c, 400 * kPageSize, 300 * kPageSize);  // and four times
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "a").ok());
  Remount();
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "b").ok());
  EXPECT_TRUE(Text(Find("c")) == Pages(300) + std::string(100 * kPageSize, '\0') + Pages(300));
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "c").ok());
  EXPECT_EQ(FreePages(), before);
}

TEST_F(SharingTest, ACopyOfTheSameAgainChangesNothing) {
  MakeTwo(Pages(100));
  const uint64_t before = FreePages();
  Copy(a_, 0, b_, 0, 100 * kPageSize);
  Copy(b_, 0, a_, 0, 100 * kPageSize);
  EXPECT_EQ(FreePages(), before);
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "a").ok());
  EXPECT_TRUE(Text(b_) == Pages(100));
}

TEST_F(SharingTest, WhoIsLeftAloneWritesInPlace) {
  MakeTwo(Pages(100));
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "a").ok());
  fs().Forget(a_, 1);
  const uint64_t before = FreePages();
  const void* const page = (*fs().Read(b_, 0, 1)).iov[0].iov_base;
  Put(b_, 10, "in place");
  EXPECT_EQ(FreePages(), before);
  EXPECT_EQ((*fs().Read(b_, 0, 1)).iov[0].iov_base, page);
}

// The source's reader got its answer from a page that by now only the copy has.
TEST_F(SharingTest, AStalledReadNeverShowsWhatTheCopyIsGiven) {
  MakeTwo(Pages(1));
  auto stalled = fs().Read(a_, 0, kPageSize);
  Put(a_, 0, std::string(kPageSize, 'A'));  // a copy of its own
  Put(b_, 0, std::string(kPageSize, 'B'));
  EXPECT_EQ(TextOf(*stalled), Pages(1));
  stalled = fs().Read(b_, 0, 1);  // lets it go
  Put(b_, 0, std::string(kPageSize, 'C'));
  EXPECT_TRUE(Text(b_) == std::string(kPageSize, 'C'));
  EXPECT_TRUE(Text(a_) == std::string(kPageSize, 'A'));
}

TEST_F(SharingTest, SmallAndCrookedRangesAreCopied) {
  const std::string text = Pages(5) + "tail";
  const Ino a = Make("a"), b = Make("b"), c = Make("c"), d = Make("d");
  Put(a, 0, text);
  Copy(a, 10, b, 5, text.size() - 10);  // no page of one is a page of the other
  EXPECT_TRUE(Text(b) == std::string(5, '\0') + text.substr(10));
  Copy(a, kPageSize + 7, c, 7, 3 * kPageSize);  // some are
  EXPECT_TRUE(Text(c) == std::string(7, '\0') + text.substr(kPageSize + 7, 3 * kPageSize));
  EXPECT_TRUE(Common(a, c, 1) == false);
  EXPECT_EQ((*fs().Read(a, 2 * kPageSize, 1)).iov[0].iov_base,
            (*fs().Read(c, kPageSize, 1)).iov[0].iov_base);
  // The last page of the source, when the target goes on behind it.
  Put(d, 0, std::string(7 * kPageSize, 'd'));
  Copy(a, 0, d, 0, text.size());
  EXPECT_TRUE(Text(d) == text + std::string(7 * kPageSize - text.size(), 'd'));
}

TEST_F(SharingTest, ALongCopyIsOneStep) {
  const Ino a = Make("a"), b = Make("b");
  ASSERT_EQ(Resize(a, uint64_t{6} << 30), 0);
  Put(a, (uint64_t{6} << 30) - 5, "the end");
  Copy(a, 0, b, 0, (uint64_t{6} << 30) + 2);
  EXPECT_EQ(AttrOf(b).size, AttrOf(a).size);
  EXPECT_EQ(AttrOf(b).blocks, AttrOf(a).blocks);
}

TEST_F(SharingTest, RandomCopiesAndChangesMatchStrings) {
  constexpr uint64_t kFiles = 4, kMost = 40 * kPageSize;
  std::mt19937_64 random(11);
  std::vector<std::string> model(kFiles);
  std::vector<Ino> files;
  for (uint64_t i = 0; i < kFiles; ++i) files.push_back(Make(std::to_string(i)));
  const uint64_t before = FreePages();
  const auto offset = [&] {
    const uint64_t at = random() % kMost;
    return random() % 2 == 0 ? at : at - at % kPageSize;
  };
  for (int step = 0; step < 3000; ++step) {
    const uint64_t x = random() % kFiles, y = random() % kFiles;
    uint64_t from = offset(), to = offset(), size = offset();
    std::string& text = model[x];
    switch (random() % 8) {
      case 0: {
        const std::string bytes(size, static_cast<char>('a' + random() % 26));
        Put(files[x], from, bytes);
        if (!bytes.empty()) {
          text.resize(std::max(text.size(), from + size));
          text.replace(from, size, bytes);
        }
        break;
      }
      case 1:
        ASSERT_EQ(Resize(files[x], from), 0);
        text.resize(from);
        break;
      case 2:
      case 3: {
        if (size == 0) break;
        const bool punch = random() % 2 == 0;
        ASSERT_EQ(Fallocate(files[x], from, from + size, punch ? kPunch : FALLOC_FL_ZERO_RANGE), 0);
        if (!punch) text.resize(std::max(text.size(), from + size));
        const size_t end = std::min(from + size, text.size());
        if (from < end) text.replace(from, end - from, end - from, '\0');
        break;
      }
      case 4:
        if (step % 10 != 0) break;
        Remount();
        for (uint64_t i = 0; i < kFiles; ++i) files[i] = Find(std::to_string(i));
        break;
      default: {
        if (random() % 4 != 0) to = from % kPageSize + to - to % kPageSize;
        if (x == y && from < to + size && to < from + size) break;
        const auto copied = fs().CopyRange(ctx(), files[x], from, files[y], to, size);
        ASSERT_TRUE(copied.ok()) << copied.error();
        const std::string bytes = from < text.size() ? text.substr(from, size) : "";
        ASSERT_EQ(*copied, bytes.size());
        if (bytes.empty()) break;
        std::string& target = model[y];
        target.resize(std::max(target.size(), to + bytes.size()));
        target.replace(to, bytes.size(), bytes);
      }
    }
    for (uint64_t i = 0; i < kFiles; ++i) {
      ASSERT_TRUE(Text(files[i]) == model[i]) << "file " << i << ", step " << step;
    }
  }
  for (uint64_t i = 0; i < kFiles; ++i) {
    ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, std::to_string(i)).ok());
  }
  EXPECT_EQ(FreePages(), before + kFiles);
}

class SmallSharingTest : public SharingTest {
 protected:
  SmallSharingTest() : SharingTest(512) {}
};

// On a full region overwriting a shared page takes one; everything that makes space works.
TEST_F(SmallSharingTest, FullIsAnErrorAndMakingSpaceWorks) {
  MakeTwo(Pages(100) + "tail");
  const Ino fill = Make("fill");
  for (uint64_t at = 0;; at += kPageSize) {
    if (!fs().Write(ctx(), fill, at, BytesOf(Pages(1))).ok()) break;
  }
  const auto written = fs().Write(ctx(), b_, 5, BytesOf("x"));
  EXPECT_EQ(written.error(), ENOSPC);
  EXPECT_TRUE(Text(b_) == Pages(100) + "tail");
  EXPECT_EQ(Resize(b_, 101 * kPageSize), ENOSPC);  // the rest of its last page has to be zero
  EXPECT_EQ(Fallocate(b_, 0, 50 * kPageSize, FALLOC_FL_ZERO_RANGE), ENOSPC);
  EXPECT_TRUE(Text(b_) == Pages(100) + "tail");
  // Of the first and the last page it would need copies; whole pages it only lets go.
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Fallocate(b_, 5, 3 * kPageSize + 5, kPunch), ENOSPC);
  EXPECT_TRUE(Text(b_) == Pages(100) + "tail");
  EXPECT_EQ(Fallocate(b_, kPageSize, 3 * kPageSize, kPunch), 0);
  EXPECT_TRUE(Text(a_) == Pages(100) + "tail");
  std::string punched = Pages(100) + "tail";
  punched.replace(kPageSize, 2 * kPageSize, 2 * kPageSize, '\0');
  EXPECT_TRUE(Text(b_) == punched);
  EXPECT_EQ(Resize(a_, 7), 0);
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "fill").ok());
  fs().Forget(fill, 1);
  Put(b_, 5, "x");
}

// It frees nothing, because other files have all of the pages, too.  But it takes nothing either.
TEST_F(SmallSharingTest, OnAFullRegionSharedPagesArePunchedAgainAndAgain) {
  std::vector<Ino> files;
  for (const std::string name : {"a", "b", "c", "d"}) {
    files.push_back(Make(name));
    Put(files.back(), 0, Pages(20));
    Copy(files.back(), 0, Make(name + name), 0, 20 * kPageSize);
  }
  const Ino fill = Make("fill");
  for (uint64_t at = 0;; at += kPageSize) {
    if (!fs().Write(ctx(), fill, at, BytesOf(Pages(1))).ok()) break;
  }
  const uint64_t reserved = region().space().counts().reserved;
  for (uint64_t page = 3; page < 10; ++page) {
    for (const Ino ino : files) {
      ASSERT_EQ(Fallocate(ino, page * kPageSize, (page + 1) * kPageSize, kPunch), 0) << page;
    }
  }
  EXPECT_EQ(region().space().counts().reserved, reserved);
  std::string punched = Pages(20);
  punched.replace(3 * kPageSize, 7 * kPageSize, 7 * kPageSize, '\0');
  for (const Ino ino : files) EXPECT_TRUE(Text(ino) == punched);
  EXPECT_TRUE(Text(Find("aa")) == Pages(20));
}

TEST_F(SmallSharingTest, OnAFullRegionBytesAreCopiedToWhereTheyHaveSpace) {
  const Ino a = Make("a"), b = Make("b"), fill = Make("fill");
  Put(a, 0, Pages(20, 'a'));
  Put(b, 0, Pages(30, 'b'));
  for (uint64_t at = 0;; at += kPageSize) {
    if (!fs().Write(ctx(), fill, at, BytesOf(Pages(1))).ok()) break;
  }
  Copy(a, 0, b, 0, 20 * kPageSize);
  EXPECT_TRUE(Text(b) == Pages(20, 'a') + Pages(30, 'b').substr(20 * kPageSize));
}

// Nobody shares the page any more, but somebody still reads what the other file had.
TEST_F(SmallSharingTest, OnAFullRegionWhoIsLeftAloneWaitsForReaders) {
  MakeTwo(Pages(100));
  const Ino fill = Make("fill");
  std::optional<ReadAnswer> stalled = *fs().Read(a_, 0, kPageSize);
  EXPECT_EQ(Resize(a_, kPageSize), 0);
  for (uint64_t at = 0;; at += kPageSize) {
    if (!fs().Write(ctx(), fill, at, BytesOf(Pages(1))).ok()) break;
  }
  region().space().set_limbo_patience(std::chrono::seconds(60));
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stalled.reset();
  });
  Put(b_, 5 * kPageSize, "x");
  reader.join();
}

// What others let go of meanwhile is zeroed, too, and no page is lost.
TEST_F(SharingTest, ZeroingWhileTheOtherGoesLosesNoPages) {
  for (int round = 0; round < 20; ++round) {
    MakeTwo(Pages(2000));
    std::thread other([this] { EXPECT_EQ(Resize(a_, 0), 0); });
    const Context context{.uid = 0, .gid = 0, .now = {9000, 1}};
    EXPECT_EQ(fs().Fallocate(context, b_, 0, 2000 * kPageSize, FALLOC_FL_ZERO_RANGE).error(), 0);
    other.join();
    EXPECT_TRUE(Text(b_) == std::string(2000 * kPageSize, '\0'));
    const uint64_t free = FreePages();
    Remount();
    ASSERT_EQ(FreePages(), free);
    ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "a").ok());
    ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "b").ok());
  }
}

// As many entries of one page as there is space for their lists: they go in pieces.
TEST_F(SharingTest, AFileOfOnePageAMillionTimes) {
  const Ino a = Make("a");
  const uint64_t before = FreePages();
  Put(a, 0, Pages(1));
  for (uint64_t pages = 1; pages < 1 << 20; pages *= 2) {
    Copy(a, 0, a, pages * kPageSize, pages * kPageSize);
  }
  EXPECT_EQ(AttrOf(a).blocks, uint64_t{8} << 20);
  EXPECT_EQ(before - FreePages(), 1 + ((1 << 20) + 509) / 510);
  EXPECT_EQ(Resize(a, 700 * kPageSize), 0);
  EXPECT_EQ(before - FreePages(), 3u);
  Remount();
  EXPECT_EQ(Text(Find("a")).size(), 700 * kPageSize);
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "a").ok());
  EXPECT_EQ(FreePages(), before + 1);
}

}  // namespace
}  // namespace pkramfs
