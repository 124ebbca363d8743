// What a daemon keeps of its privileges, and whose files it takes for regions.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class PrivilegesTest : public MountTest {
 protected:
  std::string StatusOf(pid_t pid, const std::string& field) {
    std::istringstream in(Slurp("/proc/" + std::to_string(pid) + "/status"));
    for (std::string line; std::getline(in, line);) {
      if (line.rfind(field + ":", 0) == 0) return line.substr(line.find_last_of("\t ") + 1);
    }
    return "";
  }
  static bool HasCapability(int number) {
    std::istringstream in(Slurp("/proc/self/status"));
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("CapEff:", 0) == 0) {
        return std::stoull(line.substr(7), nullptr, 16) >> number & 1;
      }
    }
    return false;
  }
  // What the kernel calls the mount there; "" for none.
  static std::string NumberOf(const std::string& mount_point) {
    for (const MountEntry& m : AllMounts()) {
      if (m.mount_point == mount_point) return m.id;
    }
    return "";
  }
  void ExpectLittle(pid_t pid, bool takes_over) {
    const auto set = [this, pid](const char* name) {
      return std::stoull(StatusOf(pid, name), nullptr, 16);
    };
    // A keeper settles down once it has been given what it keeps; this is the last step of it.
    EXPECT_TRUE(Eventually([&] { return StatusOf(pid, "NoNewPrivs") == "1"; }));
    const uint64_t left = 1ull << 21 | 1ull << 2 | 1ull << 14;
    EXPECT_EQ(set("CapEff"), left);
    EXPECT_EQ(set("CapPrm"), left);
    EXPECT_EQ(set("CapInh"), 0u);
    constexpr int kSetPcap = 8;
    // A program that it starts gets no more, and that one only when it is its heir.
    if (HasCapability(kSetPcap)) {
      EXPECT_EQ(set("CapBnd"), takes_over ? left : 0u);
    }
    constexpr int kSysResource = 24;
    if (HasCapability(kSysResource)) {
      EXPECT_EQ(Slurp("/proc/" + std::to_string(pid) + "/oom_score_adj"), "-999\n");
    }
  }
  void ExpectRefused(const std::string& why) {
    const Ran ran = TryMount();
    EXPECT_NE(ran.status, 0);
    EXPECT_THAT(ran.err, HasSubstr(why));
    EXPECT_FALSE(IsMounted(mount_));
  }
};

TEST_F(PrivilegesTest, WhatIsLeftIsUnmountingAndLockingMemory) {
  for (const std::string locks : {"", ",mlock"}) {
    for (const bool takes_over : {false, true}) {
      Mount("size=16m" + locks + (takes_over ? "" : ",notakeover"));
      // Reading attributes makes it have threads.
      const nlohmann::json statistics = Statistics();
      const pid_t pid = statistics["pid"], keeper = statistics.value("keeper", 0);
      EXPECT_EQ(keeper != 0, takes_over);
      for (const pid_t process : {pid, keeper}) {
        if (process != 0) ExpectLittle(process, takes_over);
      }
      // It can still end by itself, also below what it could not search by its user's rights.
      ASSERT_EQ(chown(dir_.c_str(), 1234, 1234), 0);
      ASSERT_EQ(chmod(dir_.c_str(), 0700), 0);
      kill(pid, SIGTERM);
      WaitUntilFree();
      EXPECT_FALSE(IsMounted(mount_));
      EXPECT_EQ(Shell(Pkramctl() + " check " + region_).status, 0);
      unlink(region_.c_str());
    }
  }
}

TEST_F(PrivilegesTest, ARegionIsMadeForItsOwnerOnly) {
  const mode_t before = umask(0);
  Mount();
  umask(before);
  struct stat st;
  ASSERT_EQ(stat(region_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST_F(PrivilegesTest, SomebodyElsesFileIsNoRegion) {
  // One that waits under the name, empty or whole.
  Spill(region_, "");
  ASSERT_EQ(chown(region_.c_str(), 1234, 1234), 0);
  ExpectRefused("belongs to user 1234");
  EXPECT_EQ(Slurp(region_), "");
  unlink(region_.c_str());
  Mount();
  Unmount();
  ASSERT_EQ(chown(region_.c_str(), 1234, 1234), 0);
  ExpectRefused("belongs to user 1234");
  for (const char* command : {" check ", " check --salvage /dev/shm/pkramfs-no-such ", " info "}) {
    const Ran ran = Shell(Pkramctl() + command + region_);
    EXPECT_EQ(ran.status, 2) << command;
    EXPECT_THAT(ran.err, HasSubstr("belongs to user 1234"));
  }
  ASSERT_EQ(chown(region_.c_str(), 0, 0), 0);
  ASSERT_EQ(chmod(region_.c_str(), 0666), 0);
  ExpectRefused("others may write to it");
  ASSERT_EQ(chmod(region_.c_str(), 0644), 0);
  Mount();
}

TEST_F(PrivilegesTest, SomebodyElsesLinkIsNotFollowed) {
  const std::string target = dir_ + "/target";
  ASSERT_EQ(symlink(target.c_str(), region_.c_str()), 0);
  ASSERT_EQ(lchown(region_.c_str(), 1234, 1234), 0);
  ExpectRefused("a symbolic link that belongs to user 1234");
  EXPECT_NE(access(target.c_str(), F_OK), 0);
  // By no program, and neither behind a link of one's own nor as a directory on the way.
  const std::string own = region_ + ".own", there = region_ + ".there", real = dir_ + "/real";
  ASSERT_EQ(symlink(region_.c_str(), own.c_str()), 0);
  ASSERT_EQ(mkdir(real.c_str(), 0755), 0);
  ASSERT_EQ(symlink(real.c_str(), there.c_str()), 0);
  ASSERT_EQ(lchown(there.c_str(), 1234, 1234), 0);
  for (const bool exists : {false, true}) {
    if (exists) {
      ASSERT_EQ(Shell(MKFS_BINARY " -o size=16m " + target).status, 0);
      ASSERT_EQ(Shell("echo bytes | " + Pkramctl() + " put " + target + " blob").status, 0);
      ASSERT_EQ(Shell("cp -p " + target + " " + real + "/target").status, 0);
    }
    const std::string before = exists ? Slurp(target) : "";
    for (const std::string& region : {region_, own, there + "/target"}) {
      for (const std::string& command : {
               Pkramctl() + " info " + region,
               Pkramctl() + " check " + region,
               Pkramctl() + " check --salvage /dev/shm/pkramfs-no-such " + region,
               "echo bytes | " + Pkramctl() + " put " + region + " other",
               Pkramctl() + " get " + region + " blob",
               Pkramctl() + " rm " + region + " blob",
               Pkramctl() + " freeze " + region,
               Pkramctl() + " resize " + region + " size=1g",
               std::string(MKFS_BINARY " -f -o size=16m ") + region,
               std::string(FSCK_BINARY " ") + region,
               Pkramfs() + " " + region + " " + mount_ + " -o size=16m",
           }) {
        const Ran ran = Shell(command);
        EXPECT_NE(ran.status, 0) << command;
        EXPECT_THAT(ran.err, HasSubstr("a symbolic link that belongs to user 1234")) << command;
      }
    }
    EXPECT_FALSE(IsMounted(mount_));
    EXPECT_EQ(access(target.c_str(), F_OK) == 0, exists);
    if (exists) {
      EXPECT_TRUE(Slurp(target) == before);
      EXPECT_TRUE(Slurp(real + "/target") == before);
    }
  }
  Shell("rm -rf " + target + " " + own + " " + there + " " + real);
  // One's own is.
  ASSERT_EQ(lchown(region_.c_str(), 0, 0), 0);
  Mount();
  EXPECT_EQ(access(target.c_str(), F_OK), 0);
  Unmount();
}

// A user who may rename a directory above a mount point cannot choose what root's daemon unmounts.
TEST_F(PrivilegesTest, AMountPointThatMovesIsTheOneThatIsUnmounted) {
  Mount("size=16m");
  const pid_t pid = DaemonPid();
  const std::string moved = dir_ + ".moved", other = dir_ + ".other";
  ASSERT_EQ(mkdir(other.c_str(), 0755), 0);
  ASSERT_EQ(mount("none", other.c_str(), "tmpfs", 0, ""), 0);
  Spill(other + "/here", "still");
  ASSERT_EQ(rename(dir_.c_str(), moved.c_str()), 0);
  ASSERT_EQ(mkdir(dir_.c_str(), 0755), 0);
  ASSERT_EQ(symlink(other.c_str(), mount_.c_str()), 0);
  kill(pid, SIGTERM);
  WaitUntilFree();
  EXPECT_EQ(Slurp(other + "/here"), "still");
  EXPECT_FALSE(IsMounted(moved + "/mnt"));
  umount2(other.c_str(), MNT_DETACH);
  Shell("rm -rf --one-file-system " + moved + " " + other);
}

TEST_F(PrivilegesTest, WhatIsBelowTheMountStaysWhenItEnds) {
  ASSERT_EQ(mount("none", mount_.c_str(), "tmpfs", 0, ""), 0);
  Spill(mount_ + "/below", "still");
  Mount("size=16m");
  Spill(mount_ + "/f", "open");
  const int fd = open((mount_ + "/f").c_str(), O_RDONLY);
  kill(DaemonPid(), SIGTERM);
  WaitUntilFree();
  EXPECT_EQ(Slurp(mount_ + "/below"), "still");
  close(fd);
  EXPECT_EQ(Slurp(mount_ + "/below"), "still");
  EXPECT_EQ(Shell(Pkramctl() + " check " + region_).status, 0);
  umount2(mount_.c_str(), MNT_DETACH);
}

TEST_F(PrivilegesTest, WhatIsMountedOnTopStaysAndItsOwnGoesWhateverItIsCalled) {
  Mount("size=16m,fsname=called-otherwise");
  pid_t pid = DaemonPid();
  kill(pid, SIGTERM);
  WaitUntilFree();
  EXPECT_FALSE(IsMounted(mount_));
  Mount("size=16m");
  pid = DaemonPid();
  ASSERT_EQ(mount("none", mount_.c_str(), "tmpfs", 0, ""), 0);
  Spill(mount_ + "/on-top", "there");
  kill(pid, SIGTERM);
  WaitUntilFree();
  EXPECT_EQ(Slurp(mount_ + "/on-top"), "there");
  umount2(mount_.c_str(), MNT_DETACH);
}

TEST_F(PrivilegesTest, WhatIsMountedInItsPlaceStaysWhenItEnds) {
  for (const char* options : {"size=16m", "size=16m,auto_unmount"}) {
    Mount(options);
    Spill(mount_ + "/f", "open");
    const int fd = open((mount_ + "/f").c_str(), O_RDONLY);
    const pid_t pid = DaemonPid();
    // It goes on for the sake of the open file.
    ASSERT_EQ(umount2(mount_.c_str(), MNT_DETACH), 0);
    ASSERT_EQ(mount("none", mount_.c_str(), "tmpfs", 0, ""), 0);
    Spill(mount_ + "/next", "there");
    kill(pid, SIGTERM);
    WaitUntilFree();
    EXPECT_EQ(Slurp(mount_ + "/next"), "there") << options;
    close(fd);
    umount2(mount_.c_str(), MNT_DETACH);
  }
}

// The daemon of an ordinary user, who may unmount any FUSE mount of his own there.
TEST_F(PrivilegesTest, WhatAUserMountsInItsPlaceStaysWhenItEnds) {
  if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "no fusermount3";
  const pid_t child = fork();
  if (child == 0) {
    MountProcess first(MountProcess::As::kUser);
    first.Mount("size=16m");
    const std::string where = first.mount_point(), other = first.region() + "-other";
    Spill(where + "/f", "open");
    const int fd = open((where + "/f").c_str(), O_RDONLY);
    const pid_t pid = StatisticsOf(where)["pid"];
    bool well = Shell("fusermount3 -u -z " + where).status == 0 &&
                Shell(where + "/../pkramfs " + other + " " + where + " -o size=16m").status == 0;
    Spill(where + "/next", "there");
    kill(pid, SIGTERM);
    well = well && WaitUntilRegionIsFree(first.region()) && Slurp(where + "/next") == "there";
    close(fd);
    Shell("fusermount3 -u -z " + where);
    WaitUntilRegionIsFree(other);
    unlink(other.c_str());
    first.~MountProcess();
    _exit(well ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

// Numbers of mounts are given again.  Here a stranger has ours, and a bind mount keeps our
// filesystem alive.
TEST_F(PrivilegesTest, WhoHasItsNumberNowStaysMountedWhenItEnds) {
  const std::string bound = dir_ + "/bound", stranger = dir_ + "/stranger";
  mkdir(bound.c_str(), 0755);
  mkdir(stranger.c_str(), 0755);
  bool met = false;
  for (int i = 0; i < 50 && !met; ++i) {  // somebody else may be given it
    Mount("size=16m");
    const pid_t pid = DaemonPid();
    const std::string number = NumberOf(mount_);
    ASSERT_EQ(mount(mount_.c_str(), bound.c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
    ASSERT_EQ(mount("none", stranger.c_str(), "tmpfs", 0, ""), 0);
    met = NumberOf(stranger) == number;
    kill(pid, SIGTERM);
    WaitUntilFree();
    EXPECT_NE(NumberOf(stranger), "");
    umount2(stranger.c_str(), MNT_DETACH);
    umount2(bound.c_str(), MNT_DETACH);
  }
  EXPECT_TRUE(met);
}

// Names that change all the time between somebody else's link, their file and ours.
TEST_F(PrivilegesTest, NothingIsWrittenToWhatIsSwappedMeanwhile) {
  Mount("size=16m");
  Unmount();
  const std::string target = dir_ + "/target", theirs = region_ + ".theirs",
                    ours = region_ + ".ours", link = region_ + ".link", file = region_ + ".file",
                    hop = region_ + ".hop";
  ASSERT_EQ(symlink(target.c_str(), hop.c_str()), 0);
  ASSERT_EQ(lchown(hop.c_str(), 1234, 1234), 0);
  Shell("cp " + region_ + " " + theirs + "; chown 1234 " + theirs);
  const std::string before = Slurp(theirs);
  ASSERT_EQ(rename(region_.c_str(), ours.c_str()), 0);
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    while (!stop) {
      unlink(link.c_str());
      (void)!symlink(target.c_str(), link.c_str());
      (void)!lchown(link.c_str(), 1234, 1234);
      rename(link.c_str(), region_.c_str());
      // A link of ours, to one of theirs.
      unlink(link.c_str());
      (void)!symlink(hop.c_str(), link.c_str());
      rename(link.c_str(), region_.c_str());
      unlink(file.c_str());
      (void)!::link(theirs.c_str(), file.c_str());
      rename(file.c_str(), region_.c_str());
      unlink(file.c_str());
      (void)!::link(ours.c_str(), file.c_str());
      rename(file.c_str(), region_.c_str());
    }
  });
  int mounted = 0;
  for (int i = 0; i < 60; ++i) {
    if (TryMount().status != 0) continue;
    ++mounted;
    Unmount();
    WaitUntilRegionIsFree(ours);
  }
  stop = true;
  swapper.join();
  EXPECT_GT(mounted, 0);
  EXPECT_LT(mounted, 60);
  EXPECT_NE(access(target.c_str(), F_OK), 0);
  EXPECT_TRUE(Slurp(theirs) == before);
  EXPECT_EQ(Shell(Pkramctl() + " check " + ours).status, 0);
  Shell("rm -f " + region_ + ".*");
}

// The same of the mount point: somebody else's link to a directory of ours.
TEST_F(PrivilegesTest, NothingIsMountedWhereSomebodyElsesLinkLeads) {
  const std::string victim = dir_ + "/victim", real = dir_ + "/real", next = dir_ + "/next";
  ASSERT_EQ(mkdir(victim.c_str(), 0755), 0);
  ASSERT_EQ(rename(mount_.c_str(), real.c_str()), 0);
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    while (!stop) {
      // Theirs, and ours.
      (void)!symlink(victim.c_str(), next.c_str());
      (void)!lchown(next.c_str(), 1234, 1234);
      rename(next.c_str(), mount_.c_str());
      usleep(300);
      (void)!symlink(real.c_str(), next.c_str());
      rename(next.c_str(), mount_.c_str());
      usleep(300);
    }
  });
  int mounted = 0;
  for (int i = 0; i < 60; ++i) {
    if (TryMount("size=16m").status != 0) continue;
    ++mounted;
    EXPECT_FALSE(IsMounted(victim));
    EXPECT_EQ(umount2(real.c_str(), 0), 0) << std::strerror(errno);
    WaitUntilFree();
  }
  stop = true;
  swapper.join();
  EXPECT_GT(mounted, 0);
  EXPECT_LT(mounted, 60);
  EXPECT_FALSE(IsMounted(victim));
  umount2(victim.c_str(), MNT_DETACH);
}

// A user who swaps the region's file while it is in use has another file, and cannot reach this
// one.
TEST_F(PrivilegesTest, AFileSwappedUnderAMountIsAnother) {
  Mount("size=16m");
  Spill(mount_ + "/f", "here");
  ASSERT_EQ(rename(region_.c_str(), (region_ + ".away").c_str()), 0);
  Spill(region_, std::string(100000, 'x'));
  Spill(mount_ + "/g", "there");
  EXPECT_EQ(Slurp(mount_ + "/f"), "here");
  Unmount();
  WaitUntilRegionIsFree(region_ + ".away");
  EXPECT_EQ(Slurp(region_), std::string(100000, 'x'));
  ASSERT_EQ(rename((region_ + ".away").c_str(), region_.c_str()), 0);
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/g"), "there");
}

}  // namespace
}  // namespace pkramfs
