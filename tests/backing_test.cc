#include "pkram/backing.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include <cstring>

#include "pkram/backing_kinds.h"
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
  const absl::Span<std::byte> at = *backing_->Map(128, true);
  std::memset(at.data() + 100 * kPageSize, 1, 4 * kPageSize);
  munmap(at.data(), at.size());
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
  EXPECT_EQ(backing->name(), "fd=" + std::to_string(file_.fd()));
  EXPECT_EQ(*backing->Size(), 0u);
  EXPECT_EQ(OpenFdBacking(12345).status().code(), absl::StatusCode::kNotFound);
  const int full = open("/dev/full", O_RDWR);
  EXPECT_EQ(OpenFdBacking(full).status().code(), absl::StatusCode::kFailedPrecondition);
  close(full);
  const int zero = open("/dev/zero", O_RDONLY);
  EXPECT_EQ(OpenFdBacking(zero).status().code(), absl::StatusCode::kPermissionDenied);
  close(zero);
}

// A process that inherits a descriptor shares its locks.  A region still has one user only.
TEST_F(BackingTest, ADescriptorIsLockedAgainstThoseWhoShareIt) {
  const auto one = OpenFdBacking(file_.fd()).value();
  const auto other = OpenFdBacking(file_.fd()).value();
  ASSERT_EQ(one->Lock(true), absl::OkStatus());
  EXPECT_EQ(other->Lock(true).code(), absl::StatusCode::kUnavailable);
}

TEST_F(BackingTest, AFullFilesystemIsAnErrorNotASignal) {
  const std::string path = "/dev/full";
  EXPECT_FALSE(OpenBacking(path, OpenFor::kWriting).ok());  // no device of memory
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
  EXPECT_EQ(OpenBacking("/nowhere/at/all", OpenFor::kCreating).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenBacking("/tmp", OpenFor::kWriting).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(BackingTest, ABlockDeviceIsNone) {
  const std::string node = testing::TempDir() + "block-device";
  unlink(node.c_str());
  if (mknod(node.c_str(), S_IFBLK | 0600, makedev(7, 0)) != 0) GTEST_SKIP() << "needs root";
  const int loop = open(node.c_str(), O_RDWR);  // it need not be there
  if (loop >= 0) {
    close(loop);
    EXPECT_THAT(OpenBacking(node, OpenFor::kWriting).status().ToString(),
                HasSubstr(node + ": a block device"));
  }
  unlink(node.c_str());
}

// A memfd that is used as a device is: its size is fixed, its mappings are aligned.
class DeviceBackingTest : public testing::Test {
 protected:
  static constexpr uint64_t kAlignment = 512 * kPageSize;
  static constexpr uint64_t kPages = 4 * 512;
  void SetUp() override {
    // What memory holds that somebody used before.
    std::string junk(kPages * kPageSize, '\0');
    for (size_t i = 0; i < junk.size(); ++i) junk[i] = static_cast<char>(i * 37 >> 3);
    file_.SetContents(junk);
  }
  absl::StatusOr<std::unique_ptr<Backing>> Open(uint64_t bytes = kPages * kPageSize + kPageSize) {
    return MakeDeviceBacking("device", Another(file_), Another(lock_), {bytes, kAlignment}, true);
  }
  static int Another(const MemoryFile& file) {
    return open(("/proc/self/fd/" + std::to_string(file.fd())).c_str(), O_RDWR);
  }
  MemoryFile file_, lock_;
};

TEST_F(DeviceBackingTest, HasTheSizeThatCanBeMapped) {
  const auto device = Open().value();
  EXPECT_EQ(*device->Size(), kPages * kPageSize);
  EXPECT_EQ(device->device_pages(), kPages);
  const absl::Span<std::byte> mapped = *device->Map(1, false);
  EXPECT_EQ(mapped.size(), kAlignment);
  munmap(mapped.data(), mapped.size());
  EXPECT_EQ(Open(kAlignment - 1).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DeviceBackingTest, FillsAndKeepsItsMemory) {
  const auto device = Open().value();
  const std::string before = file_.Contents();
  std::string bytes = "some bytes", more(kPageSize, 'm');
  const iovec iov[] = {{bytes.data(), bytes.size()}, {more.data(), more.size()}};
  ASSERT_EQ(device->Fill(5 * kPageSize, iov), absl::OkStatus());
  ASSERT_EQ(device->FillZeros({Pfn(600), 2}), absl::OkStatus());
  ASSERT_EQ(device->Reserve({Pfn(700), 20}), absl::OkStatus());
  device->GiveBack({Pfn(800), 100});
  device->ShrinkTo(1);
  std::string expected = before;
  expected.replace(5 * kPageSize, 2 * kPageSize,
                   (bytes + more + std::string(kPageSize, '\0')).substr(0, 2 * kPageSize));
  expected.replace(600 * kPageSize, 2 * kPageSize, std::string(2 * kPageSize, '\0'));
  EXPECT_TRUE(file_.Contents() == expected);
}

TEST_F(DeviceBackingTest, IsLockedAgainstThoseWithAnotherNode) {
  const auto device = Open().value();
  ASSERT_EQ(device->Lock(true), absl::OkStatus());
  EXPECT_EQ(Open().value()->Lock(false).code(), absl::StatusCode::kUnavailable);
  // What another node's user has in common with us is the second descriptor only.
  MemoryFile node;
  const auto other = MakeDeviceBacking("device", Another(node), Another(lock_),
                                       {kPages * kPageSize, kPageSize}, false);
  EXPECT_EQ((*other)->Lock(false).code(), absl::StatusCode::kUnavailable);
}

TEST_F(DeviceBackingTest, BecomesARegionWhateverItHeld) {
  const auto refused = Region::Open(Open().value(), {});
  EXPECT_THAT(refused.status().ToString(), HasSubstr("not a pkramfs region (left as it is)"));
  EXPECT_EQ(*Region::Look(Open().value().get()), Region::Holds::kOther);
  EXPECT_EQ(Region::Format(Open().value().get(), kPages).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      Region::Format(Open().value().get(), kPages + 1, Region::Contents::kGiveUp).ToString(),
      HasSubstr("larger than the device, which has 2048"));
  ASSERT_EQ(Region::Format(Open().value().get(), kPages - 600, Region::Contents::kGiveUp),
            absl::OkStatus());
  EXPECT_EQ(*Region::Look(Open().value().get()), Region::Holds::kRegion);
  Region::OpenOptions options;
  options.resizable = true;
  auto region = Region::Open(Open().value(), options).value();
  EXPECT_EQ(region->super().page_count, kPages - 600);
  // To the device's size, not beyond.
  EXPECT_EQ(region->Resize(kPages), absl::OkStatus());
  EXPECT_EQ(region->Resize(kPages + 1).code(), absl::StatusCode::kOutOfRange);
  const auto pfn = region->space().AllocateMetadata();
  ASSERT_TRUE(pfn.ok());
  region->space().Discard({*pfn, 1});
  ASSERT_EQ(region->Close(), absl::OkStatus());
  region.reset();
  EXPECT_TRUE(Region::Check(Open().value().get(), nullptr)->problems.empty());
  options.pages = kPages + 1;
  EXPECT_EQ(Region::Open(Open().value(), options).status().code(), absl::StatusCode::kOutOfRange);
}

// A region, then a device that has less: its end is not there any more.
TEST_F(DeviceBackingTest, ARegionLargerThanTheDeviceIsRefused) {
  ASSERT_EQ(Region::Format(Open().value().get(), kPages, Region::Contents::kGiveUp),
            absl::OkStatus());
  const auto refused = Region::Open(Open(kPages / 2 * kPageSize).value(), {});
  EXPECT_THAT(refused.status().ToString(), HasSubstr("larger than the device, which has 1024"));
}

}  // namespace
}  // namespace pkram
