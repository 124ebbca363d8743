#include <fcntl.h>

#include <random>

#include "fs/layout.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;

class FileDataTest : public FsTest {};

// A file's pages are listed in its inode, as long as there is space for them.
TEST_F(FileDataTest, WhatAFileTakesBesideItsPages) {
  struct Case {
    uint64_t pages, others;
  };
  for (const auto& [pages, others] :
       {Case{1, 1}, {16, 1}, {488, 1}, {489, 2}, {510, 2}, {511, 3}}) {
    for (const size_t piece : {size_t{100}, size_t{4096}, size_t{1} << 20}) {
      SCOPED_TRACE(testing::Message() << pages << " pages in pieces of " << piece);
      const uint64_t before = FreePages();
      const Ino ino = Make("file");
      const std::string bytes(pages * kPageSize, 'f');
      for (size_t at = 0; at < bytes.size(); at += piece) Put(ino, at, bytes.substr(at, piece));
      EXPECT_EQ(before - FreePages(), pages + others);
      EXPECT_EQ(AttrOf(ino).blocks, 8 * pages);
      ASSERT_EQ(Resize(ino, kPageSize), 0);
      EXPECT_LE(before - FreePages(), 1 + others);
      EXPECT_TRUE(Text(ino) == bytes.substr(0, kPageSize));
      ASSERT_EQ(Resize(ino, 0), 0);
      EXPECT_EQ(before - FreePages(), 1u);
      ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "file").ok());
      fs().Forget(ino, 1);
      EXPECT_EQ(before - FreePages(), 0u);
    }
  }
}

TEST_F(FileDataTest, SmallFilesAreInlineAndCostOnePage) {
  const uint64_t before = FreePages();
  const Ino ino = Make("small");
  Put(ino, 0, std::string(kInlineBytes, 's'));
  EXPECT_EQ(before - FreePages(), 1u);
  EXPECT_EQ(AttrOf(ino).blocks, 8u);
  Put(ino, kInlineBytes, "x");
  EXPECT_EQ(before - FreePages(), 2u);
  EXPECT_EQ(Text(ino), std::string(kInlineBytes, 's') + "x");
  ASSERT_EQ(Resize(ino, 0), 0);
  EXPECT_EQ(before - FreePages(), 1u);
  Put(ino, 0, "again");
  EXPECT_EQ(before - FreePages(), 1u);
}

TEST_F(FileDataTest, AnAnswerMayBeMoved) {
  const Ino ino = Make("small");
  Put(ino, 0, "tiny");
  ReadAnswer first = *fs().Read(ino, 0, 100);
  const ReadAnswer second = std::move(first);
  first = ReadAnswer();
  EXPECT_EQ(TextOf(second), "tiny");
}

TEST_F(FileDataTest, HolesReadAsZerosAndCostNothing) {
  const Ino ino = Make("sparse");
  const uint64_t before = FreePages();
  Put(ino, 1000 * kPageSize, "end");
  EXPECT_LE(before - FreePages(), 2u);
  EXPECT_EQ(AttrOf(ino).blocks, 8u);
  EXPECT_EQ(Text(ino), std::string(1000 * kPageSize, '\0') + "end");
  ASSERT_EQ(Resize(ino, uint64_t{1} << 62), 0);
  EXPECT_EQ(AttrOf(ino).size, uint64_t{1} << 62);
  EXPECT_EQ(TextOf(*fs().Read(ino, (uint64_t{1} << 62) - 3, 100)), std::string(3, '\0'));
  Remount();
  EXPECT_EQ(AttrOf(ino).size, uint64_t{1} << 62);
}

TEST_F(FileDataTest, WhatWasCutOffDoesNotComeBack) {
  for (const uint64_t size : {uint64_t{2000}, 3 * kPageSize}) {
    const Ino ino = Make("cut" + std::to_string(size));
    Put(ino, 0, std::string(size, 'x'));
    ASSERT_EQ(Resize(ino, 100), 0);
    ASSERT_EQ(Resize(ino, size), 0);
    EXPECT_EQ(Text(ino), std::string(100, 'x') + std::string(size - 100, '\0'));
    ASSERT_EQ(Resize(ino, 100), 0);
    Put(ino, 200, "y");
    EXPECT_EQ(Text(ino), std::string(100, 'x') + std::string(100, '\0') + "y");
  }
}

TEST_F(FileDataTest, RandomWritesAndTruncatesMatchAString) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 6; ++round) {
    const Ino ino = Make("random" + std::to_string(round));
    std::string model;
    const uint64_t span = round % 2 == 0 ? 6000 : 600 * kPageSize;
    for (int step = 0; step < 400; ++step) {
      const uint64_t offset = random() % span;
      if (random() % 4 == 0) {
        ASSERT_EQ(Resize(ino, offset), 0);
        model.resize(offset);
      } else {
        const std::string bytes(random() % (span / 8), static_cast<char>('a' + step % 26));
        if (bytes.empty()) continue;
        Put(ino, offset, bytes);
        if (model.size() < offset + bytes.size()) model.resize(offset + bytes.size());
        model.replace(offset, bytes.size(), bytes);
      }
      if (step % 50 == 49) Remount();
      ASSERT_TRUE(Text(ino) == model) << "round " << round << " step " << step;
      const uint64_t from = random() % (model.size() + 1);
      ASSERT_TRUE(TextOf(*fs().Read(ino, from, 5000)) == model.substr(from, 5000));
    }
    ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "random" + std::to_string(round)).ok());
  }
}

TEST_F(FileDataTest, AFullRegionGivesAShortWriteThenENOSPC) {
  const Ino ino = Make("big");
  const std::string chunk(1 << 20, 'b');
  uint64_t size = 0;
  for (;;) {
    const auto r = fs().Write(ctx(), ino, size, BytesOf(chunk));
    if (!r.ok()) {
      EXPECT_EQ(r.error(), ENOSPC);
      break;
    }
    size += *r;
  }
  EXPECT_EQ(AttrOf(ino).size, size);
  EXPECT_EQ(Text(ino), std::string(size, 'b'));
  EXPECT_EQ(FreePages(), 0u);
  // Existing contents can be read, overwritten, cut and deleted.
  Put(ino, 0, chunk);
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, "more", S_IFREG).error(), ENOSPC);
  ASSERT_EQ(Resize(ino, size / 2 + 1), 0);
  EXPECT_GT(FreePages(), size / 2 / kPageSize - 2);
  Put(Make("more"), 0, "fits");
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "big").ok());
  fs().Forget(ino, 1);
  EXPECT_GT(FreePages(), 8000u);
}

TEST_F(FileDataTest, AWriteTakesTheLastPagesThereAre) {
  const Ino filler = Make("filler");
  const Ino last = Make("last");
  const std::string chunk(1 << 20, 'f');
  uint64_t size = 0;
  while (FreePages() > 300) {
    Put(filler, size, chunk);
    size += chunk.size();
  }
  // More than there is, to a file that has no link yet, and needs a whole one.
  const uint64_t free = FreePages();
  const uint64_t at = 600 * kPageSize;
  const auto written = fs().Write(ctx(), last, at, BytesOf(std::string(2 << 20, 'l')));
  ASSERT_TRUE(written.ok()) << written.error();
  EXPECT_EQ(*written, (free - 1) * kPageSize);
  EXPECT_EQ(FreePages(), 0u);
}

TEST_F(FileDataTest, AWriteThatFailsKeepsNoPages) {
  const Ino capable = Make("capable");
  ASSERT_TRUE(fs().SetXattr(ctx(), capable, "security.capability", "c", 0).ok());
  ASSERT_TRUE(fs().SetXattr(ctx(), capable, "user.other", "o", 0).ok());
  const Ino filler = Make("filler");
  uint64_t size = 0;
  for (;;) {
    const auto r = fs().Write(ctx(), filler, size, BytesOf(std::string(1 << 20, 'f')));
    if (!r.ok()) break;
    size += *r;
  }
  // It would drop the capability, which takes pages, and then finds none for its bytes.
  const auto before = region().space().counts();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(fs().Write(ctx(), capable, 1 << 20, BytesOf("x")).error(), ENOSPC);
  }
  EXPECT_EQ(region().space().counts().reserved, before.reserved);
  EXPECT_TRUE(fs().GetXattr(capable, "security.capability").ok());
  EXPECT_TRUE(fs().Unlink(ctx(), kRootIno, "filler").ok());
}

TEST_F(FileDataTest, LargeFilesLieInLongRuns) {
  const Ino ino = Make("long");
  for (uint64_t at = 0; at < 16 << 20; at += 128 << 10) Put(ino, at, std::string(128 << 10, 'l'));
  EXPECT_LE((*fs().Read(ino, 0, 16 << 20)).iov.size(), 2u);
}

TEST_F(FileDataTest, ARemountTouchesNoContents) {
  const Ino ino = Make("large");
  for (uint64_t at = 0; at < 24 << 20; at += 1 << 20) Put(ino, at, std::string(1 << 20, 'c'));
  std::vector<std::pair<off_t, off_t>> runs;
  {
    const ReadAnswer answer = *fs().Read(ino, 0, 24 << 20);
    for (const iovec& v : answer.iov) {
      const auto offset = region().mapping().OffsetOf(v.iov_base);
      runs.emplace_back(static_cast<off_t>(offset), static_cast<off_t>(v.iov_len));
    }
  }
  mounted_->Close();
  // After the pages of the contents were taken away, a reader makes them exist again.
  for (const auto& [offset, size] : runs) {
    ASSERT_EQ(fallocate(file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size), 0);
  }
  ASSERT_LT(file_.memory(), uint64_t{1} << 20);
  mounted_ = std::make_unique<Mounted>(file_);
  EXPECT_EQ(AttrOf(ino).size, uint64_t{24} << 20);
  EXPECT_EQ(AttrOf(ino).blocks, (uint64_t{24} << 20) / 512);
  mounted_->Close();
  EXPECT_LT(file_.memory(), uint64_t{1} << 20);
  mounted_ = std::make_unique<Mounted>(file_);
}

TEST_F(FileDataTest, DeletingGivesMemoryBack) {
  const Ino ino = Make("mem");
  Put(ino, 0, std::string(8 << 20, 'm'));
  EXPECT_GT(file_.memory(), uint64_t{8} << 20);
  ASSERT_TRUE(fs().Unlink(ctx(), kRootIno, "mem").ok());
  fs().Forget(ino, 1);
  EXPECT_LT(file_.memory(), uint64_t{1} << 20);
}

TEST_F(FileDataTest, AStalledReadNeverShowsAnotherFilesBytes) {
  const Ino victim = Make("victim");
  Put(victim, 0, std::string(4 << 20, 'v'));
  ReadAnswer stalled = *fs().Read(victim, 0, 1 << 20);
  ASSERT_EQ(Resize(victim, 0), 0);
  region().space().set_limbo_patience(std::chrono::milliseconds(20));
  // Somebody wants every page there is.
  const Ino other = Make("other");
  for (uint64_t at = 0;; at += 1 << 20) {
    const auto r = fs().Write(ctx(), other, at, BytesOf(std::string(1 << 20, 'o')));
    if (!r.ok()) break;
  }
  EXPECT_EQ(TextOf(stalled), std::string(1 << 20, 'v'));
  // Once it is answered, its pages are there for others.
  stalled = ReadAnswer();
  Put(other, AttrOf(other).size, std::string(1 << 20, 'o'));
}

TEST_F(FileDataTest, ImpossibleOffsetsAreEFBIG) {
  const Ino ino = Make("f");
  EXPECT_EQ(fs().Write(ctx(), ino, ~uint64_t{0} - 5, BytesOf("x")).error(), EFBIG);
  EXPECT_EQ(fs().Write(ctx(), ino, (uint64_t{1} << 63) - 1, BytesOf("x")).error(), EFBIG);
  EXPECT_EQ(Resize(ino, uint64_t{1} << 63), EFBIG);
}

}  // namespace
}  // namespace pkramfs
