// Regions in a memfd, on real mounts: they are there as long as somebody holds them.
#include "mount/region/memfd.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "mount/library/pkramfs.h"
#include "tests/memfd_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

TEST_F(MemfdTest, WhatIsInItIsThereAtTheNextMount) {
  Mount("size=64m");
  Spill(At("file"), "text");
  ExpectNoHolder();
  for (int i = 0; i < 3; ++i) {
    Unmount();
    EXPECT_THAT(Shell(Pkramctl() + " list --names").out, HasSubstr(region_ + "\n"));
    Mount("size=64m");
    EXPECT_EQ(Slurp(At("file")), "text");
    ExpectNoHolder();
    EXPECT_THAT(Shell(Pkramctl() + " list --names").out, HasSubstr(region_ + "\n"));
  }
}

TEST_F(MemfdTest, ItGrowsAndGivesMemoryBack) {
  Mount("size=64m");
  const auto held = [this] {
    struct stat st {};
    fstat(Region().get(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  };
  EXPECT_LT(held(), uint64_t{4} << 20);
  Spill(At("file"), std::string(32 << 20, 'x'));
  EXPECT_GT(held(), uint64_t{32} << 20);
  ASSERT_EQ(unlink(At("file").c_str()), 0);
  EXPECT_TRUE(Eventually([&] { return held() < uint64_t{8} << 20; }));
  ASSERT_EQ(Shell(Pkramctl() + " resize " + region_ + " size=128m").status, 0);
  EXPECT_THAT(Shell("df --output=size -BM " + mount_).out, HasSubstr(" 128M\n"));
}

// statfs asks the kernel whether the memfd may grow.
TEST_F(MemfdTest, AStatfsBesideAWriterTakesNothingAway) {
  Mount("size=256m");
  std::atomic<bool> is_done = false;
  std::vector<std::thread> ask;
  for (int i = 0; i < 2; ++i) {
    ask.emplace_back([&] {
      struct statvfs st {};
      while (!is_done) EXPECT_EQ(statvfs(mount_.c_str(), &st), 0);
    });
  }
  const std::string block(8192, 'x');
  for (int round = 0; round < 4; ++round) {
    const std::string name = At("file" + std::to_string(round));
    const int fd = open(name.c_str(), O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 2000; ++i) {
      ASSERT_EQ(pwrite(fd, block.data(), block.size(), i * 8192), ssize_t{8192});
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    const std::string bytes = Slurp(name);
    EXPECT_EQ(bytes.size(), size_t{2000} * 8192);
    EXPECT_EQ(bytes.find_first_not_of('x'), std::string::npos);
  }
  is_done = true;
  for (std::thread& thread : ask) thread.join();
}

TEST_F(MemfdTest, EveryToolTakesItsName) {
  Mount("size=64m");
  Spill(dir_ + "/source", std::string(10000, 's'));
  ASSERT_EQ(Import(region_ + ":/in " + dir_ + "/source").status, 0);
  EXPECT_EQ(Slurp(At("in")), std::string(10000, 's'));
  for (const std::string& name : {region_, mount_}) {
    const Ran ran = Shell(Pkramctl() + " info " + name);
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_THAT(ran.out, HasSubstr(mount_));
  }
  const int fd = open(At("in").c_str(), O_RDONLY);
  int how = 0;
  void* const address = pkramfs_map(fd, 0, 0, &how);
  EXPECT_EQ(how, PKRAMFS_OWN_PAGES) << pkramfs_why();
  EXPECT_EQ(std::string_view(static_cast<char*>(address), 10000), std::string(10000, 's'));
  EXPECT_EQ(pkramfs_unmap(address), 0);
  close(fd);
  EXPECT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  EXPECT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  Unmount();
  for (const char* command : {"check ", "info "}) {
    const Ran ran = Shell(Pkramctl() + " " + command + region_);
    EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  }
  EXPECT_EQ(Shell(std::string(FSCK_BINARY " ") + region_).status, 0);
  // What is not mounted is changed, and still held.
  ASSERT_EQ(Import(region_ + ":/off " + dir_ + "/source").status, 0);
  EXPECT_EQ(Shell(Pkramctl() + " export " + region_ + ":/off | tar xOf - | wc -c").out, "10000\n");
  EXPECT_EQ(Holders(), 1u);
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("off")), std::string(10000, 's'));
}

TEST_F(MemfdTest, MkfsMakesOneThatIsHeld) {
  Spill(dir_ + "/source", "text");
  const Ran ran = Shell(std::string(MKFS_BINARY) + " -o size=64m " + region_);
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(Holders(), 1u);
  EXPECT_EQ(Shell(std::string(MKFS_BINARY) + " -o size=64m " + region_).status, 1);
  ASSERT_EQ(Import(region_ + ":/in " + dir_ + "/source").status, 0);
  Mount();
  EXPECT_EQ(Slurp(At("in")), "text");
  ExpectNoHolder();
}

TEST_F(MemfdTest, ItOutlivesItsServerAndItsKeeper) {
  Mount("size=64m");
  Spill(At("file"), "text");
  for (const char* process : {"pid", "keeper", "pid"}) {
    const pid_t pid = Statistics()[process];
    kill(pid, SIGKILL);
    EXPECT_TRUE(Eventually([&] { return IsGone(pid); }));
    // (A server may not have noticed yet that its keeper is dead.)
    EXPECT_TRUE(Eventually([&] {
      const pid_t keeper = Statistics().value("keeper", 0);
      return keeper != 0 && keeper != pid && !IsGone(keeper);
    }));
    EXPECT_EQ(Slurp(At("file")), "text");
  }
  ASSERT_EQ(Shell(Pkramctl() + " upgrade " + region_).status, 0);
  EXPECT_EQ(Slurp(At("file")), "text");
  Unmount();
  Mount();
  EXPECT_EQ(Slurp(At("file")), "text");
}

// The keeper is killed while the server waits to end.
TEST_F(MemfdTest, AServerWithoutAKeeperLeavesAHolder) {
  Mount("size=64m");
  Spill(At("file"), "text");
  const pid_t server = DaemonPid(), keeper = Statistics()["keeper"];
  ASSERT_TRUE(Stop(server));
  kill(keeper, SIGKILL);
  EXPECT_TRUE(Eventually([&] { return IsGone(keeper); }));
  kill(server, SIGTERM);
  kill(server, SIGCONT);
  EXPECT_TRUE(Eventually([&] { return IsGone(server) && !IsMounted(mount_); }));
  EXPECT_TRUE(Eventually([this] { return Holders() == 1; }));
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("file")), "text");
}

TEST_F(MemfdTest, OfMountsAtOnceOneMakesIt) {
  const std::string other = dir_ + "/other";
  ASSERT_EQ(mkdir(other.c_str(), 0755), 0);
  for (int i = 0; i < 5; ++i) {
    Ran one, two;
    std::thread thread([&] { one = TryMount("size=16m"); });
    two = Shell(Pkramfs() + " " + region_ + " " + other + " -o size=16m");
    thread.join();
    EXPECT_EQ((one.status == 0) + (two.status == 0), 1) << one.err << two.err;
    EXPECT_THAT(one.err + two.err, HasSubstr(region_ + ": in use by"));
    EXPECT_THAT(one.err + two.err, HasSubstr("mounted on"));
    ASSERT_EQ(umount2(one.status == 0 ? mount_.c_str() : other.c_str(), 0), 0);
    ASSERT_TRUE(Eventually([this] { return IsLeftToAHolder(); }));
    EndHolders();
    ExpectFreed();
  }
}

TEST_F(MemfdTest, OthersCannotOpenIt) {
  Mount("size=16m");
  const std::string ctl = dir_ + "/pkramctl";
  ASSERT_EQ(Shell("install -m 755 " + Pkramctl() + " " + ctl).status, 0);
  const std::string as = "setpriv --reuid 65534 --regid 65534 --clear-groups ";
  const Ran checked = Shell(as + ctl + " check " + region_);
  EXPECT_EQ(checked.status, 2);
  EXPECT_THAT(checked.err, HasSubstr("there is none"));
  const int pid = DaemonPid();
  EXPECT_NE(Shell(as + "cat /proc/" + std::to_string(pid) + "/fd/*").status, 0);
}

TEST_F(MemfdTest, WhatCannotBeIsRefused) {
  Ran ran = TryMount("size=16m,notakeover");
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("option notakeover: the keeper holds " + region_));
  for (const std::string& name : {std::string("memfd:"), std::string("memfd:a/b"),
                                  std::string("memfd:a b"), "memfd:" + std::string(201, 'x')}) {
    ran = Shell(Pkramfs() + " '" + name + "' " + mount_);
    EXPECT_NE(ran.status, 0);
    EXPECT_THAT(ran.err, HasSubstr("a name is of 1 to 200 letters"));
  }
  ran = Shell(Pkramctl() + " check " + region_);
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr(region_ + ": there is none"));
  // A mount that fails leaves none.
  ran = Shell(Pkramfs() + " " + region_ + " " + dir_ + "/absent -o size=16m");
  EXPECT_NE(ran.status, 0);
  ran = TryMount("size=16m,context=none");
  ExpectFreed();
}

}  // namespace
}  // namespace pkramfs
