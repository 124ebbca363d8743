// A server that dies below programs that go on: what they hold, and what the kernel knows, is as it
// was (G9).  takeover_weather does it under load.
#include <gmock/gmock.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include <chrono>
#include <thread>

#include "tests/takeover_fixture.h"

namespace pkramfs {
namespace {

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
  // Files that nobody has open any more are freed.
  EXPECT_TRUE(Eventually([&] { return Statistics()["inodes"] == 2; })) << Statistics();
}

// The kernel names the process that took a lock, and that process may be gone.
TEST_F(TakeoverTest, NobodyDeadIsSaidToUseTheRegion) {
  KillServer();
  const Ran ran = Shell(Pkramctl() + " check " + region_);
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, testing::HasSubstr("in use by another process"));
}

// Locks of all kinds, a lease, a watch, a working directory, mounts on and below it.
TEST_F(TakeoverTest, WhatTheKernelKnowsStays) {
  ASSERT_EQ(mkdir((mount_ + "/dir").c_str(), 0755), 0);
  ASSERT_EQ(mkdir((mount_ + "/below").c_str(), 0755), 0);
  Spill(mount_ + "/dir/file", "bytes");
  const std::string bind = dir_ + "/bind";
  mkdir(bind.c_str(), 0755);
  ASSERT_EQ(mount((mount_ + "/dir").c_str(), bind.c_str(), nullptr, MS_BIND, nullptr), 0);
  ASSERT_EQ(mount("tmpfs", (mount_ + "/below").c_str(), "tmpfs", 0, nullptr), 0);
  Spill(mount_ + "/below/file", "of tmpfs");
  const int posix = open((mount_ + "/dir/file").c_str(), O_RDWR);
  const int ofd = open((mount_ + "/dir/file").c_str(), O_RDWR);
  struct flock first {
  }, second{};
  first.l_type = second.l_type = F_WRLCK;
  first.l_len = second.l_start = second.l_len = 10;
  ASSERT_EQ(fcntl(posix, F_SETLK, &first), 0);
  ASSERT_EQ(fcntl(ofd, F_OFD_SETLK, &second), 0);
  Spill(mount_ + "/leased", "");
  const int leased = open((mount_ + "/leased").c_str(), O_RDONLY);
  ASSERT_EQ(fcntl(leased, F_SETLEASE, F_RDLCK), 0);
  const int watch = inotify_init1(IN_NONBLOCK);
  ASSERT_GE(inotify_add_watch(watch, (mount_ + "/dir").c_str(), IN_CREATE), 0);
  const int here = open(".", O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(chdir((mount_ + "/dir").c_str()), 0);

  KillServer();

  struct flock other {};
  other.l_type = F_WRLCK;
  EXPECT_EQ(fcntl(ofd, F_OFD_GETLK, &other), 0);
  EXPECT_EQ(other.l_pid, getpid()) << "the POSIX lock";
  other = {};
  other.l_type = F_WRLCK;
  other.l_start = 10;
  EXPECT_EQ(fcntl(posix, F_GETLK, &other), 0);
  EXPECT_EQ(other.l_type, F_WRLCK) << "the lock of the open file description";
  EXPECT_EQ(fcntl(leased, F_GETLEASE), F_RDLCK);
  // (Closing a file ends the POSIX locks on it.)
  EXPECT_EQ(Slurp("file"), "bytes");
  EXPECT_EQ(Slurp(bind + "/file"), "bytes");
  EXPECT_EQ(Slurp(mount_ + "/below/file"), "of tmpfs");
  Spill("made", "");
  char event[4096];
  EXPECT_GT(read(watch, event, sizeof(event)), 0);
  ASSERT_EQ(fchdir(here), 0);
  for (const int fd : {posix, ofd, leased, watch, here}) close(fd);
  ASSERT_EQ(umount2((mount_ + "/below").c_str(), 0), 0);
  ASSERT_EQ(umount2(bind.c_str(), 0), 0);
  Unmount();
  ExpectNobody();
}

// What the kernel keeps and has not sent yet goes to the next server.
TEST_F(TakeoverTest, WhatTheKernelKeepsIsNotLost) {
  Unmount();
  Mount("size=64m,writeback");
  const int fd = open((mount_ + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  const std::string bytes(300000, 'w');
  ASSERT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  KillServer();
  EXPECT_EQ(fsync(fd), 0);
  close(fd);
  Unmount();
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/file"), bytes);
}

TEST_F(TakeoverTest, InfoSaysHowOftenAndWhy) {
  EXPECT_FALSE(Statistics().contains("takeovers"));
  EXPECT_EQ(Statistics()["keeper"], Keeper());
  KillServer();
  KillKeeper();
  // A keeper is told how its child ended, and its child is the one that it has started.
  KillServer();
  EXPECT_EQ(Statistics()["takeovers"]["last"], "ended");
  KillServer();
  const nlohmann::json now = Statistics();
  EXPECT_EQ(now["takeovers"]["count"], 3) << now;
  EXPECT_EQ(now["takeovers"]["last"], "ended by signal 9 (Killed)");
  EXPECT_GT(now["takeovers"]["pause_ms"], 0.0);
  EXPECT_EQ(now["pid"], Server());
  EXPECT_EQ(now["keeper"], Keeper());
  EXPECT_EQ(now["options"]["takeover"], true);
}

TEST_F(TakeoverTest, AKeeperGivesUpWhenServersDieAgainAndAgain) {
  for (int death = 0; Keeper() != 0 && death < 110; ++death) {
    pid_t server = 0;
    Eventually([&] { return (server = Server()) != 0 || Keeper() == 0; });
    if (server == 0) break;
    kill(server, SIGKILL);
    Eventually([&] { return IsGone(server); });
  }
  ExpectNobody();
  struct stat st;
  EXPECT_EQ(stat((mount_ + "/x").c_str(), &st), -1);
  EXPECT_EQ(errno, ENOTCONN);
  umount2(mount_.c_str(), MNT_DETACH);
  Mount();
  EXPECT_EQ(Shell("ls " + mount_).status, 0);
}

// In a process of its own, which becomes that user.
TEST_F(TakeoverTest, AnOrdinaryUsersMountGoesOn) {
  if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "no fusermount3";
  const pid_t child = fork();
  if (child == 0) {
    MountProcess mount(MountProcess::As::kUser);
    mount.Mount("size=16m");
    Spill(mount.mount_point() + "/file", "the user's");
    bool well = true;
    for (const Victim victim : {Victim::kServer, Victim::kKeeper, Victim::kServer}) {
      well = well && KillOne(victim, mount.region()) &&
             Slurp(mount.mount_point() + "/file") == "the user's";
    }
    mount.Unmount();
    well = well && Eventually([&] { return ProcessOf("pkramfs-keeper", mount.region()) == 0; });
    mount.Mount("size=16m");
    well = well && Slurp(mount.mount_point() + "/file") == "the user's";
    mount.~MountProcess();
    _exit(well ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
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

// At whatever moment the server dies, the mount command says correctly whether there is a mount.
TEST_F(TakeoverTest, AServerMayDieWhileItStarts) {
  constexpr int kDeaths = 60;
  int mounted = 0;
  std::chrono::steady_clock::duration start_takes{};
  // The first one lives, and tells how long a start takes here.
  for (int i = -1; i < kDeaths; ++i) {
    umount2(mount_.c_str(), MNT_DETACH);
    ExpectNobody();
    const pid_t start = fork();
    if (start == 0) {
      execl(PKRAMFS_BINARY, "pkramfs", region_.c_str(), mount_.c_str(), nullptr);
      _exit(99);
    }
    // (The mount command is called pkramfs, too, and at first the server has the keeper's name.)
    pid_t server = 0;
    ASSERT_TRUE(Eventually([&] {
      const pid_t keeper = Keeper();
      return keeper != 0 && (server = ChildOf(keeper)) != 0;
    }));
    const auto seen = std::chrono::steady_clock::now();
    if (i >= 0) {
      std::this_thread::sleep_for(start_takes * i / (kDeaths - 10));
      kill(server, SIGKILL);
    }
    int status = 0;
    ASSERT_TRUE(Eventually([&] { return waitpid(start, &status, WNOHANG) == start; })) << i;
    if (i < 0) start_takes = std::chrono::steady_clock::now() - seen;
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 0) {
      ++mounted;
      Spill(mount_ + "/file", std::to_string(i));
      EXPECT_EQ(Slurp(mount_ + "/file"), std::to_string(i));
    } else if (IsMounted(mount_)) {
      // Dead before there was anything to keep.
      struct stat st;
      EXPECT_EQ(stat((mount_ + "/x").c_str(), &st), -1);
      // (The second, if the kernel has had no answer to its first request.)
      EXPECT_TRUE(errno == ENOTCONN || errno == ECONNREFUSED) << std::strerror(errno);
    }
  }
  std::printf("  %d of %d were mounted\n", mounted - 1, kDeaths);
}

// Told to end while no server is there: the next one is told, too.
TEST_F(TakeoverTest, WhoIsToldToEndBetweenTwoServersEnds) {
  const pid_t keeper = Keeper(), server = Server();
  ASSERT_TRUE(Stop(keeper));
  kill(server, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return IsGone(server); }));
  kill(keeper, SIGTERM);
  kill(keeper, SIGCONT);
  ExpectNobody();
  EXPECT_FALSE(IsMounted(mount_));
  EXPECT_TRUE(IsSealed());
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
  ASSERT_TRUE(Stop(keeper));
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
  ASSERT_TRUE(Stop(keeper));
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
