#include "pkram/backing.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstring>

#include "tests/region_fixture.h"

namespace pkram {
namespace {

using testing::HasSubstr;

class BackingTest : public testing::Test {
 protected:
  void SetUp() override { backing_ = file_.Reopen(); }
  absl::Status Fill(uint64_t offset, const std::string& bytes) {
    const iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
    return backing_->Fill(offset, {&iov, 1});
  }
  MemoryFile file_;
  std::unique_ptr<Backing> backing_;
};

TEST_F(BackingTest, GrowsWhenFilledAndZeroesTheRestOfThePage) {
  ASSERT_EQ(Fill(2 * kPageSize, std::string(2 * kPageSize, 'x')), absl::OkStatus());
  ASSERT_EQ(Fill(2 * kPageSize, "short"), absl::OkStatus());
  EXPECT_EQ(*backing_->Size(), 4 * kPageSize);
  const std::string contents = file_.Contents();
  EXPECT_EQ(contents.substr(2 * kPageSize, 5), "short");
  EXPECT_EQ(contents.substr(2 * kPageSize + 5, kPageSize - 5), std::string(kPageSize - 5, '\0'));
  EXPECT_EQ(contents[3 * kPageSize], 'x');
}

TEST_F(BackingTest, FillsFromManyPieces) {
  std::string bytes(1000, 'a');
  std::vector<iovec> iov(300, iovec{bytes.data(), bytes.size()});
  ASSERT_EQ(backing_->Fill(0, iov), absl::OkStatus());
  EXPECT_EQ(file_.Contents().substr(0, 300000), std::string(300000, 'a'));
}

TEST_F(BackingTest, GivesMemoryBackAndShrinks) {
  ASSERT_EQ(Fill(0, std::string(64 * kPageSize, 'x')), absl::OkStatus());
  backing_->GiveBack({Pfn(8), 16});
  EXPECT_EQ(file_.memory(), 48 * kPageSize);
  EXPECT_EQ(file_.size(), 64 * kPageSize);
  backing_->ShrinkTo(32);
  EXPECT_EQ(file_.size(), 32 * kPageSize);
  backing_->ShrinkTo(40);
  EXPECT_EQ(file_.size(), 32 * kPageSize);
}

TEST_F(BackingTest, ReservedPagesTakeStores) {
  ASSERT_EQ(backing_->Reserve({Pfn(100), 4}), absl::OkStatus());
  std::byte* const at = *backing_->Map(128, true);
  std::memset(at + 100 * kPageSize, 1, 4 * kPageSize);
  munmap(at, 128 * kPageSize);
  EXPECT_EQ(file_.size(), 104 * kPageSize);
}

TEST_F(BackingTest, LocksNameTheHolder) {
  ASSERT_EQ(backing_->Lock(true), absl::OkStatus());
  const auto second = file_.Reopen();
  const absl::Status refused = second->Lock(false);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("in use by process " + std::to_string(getpid())));
  backing_.reset();
  EXPECT_EQ(second->Lock(false), absl::OkStatus());
  EXPECT_EQ(file_.Reopen()->Lock(false), absl::OkStatus());
}

TEST_F(BackingTest, ADescriptorIsABacking) {
  auto backing = OpenFdBacking(file_.fd()).value();
  EXPECT_EQ(backing->name(), "fd " + std::to_string(file_.fd()));
  EXPECT_EQ(*backing->Size(), 0u);
  EXPECT_FALSE(OpenFdBacking(12345).ok());
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  EXPECT_EQ(OpenFdBacking(pipe_ends[0]).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(BackingTest, AFullFilesystemIsAnErrorNotASignal) {
  const std::string path = "/dev/full";
  EXPECT_FALSE(OpenFileBacking(path, OpenFor::kWriting).ok());  // a device is no region
  // RLIMIT_FSIZE stands for it: the kernel says EFBIG, with SIGXFSZ ignored.
  signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{16 * kPageSize, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_EQ(Fill(15 * kPageSize, std::string(4 * kPageSize, 'x')).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backing_->Reserve({Pfn(20), 4}).code(), absl::StatusCode::kResourceExhausted);
  setrlimit(RLIMIT_FSIZE, &old);
}

TEST_F(BackingTest, PathsThatAreNone) {
  EXPECT_EQ(OpenFileBacking("/nowhere/at/all", OpenFor::kCreating).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenFileBacking("/tmp", OpenFor::kWriting).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace pkram
