#include <gmock/gmock.h>
#include <sys/statvfs.h>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class PkramctlTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    Mount("size=64m");
    Spill(mount_ + "/small", "x");
    Spill(mount_ + "/large", std::string(1 << 20, 'l'));
  }
  Ran Ctl(const std::string& arguments) { return Shell(Pkramctl() + " " + arguments); }
};

TEST_F(PkramctlTest, AnyBytesGoInAndComeOut) {
  Unmount();
  std::string bytes;
  for (unsigned i = 0; i < 3000000; ++i) bytes.push_back(static_cast<char>(i * i / 7));
  Spill(dir_ + "/in", bytes);
  for (const char* input : {"/in", "/empty"}) {
    Spill(dir_ + "/empty", "");
    const std::string name = std::string("node-of") + (input + 1);
    ASSERT_EQ(Ctl("put " + region_ + " " + name + " < " + dir_ + input).status, 0);
    ASSERT_EQ(Ctl("get " + region_ + " " + name + " > " + dir_ + "/out").status, 0);
    EXPECT_TRUE(Slurp(dir_ + "/out") == Slurp(dir_ + input));
    // It is still there, until it is removed.
    ASSERT_EQ(Ctl("get " + region_ + " " + name + " > " + dir_ + "/out").status, 0);
    EXPECT_TRUE(Slurp(dir_ + "/out") == Slurp(dir_ + input));
    ASSERT_EQ(Ctl("rm " + region_ + " " + name).status, 0);
    EXPECT_EQ(Ctl("get " + region_ + " " + name).status, 2);
  }
  EXPECT_EQ(Ctl("check " + region_).status, 0);
  // The filesystem beside it has not noticed.
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/small"), "x");
}

TEST_F(PkramctlTest, ResizeChangesALiveMountAndStays) {
  const auto blocks = [this] {
    struct statvfs st;
    EXPECT_EQ(statvfs(mount_.c_str(), &st), 0);
    return st.f_blocks;
  };
  EXPECT_EQ(blocks(), 64 << 8);
  ASSERT_EQ(Ctl("resize " + region_ + " size=256m").status, 0);
  EXPECT_EQ(blocks(), 256 << 8);
  Spill(mount_ + "/huge", std::string(100 << 20, 'h'));
  EXPECT_EQ(Slurp(mount_ + "/huge").size(), 100u << 20);
  const Ran refused = Ctl("resize " + region_ + " size=32m");
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("too small"));
  EXPECT_EQ(blocks(), 256 << 8);
  // A size below the last page in use, but large enough for all pages in use.
  Spill(mount_ + "/tail", std::string(5000, 't'));
  ASSERT_EQ(unlink((mount_ + "/huge").c_str()), 0);
  EXPECT_TRUE(Eventually([&] { return Statistics()["pages"]["data"] < 300; }));
  ASSERT_EQ(Ctl("resize " + region_ + " size=4m").status, 0);
  EXPECT_EQ(blocks(), 4 << 8);
  EXPECT_NE(Shell("head -c 5M /dev/zero > " + mount_ + "/more").status, 0);
  EXPECT_EQ(Slurp(mount_ + "/tail"), std::string(5000, 't'));
  Unmount();
  EXPECT_EQ(Ctl("check " + region_).status, 0);
  Mount("pkram=pkramfs");
  EXPECT_EQ(blocks(), 4 << 8);
  EXPECT_EQ(Slurp(mount_ + "/tail"), std::string(5000, 't'));
}

TEST_F(PkramctlTest, ResizeCountsInodes) {
  ASSERT_EQ(Ctl("resize " + region_ + " nr_inodes=4").status, 0);
  struct statvfs st;
  ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.f_files, 4);
  EXPECT_EQ(st.f_ffree, 1);
  Spill(mount_ + "/fourth", "");
  EXPECT_EQ(open((mount_ + "/fifth").c_str(), O_CREAT | O_WRONLY, 0600), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(Ctl("resize " + region_ + " nr_inodes=3,size=128m").status, 2);
  ASSERT_EQ(Ctl("resize " + region_ + " nr_inodes=0").status, 0);
  Spill(mount_ + "/fifth", "");
  EXPECT_EQ(Ctl("resize " + region_ + " mode=755").status, 2);
  EXPECT_EQ(Ctl("resize " + region_ + " size=what").status, 2);
}

TEST_F(PkramctlTest, ACopyOfAFrozenRegionIsWhole) {
  Shell("i=0; while [ $i -lt 200 ]; do echo $i > " + mount_ + "/f$i; i=$((i+1)); done");
  ASSERT_EQ(Ctl("freeze " + region_).status, 0);
  EXPECT_EQ(Ctl("freeze " + region_).status, 2);
  // Reading goes on, changes wait: more of them than libfuse makes threads for, if asked
  // for nothing else.  (The kernel lets nobody look up new names beside a mkdir that waits.)
  EXPECT_EQ(Slurp(mount_ + "/f7"), "7\n");
  Shell("( i=0; while [ $i -lt 40 ]; do ( echo x > " + mount_ +
        "/f$i ) & i=$((i+1)); done; "
        "rm " +
        mount_ + "/large & mkdir " + mount_ + "/new & wait; touch " + dir_ +
        "/changed ) & sleep 0.2");
  const std::string copy = region_ + "-copy";
  ASSERT_EQ(Shell("cp " + region_ + " " + copy + "; sleep 0.2; cmp " + region_ + " " + copy).status,
            0);
  EXPECT_EQ(Ctl("info " + region_).status, 0);
  EXPECT_EQ(Ctl("check " + copy).status, 0);
  ASSERT_EQ(Ctl("thaw " + region_).status, 0);
  EXPECT_EQ(Ctl("thaw " + region_).status, 2);
  // All of them, or one still has its file open when this unmounts.
  const std::string changed = dir_ + "/changed";
  ASSERT_TRUE(Eventually([&] { return access(changed.c_str(), F_OK) == 0; }));
  EXPECT_EQ(access((mount_ + "/new").c_str(), F_OK), 0);
  Unmount();
  ASSERT_EQ(rename(copy.c_str(), region_.c_str()), 0);
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/f7"), "7\n");
  EXPECT_EQ(Slurp(mount_ + "/large").size(), 1u << 20);
  EXPECT_EQ(access((mount_ + "/new").c_str(), F_OK), -1);
}

// Also where the mount is for everybody.
TEST_F(PkramctlTest, OnlyRootAndWhoMountedMayChangeTheWhole) {
  const pid_t child = fork();
  if (child == 0) {
    if (setgroups(0, nullptr) != 0 || setresuid(1234, 1234, 1234) != 0) _exit(99);
    const int fd = open(mount_.c_str(), O_RDONLY | O_DIRECTORY);
    ControlResize resize{uint64_t{16} << 20, kControlKeep, {}};
    ControlReply reply{};
    ControlLock lock{};
    auto upgrade = std::make_unique<ControlUpgrade>();
    auto checkpoint = std::make_unique<ControlCheckpoint>();
    ControlLend lend{1, 0, 0, {}};
    ControlKeep keep{};
    auto stage = std::make_unique<ControlStage>();
    auto hold = std::make_unique<ControlHold>();
    auto hold_pages = std::make_unique<ControlHoldPages>();
    ControlRest rest{};
    ControlDiscard discard{};
    int wrong = fd < 0 ? 1 : 0;
    for (const auto& [command, argument] : {std::pair<unsigned, void*>{kControlResize, &resize},
                                            {kControlFreeze, nullptr},
                                            {kControlThaw, nullptr},
                                            {kControlUpgrade, upgrade.get()},
                                            {kControlLock, &lock},
                                            {kControlCheckpoint, checkpoint.get()},
                                            {kControlLend, &lend},
                                            {kControlKeep, &keep},
                                            {kControlStage, stage.get()},
                                            {kControlHold, hold.get()},
                                            {kControlHoldPages, hold_pages.get()},
                                            {kControlRest, &rest},
                                            {kControlDiscard, &discard}}) {
      errno = 0;
      if (ioctl(fd, command, argument) != -1 || errno != EPERM) wrong |= 2;
    }
    if (ioctl(fd, kControlStatistics, &reply) != 0) wrong |= 4;
    _exit(wrong);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  struct statvfs st;
  ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.f_blocks, 64 << 8);
  Spill(mount_ + "/new", "not frozen");
  EXPECT_EQ(Slurp(mount_ + "/new"), "not frozen");
}

// Anybody may call a mount of their own as they like: it is not asked, and nobody waits less.
TEST_F(PkramctlTest, SomebodyElsesMountIsNotTheRegions) {
  Unmount();
  const std::string theirs = dir_ + "/theirs", other = dir_ + "/region";
  ASSERT_EQ(mkdir(theirs.c_str(), 0755), 0);
  // The kernel is told who mounts by the real user's id; so this one can be opened by root.
  const Ran mounted = Shell("setpriv --ruid=65534 --euid=0 " + Pkramfs() + " " + other + " " +
                            theirs + " -o size=16m,fsname=" + region_);
  ASSERT_EQ(mounted.status, 0) << mounted.err;
  ASSERT_TRUE(IsMounted(theirs));
  for (const char* command : {"freeze ", "thaw "}) {
    const Ran ran = Ctl(command + region_);
    EXPECT_EQ(ran.status, 2);
    EXPECT_THAT(ran.err, HasSubstr("not mounted here"));
  }
  EXPECT_TRUE(MountsOf(region_).empty());
  // Nor is the region the mount's, when somebody names the mount.
  for (const char* command : {"check ", "rm "}) {
    const Ran ran = Ctl(command + theirs + (command[0] == 'r' ? " name" : ""));
    EXPECT_EQ(ran.status, 2) << command;
    EXPECT_THAT(ran.err, HasSubstr("mounted by another user")) << command;
  }
  umount2(theirs.c_str(), MNT_DETACH);
  EXPECT_TRUE(WaitUntilRegionIsFree(other));
}

TEST_F(PkramctlTest, InfoOfAMountedRegionAsksTheDaemon) {
  const json info = json::parse(Ctl("info --json " + region_).out);
  EXPECT_EQ(info["pid"], DaemonPid());
  EXPECT_EQ(info["mounted_on"], mount_);
  EXPECT_EQ(info["node"], "pkramfs");
  EXPECT_EQ(info["requests"]["create"], 2);
  EXPECT_EQ(info["inodes"], 3);
  EXPECT_EQ(info["pages"]["data"], 256);
  EXPECT_EQ(info["pages"]["limbo"], 0);
  EXPECT_TRUE(info.contains("journal_waits"));
}

TEST_F(PkramctlTest, InfoOfAnUnmountedRegionLooksIntoIt) {
  Unmount();
  const json info = json::parse(Ctl("info --json " + region_).out);
  EXPECT_EQ(info["sealed"], true);
  EXPECT_EQ(info["nodes"][0]["name"], "pkramfs");
  EXPECT_EQ(info["nodes"][0]["state"], "live");
  EXPECT_EQ(info["pages"]["object"], 3);
  EXPECT_EQ(info["pages"]["data"], 256);
  EXPECT_EQ(info["problems"], 0);
}

TEST_F(PkramctlTest, AKilledDaemonsRegionIsNotSealedAndCanBeRead) {
  Kill();
  WaitUntilFree();
  const json info = json::parse(Ctl("info --json " + region_).out);
  EXPECT_EQ(info["sealed"], false);
  EXPECT_EQ(Ctl("check " + region_).status, 0);
}

TEST_F(PkramctlTest, CheckChangesNothing) {
  Kill();
  WaitUntilFree();
  const std::string before = Slurp(region_);
  EXPECT_THAT(Ctl("check " + region_).out, HasSubstr(": 0 problems"));
  EXPECT_TRUE(Slurp(region_) == before);
}

TEST_F(PkramctlTest, AFilesystemCanBeRemovedAsANode) {
  Unmount();
  ASSERT_EQ(Ctl("rm " + region_ + " pkramfs").status, 0);
  Mount();
  EXPECT_NE(access((mount_ + "/small").c_str(), F_OK), 0);
}

TEST_F(PkramctlTest, APutThatDoesNotFitLeavesNoTrace) {
  Unmount();
  const Ran put = Ctl("put " + region_ + " big < /dev/zero");
  EXPECT_EQ(put.status, 2);
  EXPECT_THAT(put.err, HasSubstr("full"));
  EXPECT_EQ(Ctl("check " + region_).status, 0);
  EXPECT_EQ(json::parse(Ctl("info --json " + region_).out)["nodes"].size(), 1u);
}

}  // namespace
}  // namespace pkramfs
