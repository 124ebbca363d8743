// Another program takes the place of the one that serves, below programs that go on.
#include <gmock/gmock.h>
#include <sys/statvfs.h>

#include <thread>

#include "mount/daemon/program.h"
#include "tests/killer.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class UpgradeTest : public MountTest {
 protected:
  // Another file, with the same program.
  std::string Copy(const std::string& name) {
    const std::string path = dir_ + "/" + name;
    EXPECT_EQ(Shell("install -m 755 " + Pkramfs() + " " + path).status, 0);
    return path;
  }
  Ran Upgrade(const std::string& program) {
    return Shell(Pkramctl() + " upgrade " + region_ + " " + program);
  }
  static std::string ProgramOf(pid_t pid) {
    char path[4096] = {};
    if (readlink(("/proc/" + std::to_string(pid) + "/exe").c_str(), path, sizeof(path) - 1) < 0) {
      return "";
    }
    return path;
  }
  void ExpectRefused(const std::string& program, const std::string& why) {
    const pid_t before = DaemonPid();
    const Ran ran = Upgrade(program);
    EXPECT_EQ(ran.status, 2) << program;
    EXPECT_THAT(ran.err, HasSubstr(why));
    EXPECT_EQ(DaemonPid(), before);
  }
};

TEST_F(UpgradeTest, AnotherProgramServesAndNobodyNotices) {
  Mount("size=16m");
  const int fd = open((mount_ + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(unlink((mount_ + "/file").c_str()), 0);
  ASSERT_EQ(pwrite(fd, "bytes", 5, 0), 5);
  const pid_t keeper = Statistics()["keeper"];
  for (const char* name : {"one", "two"}) {
    const std::string program = Copy(name);
    const Ran ran = Upgrade(program);
    ASSERT_EQ(ran.status, 0) << ran.err;
    const nlohmann::json now = Statistics();
    EXPECT_EQ(now["program"], program);
    EXPECT_EQ(now["takeovers"]["last"], "made way for another program");
    EXPECT_EQ(ProgramOf(now["pid"]), program);
    // The keeper is the same process, and the program, too.
    EXPECT_EQ(now["keeper"], keeper);
    EXPECT_TRUE(Eventually([&] { return ProgramOf(keeper) == program; }));
    char bytes[5];
    EXPECT_EQ(pread(fd, bytes, 5, 0), 5);
    EXPECT_EQ(std::string(bytes, 5), "bytes");
    // The next server or keeper is that program, too, whichever of the two starts it.
    ASSERT_TRUE(KillOne(Victim::kServer, region_));
    EXPECT_EQ(Statistics()["program"], program);
    unlink(program.c_str());
  }
  close(fd);
  // The one beside pkramctl.
  EXPECT_EQ(Upgrade("").status, 0);
  EXPECT_EQ(Statistics()["program"], Canonical(Pkramfs()));
  Unmount();
  EXPECT_TRUE(Eventually([&] { return IsGone(keeper); }));
  EXPECT_THAT(Shell(Pkramctl() + " info --json " + region_).out, HasSubstr("\"sealed\": true"));
}

TEST_F(UpgradeTest, WhatCannotGoOnIsRefusedBeforeAnythingHappens) {
  Mount("size=16m");
  Spill(dir_ + "/text", "no program");
  chmod((dir_ + "/text").c_str(), 0755);
  ExpectRefused("/bin/false",
                "/false: cannot go on where this server is: it is of another version");
  ExpectRefused(dir_ + "/nowhere", "/nowhere: No such file or directory");
  ExpectRefused(dir_, "cannot start the program: Permission denied");
  ExpectRefused(dir_ + "/text", "cannot start the program");
  // As an older version would, and a newer one.
  const std::string version = HandoverVersion();
  for (const auto& [asked, status] : {std::pair{version, 0}, {"1", 1}, {version + "0", 1}}) {
    EXPECT_EQ(Shell(Pkramfs() + " --can-take-over=" + asked + " x " + mount_).status, status);
  }
  EXPECT_EQ(
      Shell(Pkramfs() + " --can-take-over=" + version + " x " + mount_ + " -o nonsense").status, 1);
  Unmount();
  Mount("size=16m,notakeover");
  ExpectRefused(Copy("one"), "the mount has no keeper (notakeover)");
}

// It says that it can, and cannot: the program that was there goes on.
TEST_F(UpgradeTest, AProgramThatFailsIsReplacedByTheOldOne) {
  Mount("size=16m");
  Spill(mount_ + "/file", "bytes");
  for (int i = 0; i < 2; ++i) {
    const Ran ran = Upgrade(PROGRAM_THAT_FAILS);
    EXPECT_EQ(ran.status, 2);
    EXPECT_THAT(ran.err, HasSubstr("could not take over, and the program that was there goes on"));
    EXPECT_EQ(Statistics()["program"], Canonical(Pkramfs()));
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  }
  const std::string program = Copy("one");
  EXPECT_EQ(Upgrade(program).status, 0);
  EXPECT_EQ(Statistics()["program"], program);
}

// The server in its place would wait for itself.
TEST_F(UpgradeTest, AProgramThatTheMountHoldsIsRefused) {
  Mount("size=64m");
  ASSERT_EQ(Shell("install -m 755 " + Pkramfs() + " " + mount_ + "/program").status, 0);
  ExpectRefused(mount_ + "/program", "/program: it is on the mount itself: copy it elsewhere");
}

// Nobody knows how long another program may take.  An operator who sees that it hangs kills it.
TEST_F(UpgradeTest, AProgramThatHangsIsReplacedByTheOldOneWhenItIsKilled) {
  Mount("size=16m");
  const pid_t keeper = Statistics()["keeper"];
  Ran ran;
  std::thread upgrades([&] { ran = Upgrade(PROGRAM_THAT_HANGS); });
  pid_t hanging = 0;
  ASSERT_TRUE(Eventually([&] {
    return (hanging = ChildOf(keeper)) != 0 && ProgramOf(hanging) == PROGRAM_THAT_HANGS;
  }));
  kill(hanging, SIGKILL);
  upgrades.join();
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr("could not take over, and the program that was there goes on"));
  EXPECT_EQ(Statistics()["program"], Canonical(Pkramfs()));
}

TEST_F(UpgradeTest, WhatWasChangedSinceTheMountStays) {
  Mount("size=16m,nr_inodes=100");
  ASSERT_EQ(Shell(Pkramctl() + " resize " + region_ + " size=32m,nr_inodes=200").status, 0);
  struct statvfs before {
  }, after{};
  ASSERT_EQ(statvfs(mount_.c_str(), &before), 0);
  EXPECT_EQ(before.f_files, 200u);
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  std::thread waits([&] { Spill(mount_ + "/file", "bytes"); });
  ASSERT_TRUE(Eventually([&] { return Statistics()["requests"].contains("create"); }));
  ASSERT_EQ(Upgrade(Copy("one")).status, 0);
  ASSERT_EQ(statvfs(mount_.c_str(), &after), 0);
  EXPECT_EQ(after.f_files, before.f_files);
  EXPECT_EQ(after.f_blocks, before.f_blocks);
  EXPECT_THAT(Shell(Pkramctl() + " freeze " + region_).err, HasSubstr("frozen already"));
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  waits.join();
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

// A process that waits for the daemon in the foreground, such as a service manager, still does.
TEST_F(UpgradeTest, InTheForegroundTheProcessStays) {
  const std::string log = dir_ + "/log";
  const pid_t child = fork();
  if (child == 0) {
    std::ignore = std::freopen(log.c_str(), "w", stderr);
    execl(PKRAMFS_BINARY, "pkramfs", "-f", region_.c_str(), mount_.c_str(), nullptr);
    _exit(1);
  }
  ASSERT_TRUE(Eventually([&] { return IsMounted(mount_); }));
  EXPECT_EQ(Statistics()["keeper"], child);
  const std::string program = Copy("one");
  ASSERT_EQ(Upgrade(program).status, 0);
  EXPECT_TRUE(Eventually([&] { return ProgramOf(child) == program; }));
  // A server that has taken over says so when it already answers.
  const auto says = [&](const std::string& what) {
    return Eventually([&] { return Slurp(log).find(what) != std::string::npos; });
  };
  EXPECT_TRUE(says("the server made way for another program, and another took over"));
  ASSERT_TRUE(KillOne(Victim::kServer, region_));
  EXPECT_EQ(Shell("ls " + mount_).status, 0);
  EXPECT_TRUE(says("the server ended by signal 9 (Killed), and another took over"));
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(IsMounted(mount_));
}

TEST_F(UpgradeTest, OnlyRootAndWhoMountedMay) {
  Mount("size=16m");
  const std::string ctl = dir_ + "/pkramctl";
  ASSERT_EQ(Shell("install -m 755 " + Pkramctl() + " " + ctl).status, 0);
  const pid_t before = DaemonPid();
  const Ran ran = Shell("setpriv --reuid 65534 --regid 65534 --clear-groups " + ctl + " upgrade " +
                        region_ + " " + Copy("one"));
  EXPECT_EQ(ran.status, 2);
  EXPECT_EQ(DaemonPid(), before);
  // Root of a container may not, because its names mean other files.
  for (const char* as : {"unshare --pid --fork ", "setpriv --bounding-set=-sys_admin "}) {
    const Ran contained = Shell(as + ctl + " upgrade " + region_ + " " + Copy("two"));
    EXPECT_EQ(contained.status, 2) << as;
    EXPECT_THAT(contained.err, HasSubstr("Operation not permitted")) << as;
  }
  EXPECT_EQ(DaemonPid(), before);
  EXPECT_EQ(Upgrade(Copy("three")).status, 0);
}

}  // namespace
}  // namespace pkramfs
