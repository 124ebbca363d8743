// Pages that other processes work on: known by locks on the region's file, and by nothing else.
#include "pkram/loans.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fs_fixture.h"
#include "tests/region_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::LockPages;
using pkram::PageRun;
using pkram::PageUse;
using pkram::Pfn;

const Context kLoansRoot{.now = {1, 2}};

class LoansTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 256;

  void SetUp() override {
    pkram::FormatRegion(&file_, kPages);
    Open();
    Borrower();
  }
  void Open() {
    fs_.reset();
    region_.reset();
    region_ = pkram::OpenRegion(file_).value();
    region_->space().set_limbo_patience(std::chrono::milliseconds(50));
    fs_ = Filesystem::Open(region_.get(), {}, {}).value();
  }
  // Another process: it has an opening of the file for itself.
  void Borrower() { borrower_ = file_.Reopen(); }
  int fd() const { return borrower_->fd(); }
  pkram::Space& space() { return region_->space(); }
  pkram::Loans& loans() { return region_->space().loans(); }

  PageRun LendAndLock(uint64_t pages) {
    const PageRun run = space().Lend(pages).value();
    EXPECT_TRUE(LockPages(fd(), run, PageUse::kBuilding).ok());
    EXPECT_TRUE(loans().Keep({&run, 1}, PageUse::kBuilding));
    return run;
  }
  // A file of whole pages, and the run of the first.
  Ino MakeFile(const std::string& text) {
    const Ino ino = fs_->MakeNode(kLoansRoot, kRootIno, "file", S_IFREG | 0644)->ino;
    EXPECT_EQ(*fs_->Write(kLoansRoot, ino, 0, BytesOf(text)), text.size());
    return ino;
  }
  PageRun PageOf(Ino ino) {
    const ReadAnswer answer = *fs_->Read(ino, 0, kPageSize);
    return {region_->mapping().PfnOf(answer.iov[0].iov_base), 1};
  }
  PageRun HoldAndLock(Ino ino) {
    const PageRun run = PageOf(ino);
    loans().Hold(run);
    EXPECT_TRUE(LockPages(fd(), run, PageUse::kReading).ok());
    EXPECT_TRUE(loans().Keep({&run, 1}, PageUse::kReading));
    return run;
  }
  std::string BytesAt(PageRun run) {
    std::string bytes(kPageSize, '\0');
    EXPECT_EQ(pread(file_.fd(), bytes.data(), kPageSize, static_cast<off_t>(run.first.offset())),
              static_cast<ssize_t>(kPageSize));
    return bytes;
  }
  uint64_t FreePages() { return space().counts().free; }

  pkram::MemoryFile file_;
  std::unique_ptr<pkram::Region> region_;
  std::unique_ptr<Filesystem> fs_;
  std::unique_ptr<pkram::Backing> borrower_;
};

TEST_F(LoansTest, LocksOfOthersAreFoundInOrder) {
  EXPECT_TRUE(pkram::FindLockedPages(region_->backing().fd(), {Pfn(0), kPages}).empty());
  ASSERT_TRUE(LockPages(fd(), {Pfn(90), 10}, PageUse::kReading).ok());
  ASSERT_TRUE(LockPages(fd(), {Pfn(20), 5}, PageUse::kBuilding).ok());
  ASSERT_TRUE(LockPages(fd(), {Pfn(50), 1}, PageUse::kBuilding).ok());
  const auto found = pkram::FindLockedPages(region_->backing().fd(), {Pfn(22), kPages});
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].run.first, Pfn(22));
  EXPECT_EQ(found[0].run.count, 3u);
  EXPECT_EQ(found[1].run.first, Pfn(50));
  EXPECT_EQ(found[2].run.first, Pfn(90));
  EXPECT_EQ(found[2].run.count, 10u);
  EXPECT_EQ(found[2].use, PageUse::kReading);
}

TEST_F(LoansTest, LentPagesAreFreeAgainWhenWhoHadThemIsGone) {
  const uint64_t before = FreePages();
  LendAndLock(20);
  EXPECT_EQ(FreePages(), before - 20);
  space().RecheckLoans();
  EXPECT_EQ(FreePages(), before - 20);
  borrower_.reset();
  space().RecheckLoans();
  EXPECT_EQ(FreePages(), before);
  EXPECT_EQ(loans().counts().lent, 0u);
}

TEST_F(LoansTest, WhatNobodyHasLockedIsUsedWhenItIsNeeded) {
  const PageRun run = space().Lend(20).value();
  while (space().AllocateData(kPages, Pfn()).ok()) {
  }
  ASSERT_TRUE(LockPages(fd(), run, PageUse::kBuilding).ok());
  EXPECT_FALSE(loans().Keep({&run, 1}, PageUse::kBuilding));
}

TEST_F(LoansTest, KeepWantsTheLockOfThatUse) {
  const PageRun run = space().Lend(4).value();
  EXPECT_FALSE(loans().Keep({&run, 1}, PageUse::kBuilding));
  ASSERT_TRUE(LockPages(fd(), {run.first, 3}, PageUse::kBuilding).ok());
  EXPECT_FALSE(loans().Keep({&run, 1}, PageUse::kBuilding));
  ASSERT_TRUE(LockPages(fd(), {run.first + 3, 1}, PageUse::kReading).ok());
  EXPECT_FALSE(loans().Keep({&run, 1}, PageUse::kBuilding));
  ASSERT_TRUE(LockPages(fd(), run, PageUse::kBuilding).ok());
  EXPECT_TRUE(loans().Keep({&run, 1}, PageUse::kBuilding));
  const PageRun beyond{run.first, ~uint64_t{0}};
  EXPECT_FALSE(loans().Keep({&beyond, 1}, PageUse::kBuilding));
}

TEST_F(LoansTest, ASuccessorFindsWhatIsLent) {
  const uint64_t before = FreePages();
  const PageRun run = LendAndLock(20);
  Open();
  EXPECT_EQ(FreePages(), before - 20);
  EXPECT_TRUE(loans().Keep({&run, 1}, PageUse::kBuilding));
  for (;;) {  // nobody else gets one of them
    const absl::StatusOr<PageRun> other = space().AllocateData(kPages, Pfn());
    if (!other.ok()) break;
    EXPECT_TRUE(other->first + other->count <= run.first || run.first + run.count <= other->first);
  }
}

TEST_F(LoansTest, ASuccessorKnowsNothingOfWhatWasNotLockedYet) {
  const PageRun run = space().Lend(4).value();
  Open();
  ASSERT_TRUE(LockPages(fd(), run, PageUse::kBuilding).ok());
  EXPECT_FALSE(loans().Keep({&run, 1}, PageUse::kBuilding));
}

TEST_F(LoansTest, LentPagesAreInNoImage) {
  const PageRun run = LendAndLock(4);
  const pkram::Bitmap in_use = space().InUse();
  EXPECT_TRUE(run.first.value() >= in_use.size() || !in_use.Test(run.first.value()));
}

TEST_F(LoansTest, ALockOnReachablePagesIsNoLoan) {
  const Ino ino = MakeFile(std::string(kPageSize, 'a'));
  ASSERT_TRUE(LockPages(fd(), PageOf(ino), PageUse::kBuilding).ok());
  Open();
  EXPECT_EQ(loans().counts().lent, 0u);
  EXPECT_EQ(TextOf(*fs_->Read(ino, 0, kPageSize)), std::string(kPageSize, 'a'));
}

// --- Held pages -------------------------------------------------------------------

TEST_F(LoansTest, HeldBytesDoNotChangeWhateverIsDoneToTheFile) {
  const std::string a(kPageSize, 'a');
  const struct {
    const char* what;
    std::function<void(Ino)> change;
  } kChanges[] = {
      {"write", [&](Ino ino) { ASSERT_TRUE(fs_->Write(kLoansRoot, ino, 10, BytesOf("zz")).ok()); }},
      {"write all",
       [&](Ino ino) {
         ASSERT_TRUE(fs_->Write(kLoansRoot, ino, 0, BytesOf(std::string(kPageSize, 'z'))).ok());
       }},
      {"truncate and grow",
       [&](Ino ino) {
         AttrChange change;
         change.what = AttrChange::kSetSize;
         change.size = 5;
         ASSERT_TRUE(fs_->SetAttr(kLoansRoot, ino, change).ok());
         change.size = kPageSize;
         ASSERT_TRUE(fs_->SetAttr(kLoansRoot, ino, change).ok());
       }},
      {"punch",
       [&](Ino ino) {
         ASSERT_TRUE(
             fs_->Fallocate(kLoansRoot, ino, 1, 10, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
                 .ok());
       }},
      {"punch all",
       [&](Ino ino) {
         ASSERT_TRUE(fs_->Fallocate(kLoansRoot, ino, 0, kPageSize,
                                    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
                         .ok());
       }},
      {"zero",
       [&](Ino ino) {
         ASSERT_TRUE(fs_->Fallocate(kLoansRoot, ino, 0, kPageSize, FALLOC_FL_ZERO_RANGE).ok());
       }},
      {"zero a part",
       [&](Ino ino) {
         ASSERT_TRUE(fs_->Fallocate(kLoansRoot, ino, 7, 100, FALLOC_FL_ZERO_RANGE).ok());
       }},
      {"unlink", [&](Ino) { ASSERT_TRUE(fs_->Unlink(kLoansRoot, kRootIno, "file").ok()); }},
  };
  for (const auto& [what, change] : kChanges) {
    SCOPED_TRACE(what);
    const Ino ino = MakeFile(a);
    const PageRun run = HoldAndLock(ino);
    change(ino);
    EXPECT_EQ(BytesAt(run), a);
    if (std::string_view(what) != "unlink") {
      EXPECT_NE(TextOf(*fs_->Read(ino, 0, kPageSize)), a);
      ASSERT_TRUE(fs_->Unlink(kLoansRoot, kRootIno, "file").ok());
    }
    fs_->Forget(ino, 1);
    EXPECT_EQ(BytesAt(run), a);
    // Also when every free page is used, by this user of the region or the next.
    for (int attempt = 0; attempt < 2; ++attempt) {
      std::vector<PageRun> all;
      for (;;) {
        const absl::StatusOr<PageRun> other = space().AllocateData(kPages, Pfn());
        if (!other.ok()) break;
        EXPECT_TRUE(region_->FillZeros(*other).ok());
        all.push_back(*other);
      }
      EXPECT_EQ(BytesAt(run), a);
      for (const PageRun& other : all) space().Discard(other);
      if (attempt == 0) Open();
    }
    EXPECT_EQ(loans().counts().withheld, 1u);
    Borrower();
    space().RecheckLoans();
    EXPECT_EQ(loans().counts().held, 0u);
    EXPECT_EQ(loans().counts().withheld, 0u);
  }
}

TEST_F(LoansTest, HeldPagesAreWrittenInPlaceAgainAfterwards) {
  const Ino ino = MakeFile(std::string(kPageSize, 'a'));
  const PageRun run = HoldAndLock(ino);
  Borrower();
  space().RecheckLoans();
  ASSERT_TRUE(fs_->Write(kLoansRoot, ino, 0, BytesOf("z")).ok());
  EXPECT_EQ(BytesAt(run)[0], 'z');
}

TEST_F(LoansTest, TheLastOfTwoReadersCounts) {
  const Ino ino = MakeFile(std::string(kPageSize, 'a'));
  const PageRun run = HoldAndLock(ino);
  const std::unique_ptr<pkram::Backing> other = file_.Reopen();
  ASSERT_TRUE(LockPages(other->fd(), run, PageUse::kReading).ok());
  borrower_.reset();
  space().RecheckLoans();
  EXPECT_EQ(loans().counts().held, 1u);
  ASSERT_TRUE(fs_->Write(kLoansRoot, ino, 0, BytesOf("z")).ok());
  EXPECT_EQ(BytesAt(run)[0], 'a');
}

}  // namespace
}  // namespace pkramfs
