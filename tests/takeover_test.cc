// A server that dies below programs that go on: what they hold, and what the kernel knows, is as it
// was (G9).  takeover_weather does it under load.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include <thread>

#include "tests/mount_fixture.h"
#include "tests/processes.h"

namespace pkramfs {
namespace {

class TakeoverTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    Mount("size=64m,takeover");
  }
  pid_t Server() const { return ProcessOf("pkramfs", region_); }
  pid_t Keeper() const { return ProcessOf("pkramfs-keeper", region_); }
  // Until another one is there.
  void KillServer() {
    const pid_t was = Server();
    ASSERT_GT(was, 0);
    kill(was, SIGKILL);
    ASSERT_TRUE(Eventually([&] { return Server() != 0 && Server() != was; }));
  }
  void KillKeeper() {
    const pid_t was = Keeper();
    ASSERT_GT(was, 0);
    kill(was, SIGKILL);
    ASSERT_TRUE(Eventually([&] { return Keeper() != 0 && Keeper() != was; }));
  }
  void ExpectNobody() {
    EXPECT_TRUE(Eventually([&] { return Server() == 0 && Keeper() == 0; }));
  }
  bool IsSealed() {
    return Shell(Pkramctl() + " info " + region_).out.find("sealed") != std::string::npos;
  }
};

TEST_F(TakeoverTest, WhatIsOpenStaysOpen) {
  Spill(mount_ + "/kept", "kept");
  const int kept = open((mount_ + "/kept").c_str(), O_RDWR);
  const int gone = open((mount_ + "/gone").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(pwrite(gone, "nameless", 8, 0), 8);
  ASSERT_EQ(unlink((mount_ + "/gone").c_str()), 0);
  ASSERT_EQ(flock(kept, LOCK_EX), 0);
  for (int death = 0; death < 3; ++death) {
    KillServer();
    char bytes[8];
    EXPECT_EQ(pread(gone, bytes, 8, 0), 8);
    EXPECT_EQ(std::string(bytes, 8), "nameless");
    struct stat st;
    EXPECT_EQ(fstat(gone, &st), 0);
    EXPECT_EQ(st.st_nlink, 0u);
    EXPECT_EQ(pwrite(kept, "KEPT", 4, 0), 4);
    const int other = open((mount_ + "/kept").c_str(), O_RDONLY);
    EXPECT_EQ(flock(other, LOCK_SH | LOCK_NB), -1);
    close(other);
  }
  close(gone);
  close(kept);
  // What nobody has open any more is given back.
  EXPECT_TRUE(Eventually([&] { return Statistics()["inodes"] == 2; })) << Statistics();
}

TEST_F(TakeoverTest, EitherMayDieManyTimes) {
  for (int i = 0; i < 5; ++i) {
    KillServer();
    KillKeeper();
    Spill(mount_ + "/file", std::to_string(i));
    EXPECT_EQ(Slurp(mount_ + "/file"), std::to_string(i));
  }
  Unmount();
  ExpectNobody();
  EXPECT_TRUE(IsSealed());
}

TEST_F(TakeoverTest, FrozenStaysFrozen) {
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  std::atomic<bool> written = false;
  std::thread writer([&] {
    Spill(mount_ + "/file", "bytes");
    written = true;
  });
  // Its request is in flight.
  ASSERT_TRUE(Eventually([&] { return Statistics()["requests"].contains("create"); }));
  for (int death = 0; death < 2; ++death) {
    KillServer();
    EXPECT_THAT(Shell(Pkramctl() + " freeze " + region_).err, testing::HasSubstr("frozen already"));
    EXPECT_FALSE(written);
  }
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  writer.join();
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

// Pages that the kernel sends later were stored to before that: the mtime stays.
TEST_F(TakeoverTest, AnMtimeThatWasGivenStays) {
  const int fd = open((mount_ + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(pwrite(fd, "0123", 4, 0), 4);
  auto* const at =
      static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  at[0] = 'x';
  const timespec times[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(futimens(fd, times), 0);
  KillServer();
  ASSERT_EQ(msync(at, 4096, MS_SYNC), 0);
  struct stat st;
  ASSERT_EQ(fstat(fd, &st), 0);
  EXPECT_EQ(st.st_mtim.tv_sec, 1000);
  munmap(at, 4096);
  close(fd);
  EXPECT_EQ(Slurp(mount_ + "/file"), "x123");
}

TEST_F(TakeoverTest, WhoIsToldToEndHasNoSuccessor) {
  KillServer();
  kill(Keeper(), SIGTERM);  // it passes it on
  ExpectNobody();
  EXPECT_FALSE(IsMounted(mount_));
  EXPECT_TRUE(IsSealed());
}

TEST_F(TakeoverTest, WhenBothAreGoneItIsAsWithout) {
  const pid_t server = Server(), keeper = Keeper();
  kill(keeper, SIGSTOP);
  kill(server, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return Server() == 0; }));
  kill(keeper, SIGKILL);
  struct stat st;
  EXPECT_TRUE(
      Eventually([&] { return stat((mount_ + "/x").c_str(), &st) != 0 && errno == ENOTCONN; }));
}

// A region that is not sound any more is not served.
TEST_F(TakeoverTest, ARegionThatIsRefusedEndsIt) {
  Spill(mount_ + "/file", std::string(100000, 'f'));
  const pid_t keeper = Keeper();
  kill(keeper, SIGSTOP);
  kill(Server(), SIGKILL);
  ASSERT_TRUE(Eventually([&] { return Server() == 0; }));
  const int fd = open(region_.c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, "scribble", 8, 0), 8);
  close(fd);
  kill(keeper, SIGCONT);
  ExpectNobody();
  struct stat st;
  EXPECT_EQ(stat((mount_ + "/x").c_str(), &st), -1);
  EXPECT_EQ(errno, ENOTCONN);
}

TEST_F(TakeoverTest, AKeeperTakesLittle) {
  if (PKRAMFS_IS_SANITIZED) GTEST_SKIP() << "a sanitizer's own memory is beyond any bound";
  for (int i = 0; i < 2; ++i) {
    std::istringstream in(Slurp("/proc/" + std::to_string(Keeper()) + "/smaps_rollup"));
    uint64_t own = 0;
    for (std::string line; std::getline(in, line);) {
      unsigned long long kib = 0;
      if (std::sscanf(line.c_str(), "Private_Dirty: %llu kB", &kib) == 1) own += kib;
    }
    EXPECT_GT(own, 0u);
    EXPECT_LT(own, 2048u);
    KillKeeper();
  }
}

}  // namespace
}  // namespace pkramfs
