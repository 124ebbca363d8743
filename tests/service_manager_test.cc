// A service whose two processes die at once goes on at its next start: what systemd does for that,
// done by this process.  (.ci/systemd has it done by systemd.)
#include <gmock/gmock.h>

#include "mount/region/memfd.h"
#include "tests/service_manager_fixture.h"

namespace pkramfs {
namespace {

TEST_F(ServiceManagerTest, AServiceGoesOnWhereBothDied) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  const int gone = open((mount_ + "/gone").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(unlink((mount_ + "/gone").c_str()), 0);
  ASSERT_EQ(pwrite(gone, "nameless", 8, 0), 8);
  for (int death = 0; death < 3; ++death) {
    KillEverybody();
    ASSERT_TRUE(Start());
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
    char bytes[8];
    EXPECT_EQ(pread(gone, bytes, 8, 0), 8);
    EXPECT_EQ(Statistics()["takeovers"]["last"], "ended, and its keeper");
    EXPECT_EQ(kept_.size(), 4u) << "the connection, the region, the requests, the mount";
  }
  close(gone);
  Unmount();
}

// A program that calls meanwhile waits for the next start.
TEST_F(ServiceManagerTest, WhatIsUnderWayIsDoneOnce) {
  ASSERT_TRUE(Start());
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  int error = -1;
  std::thread maker([&] { error = mkdir((mount_ + "/dir").c_str(), 0755) == 0 ? 0 : errno; });
  ASSERT_TRUE(Eventually([&] { return Statistics()["requests"].contains("mkdir"); }));
  KillEverybody();
  ASSERT_TRUE(Start());
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  maker.join();
  EXPECT_EQ(error, 0);
}

// Of a mount that is over nothing is used, and its region is free.
TEST_F(ServiceManagerTest, WhatIsKeptOfAMountThatIsOverIsGivenBack) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  Unmount();
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  EXPECT_FALSE(Statistics()["takeovers"].is_object());
  EXPECT_EQ(kept_.size(), 4u);
  // And after that it goes on as the first did.
  KillEverybody();
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

// A region in a memfd is what the manager keeps when the mount is over.
TEST_F(ServiceManagerTest, AMemfdIsKeptWhileTheServiceIsStopped) {
  const std::string file = region_;
  region_ = "memfd:" + dir_.substr(5);
  ASSERT_TRUE(Start());
  for (int stop = 0; stop < 3; ++stop) {
    Spill(mount_ + "/file", "bytes " + std::to_string(stop));
    Unmount();
    ASSERT_EQ(kept_.size(), 1u);
    EXPECT_TRUE(kept_.contains("pkramfs-region"));
    ASSERT_TRUE(Start());
    EXPECT_EQ(kept_.size(), 4u);
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes " + std::to_string(stop));
    // Both may die, too.
    KillEverybody();
    ASSERT_TRUE(Start());
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes " + std::to_string(stop));
  }
  Unmount();
  kept_.clear();
  EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
  region_ = file;
}

// Scribbled on while nobody served.
TEST_F(ServiceManagerTest, ARegionThatIsRefusedEndsTheService) {
  ASSERT_TRUE(Start());
  KillEverybody();
  const int fd = open(region_.c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, "scribble", 8, 0), 8);
  close(fd);
  EXPECT_FALSE(Start());
  EXPECT_EQ(Ended(), 32);
  // The manager keeps neither the mount nor the region's lock.
  EXPECT_TRUE(kept_.empty());
}

}  // namespace
}  // namespace pkramfs
