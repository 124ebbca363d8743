// What mount(8), mkfs(8), fsck(8) and service managers expect of their helpers.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class HelpersTest : public MountTest {
 protected:
  // pkramfs under the name by which mount(8) calls it.
  std::string Helper() {
    const std::string path = dir_ + "/mount.fuse.pkramfs";
    std::ignore = symlink(PKRAMFS_BINARY, path.c_str());
    return path + " " + region_ + " " + mount_ + " ";
  }
  Ran Mkfs(const std::string& arguments) { return Shell(MKFS_BINARY " " + arguments); }
  Ran Fsck(const std::string& arguments) { return Shell(FSCK_BINARY " " + arguments); }
};

TEST_F(HelpersTest, MountsStatusIsMounts) {
  EXPECT_EQ(Shell(Helper() + "-o nonsense").status, 1);
  EXPECT_EQ(Shell(Helper() + "--nonsense").status, 1);
  Spill(region_, "precious");
  EXPECT_EQ(Shell(Helper() + "-o rw").status, 32);
  EXPECT_EQ(Shell(Helper() + "-f -o rw").status, 0);
  unlink(region_.c_str());
  // mount -s: the options may be for another system.
  EXPECT_EQ(Shell(Helper() + "-s -n -v -t fuse.pkramfs -o nonsense,size=16m").status, 0);
  EXPECT_TRUE(IsMounted(mount_));
  Unmount();
  const Ran elsewhere = Shell(Helper() + "-N /proc/1/ns/mnt");
  EXPECT_EQ(elsewhere.status, 1);
  EXPECT_THAT(elsewhere.err, HasSubstr("nsenter --mount=/proc/1/ns/mnt"));
  EXPECT_FALSE(IsMounted(mount_));
}

TEST_F(HelpersTest, MkfsMakesAFilesystemThatIsSealed) {
  const Ran made = Mkfs(region_ + " -o size=16m,mode=750,uid=12,gid=13");
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr(region_ + ": a filesystem of 16 MiB"));
  const Ran sound = Fsck("-a " + region_);
  EXPECT_EQ(sound.status, 0) << sound.err;
  EXPECT_THAT(sound.out, HasSubstr("sealed by a clean unmount"));
  Mount("rw");
  struct stat st;
  ASSERT_EQ(stat(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0750u);
  EXPECT_EQ(st.st_uid, 12u);
  EXPECT_EQ(st.st_gid, 13u);
}

TEST_F(HelpersTest, MkfsDeletesNothingUnlessItIsForced) {
  ASSERT_EQ(Mkfs("-q " + region_ + " -o size=16m").status, 0);
  const std::string before = Slurp(region_);
  const Ran again = Mkfs(region_);
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("a pkramfs region is there already (left as it is)"));
  EXPECT_TRUE(Slurp(region_) == before);
  Spill(region_, "precious");
  EXPECT_THAT(Mkfs(region_).err, HasSubstr("not empty (left as it is)"));
  EXPECT_EQ(Slurp(region_), "precious");
  EXPECT_EQ(Mkfs("-f " + region_ + " -o size=32m").out, region_ + ": a filesystem of 32 MiB\n");
  Mount("rw");
  EXPECT_EQ(Mkfs("-f " + region_).status, 1);  // not while it is in use
  Spill(mount_ + "/file", "kept");
  Unmount();
  Mount("rw");
  EXPECT_EQ(Slurp(mount_ + "/file"), "kept");
}

TEST_F(HelpersTest, WhoComesSecondDeletesNothing) {
  for (int i = 0; i < 30; ++i) {
    unlink(region_.c_str());
    const Ran both =
        Shell("for n in 1 2; do " MKFS_BINARY " -q " + region_ + " -o size=16m & done; wait");
    EXPECT_EQ(std::count(both.err.begin(), both.err.end(), '\n'), 1) << both.err;
    ASSERT_EQ(Fsck(region_).status, 0);
  }
}

TEST_F(HelpersTest, WhatCannotBeMadeDeletesNothing) {
  Spill(region_, "precious");
  EXPECT_THAT(Mkfs("-f " + region_ + " -o size=900t").err, HasSubstr("choose a smaller size"));
  EXPECT_EQ(Slurp(region_), "precious");
  // Once it is gone, it says so.
  const Ran full = Shell(
      "unshare -m sh -c 'mount -t tmpfs -o size=16k none /dev/shm && head -c 16k "
      "/dev/zero >/dev/shm/r && head -c 16k /dev/zero >/dev/shm/filler; " MKFS_BINARY
      " -f /dev/shm/r -o size=16m; ls -s /dev/shm/r'");
  EXPECT_THAT(full.err, HasSubstr("what was there before is lost"));
}

TEST_F(HelpersTest, WhatIsLeftOfARegionIsOne) {
  ASSERT_EQ(Mkfs("-q " + region_ + " -o size=16m").status, 0);
  std::string bytes = Slurp(region_);
  bytes[3] ^= 1;
  Spill(region_, bytes);
  EXPECT_THAT(Mkfs(region_).err, HasSubstr("a pkramfs region is there already"));
  EXPECT_TRUE(Slurp(region_) == bytes);
}

TEST_F(HelpersTest, MkfsRefusesWhatItDoesNotKeep) {
  EXPECT_THAT(Mkfs(region_ + " -o nr_inodes=5").err, HasSubstr("give the others to the mount"));
  EXPECT_THAT(Mkfs(region_ + " -o size=16m,ro").err, HasSubstr("give the others to the mount"));
  EXPECT_EQ(Mkfs("").status, 1);
  EXPECT_EQ(Mkfs(region_ + " -o size=99999999t").status, 1);
  EXPECT_NE(access(region_.c_str(), F_OK), 0);
}

TEST_F(HelpersTest, FsckSaysWhatFsckSays) {
  EXPECT_EQ(Fsck("").status, 16);
  EXPECT_EQ(Fsck("--nonsense " + region_).status, 16);
  EXPECT_EQ(Fsck(region_).status, 8);
  Mount("size=16m");
  EXPECT_EQ(Fsck(region_).status, 8);  // in use
  Spill(mount_ + "/file", "x");
  Kill();
  WaitUntilFree();
  const Ran killed = Fsck("-p -C0 " + region_);
  EXPECT_EQ(killed.status, 0) << killed.err;
  EXPECT_THAT(killed.out, HasSubstr("not sealed"));
  Mount("rw");
  Unmount();
  std::string bytes = Slurp(region_);
  uint64_t nodes;
  std::memcpy(&nodes, bytes.data() + 96, sizeof(nodes));
  bytes[(nodes >> 12) * 4096 + 100] ^= 1;
  Spill(region_, bytes);
  const Ran damaged = Fsck("-y " + region_);
  EXPECT_EQ(damaged.status, 4);
  EXPECT_THAT(damaged.out, HasSubstr("was changed since it was sealed"));
  bytes[50] ^= 1;
  Spill(region_, bytes);
  EXPECT_EQ(Fsck(region_).status, 4);
  EXPECT_TRUE(Slurp(region_) == bytes);
}

// A machine that goes down sends SIGTERM to everyone, again and again for all that we know.
TEST_F(HelpersTest, TheSealIsMadeWhateverShutdownSends) {
  Mount("size=64m");
  ASSERT_EQ(Shell("cp -r /usr/include/linux /usr/include/c++ " + mount_).status, 0);
  const pid_t daemon = DaemonPid();
  const std::string proc = "/proc/" + std::to_string(daemon) + "/stat";
  kill(daemon, SIGTERM);
  // The seal comes after the mount is gone.
  while (IsMounted(mount_)) continue;
  while (Slurp(proc).find(") Z ") == std::string::npos && kill(daemon, SIGTERM) == 0) continue;
  const Ran sound = Fsck(region_);
  EXPECT_THAT(sound.out, HasSubstr("sealed by a clean unmount")) << sound.err;
}

TEST_F(HelpersTest, ADescriptorIsARegion) {
  // A keeper holds the memory; the daemon is started with it, ended, and started again.
  const int memory = memfd_create("keeper", 0);
  const std::string fd = std::to_string(memory);
  const std::string start = Pkramfs() + " fd=" + fd + " " + mount_;
  const Ran first = Shell(start + " -o size=16m");
  ASSERT_EQ(first.status, 0) << first.err;
  Spill(mount_ + "/file", "kept");
  // Others find it by the daemon's name for it.
  std::string name;
  for (const MountEntry& m : PkramfsMounts()) {
    if (m.mount_point == mount_) name = m.source;
  }
  EXPECT_THAT(name, HasSubstr("/proc/" + std::to_string(DaemonPid()) + "/fd/"));
  const Ran info = Shell(Pkramctl() + " info --json " + name);
  EXPECT_THAT(info.out, HasSubstr("\"mounted_on\": \"" + mount_)) << info.err;
  // The region counts as in use, also for a process that shares the descriptor.
  const std::string other = dir_ + "/other";
  mkdir(other.c_str(), 0755);
  EXPECT_THAT(Shell(Pkramfs() + " fd=" + fd + " " + other).err, HasSubstr("mounted on " + mount_));
  EXPECT_THAT(Shell(Pkramctl() + " info --json fd=" + fd).out, HasSubstr("\"mounted_on\""));
  EXPECT_THAT(Shell(Pkramctl() + " check fd=" + fd).err, HasSubstr("in use by process"));
  Kill();
  const Ran second = Shell(start);
  ASSERT_EQ(second.status, 0) << second.err;
  EXPECT_EQ(Slurp(mount_ + "/file"), "kept");
  Unmount();
  EXPECT_TRUE(Eventually([&] { return Shell(FSCK_BINARY " fd=" + fd).status == 0; }));
  EXPECT_THAT(Shell(FSCK_BINARY " fd=" + fd).out, HasSubstr("sealed by a clean unmount"));
  close(memory);
  EXPECT_THAT(Shell(start).err, HasSubstr("fd=" + fd + ": not an open descriptor"));
}

// Another file has the name that the descriptor's file had.
TEST_F(HelpersTest, ADescriptorIsItsFileNotItsName) {
  const std::string hidden = dir_ + "/a/x";
  const Ran ran =
      Shell("mkdir " + dir_ + "/a && : >" + hidden + " && exec 3<>" + hidden + " && mv " + hidden +
            " " + hidden + ".old && echo precious >" + hidden + " && ! " + Pkramfs() + " fd=3 " +
            mount_ + " -o size=16m,fscontext=nonsense; cat " + hidden +
            "; " MKFS_BINARY " fd=3 -o size=16m; " FSCK_BINARY " fd=3; echo bytes | " + Pkramctl() +
            " put fd=3 node; " + Pkramctl() + " get fd=3 node; cat " + hidden);
  EXPECT_THAT(ran.err, HasSubstr("cannot mount on"));
  EXPECT_THAT(ran.out,
              testing::MatchesRegex(
                  "precious\nfd=3: a filesystem of 16 MiB\n.*sealed.*\nbytes\nprecious\n"));
}

TEST_F(HelpersTest, ADescriptorGivesNoMoreThanItIsOpenFor) {
  Spill(region_, "precious");
  for (const char* command : {MKFS_BINARY " -f fd=3", PKRAMFS_BINARY " fd=3 /mnt"}) {
    const Ran ran = Shell("exec 3<" + region_ + "; " + command);
    EXPECT_THAT(ran.err, HasSubstr("fd=3: not open for reading and writing"));
  }
  EXPECT_EQ(Slurp(region_), "precious");
}

TEST_F(HelpersTest, ADeviceThatIsNotThereIsNotMade) {
  const Ran ran = Shell(Pkramfs() + " /dev/dax99.9 " + mount_);
  EXPECT_EQ(ran.status, 32);
  EXPECT_THAT(ran.err, HasSubstr("/dev/dax99.9: no such device"));
  EXPECT_THAT(ran.err, HasSubstr("ndctl list"));
  EXPECT_NE(access("/dev/dax99.9", F_OK), 0);
  EXPECT_THAT(Mkfs("/dev/dax99.9").err, HasSubstr("/dev/dax99.9: no such device"));
}

}  // namespace
}  // namespace pkramfs
