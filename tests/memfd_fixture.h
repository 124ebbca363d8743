// A fixture for regions in a memfd.
#ifndef TESTS_MEMFD_FIXTURE_H_
#define TESTS_MEMFD_FIXTURE_H_

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>

#include <string>

#include "mount/region/holder.h"
#include "mount/region/memfd.h"
#include "tests/bulk_fixture.h"

namespace pkramfs {

class MemfdTest : public BulkTest {
 protected:
  void SetUp() override {
    BulkTest::SetUp();
    if (!IsSkipped()) region_ = "memfd:" + dir_.substr(5);
  }
  void TearDown() override {
    if (dir_.empty()) return;
    while (IsMounted(mount_)) {
      if (umount2(mount_.c_str(), MNT_DETACH) != 0) break;
    }
    EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty() || IsLeftToAHolder(); }));
    EndHolders();
    ExpectFreed();
    BulkTest::TearDown();
  }
  // A descriptor of the region, which must be closed soon.
  pkram::Descriptor Region() {
    return pkram::Descriptor(open(FindMemfd(region_).c_str(), O_RDWR | O_CLOEXEC));
  }
  size_t Holders() { return HoldersOf(Region().get()).size(); }
  void EndHolders() {
    for (const pkram::Descriptor& holder : HoldersOf(Region().get())) EndHolder(holder);
  }
  // The mount is over: nobody has the lock.  (A mount that has just begun may not have ended the
  // holder of before yet.)
  bool IsLeftToAHolder() {
    const pkram::Descriptor region = Region();
    return flock(region.get(), LOCK_EX | LOCK_NB) == 0 && HoldersOf(region.get()).size() == 1;
  }
  // A mount ends its region's holder soon after it can be used.
  void ExpectNoHolder() {
    EXPECT_TRUE(Eventually([this] { return Holders() == 0; }));
  }
  // (Another test may be listing all regions.)
  void ExpectFreed() {
    EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
  }
  void Unmount() {
    ASSERT_EQ(umount2(mount_.c_str(), 0), 0) << std::strerror(errno);
    ASSERT_TRUE(Eventually([this] { return IsLeftToAHolder(); }));
  }
};

}  // namespace pkramfs

#endif  // TESTS_MEMFD_FIXTURE_H_
