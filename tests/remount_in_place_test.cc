// `mount -o remount`, and what else mount(8), umount(8), fstab and operators type.
#include <gmock/gmock.h>
#include <sys/statvfs.h>

#include "tests/killer.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class RemountInPlaceTest : public MountTest {
 protected:
  // What mount(8) runs, with the options that it passes on.
  Ran Remount(const std::string& options) {
    const std::string helper = dir_ + "/mount.fuse.pkramfs";
    std::ignore = symlink(PKRAMFS_BINARY, helper.c_str());
    return Shell(helper + " " + region_ + " " + mount_ + " -o rw,remount," + options);
  }
  void ExpectRemount(const std::string& options) {
    const Ran ran = Remount(options);
    EXPECT_EQ(ran.status, 0) << options << ": " << ran.err;
  }
  void ExpectRefused(const std::string& options, const std::string& what) {
    const auto before = Entry();
    const uint64_t size = Size();
    const Ran ran = Remount(options);
    EXPECT_NE(ran.status, 0) << options;
    EXPECT_THAT(ran.err, HasSubstr(what));
    EXPECT_EQ(Entry().flags, before.flags) << options;
    EXPECT_EQ(Entry().options, before.options) << options;
    EXPECT_EQ(Size(), size) << options;
  }
  MountEntry Entry() {
    for (const MountEntry& m : PkramfsMounts()) {
      if (m.mount_point == mount_) return m;
    }
    ADD_FAILURE() << "not mounted";
    return {};
  }
  uint64_t Size() {
    struct statvfs st {};
    EXPECT_EQ(statvfs(mount_.c_str(), &st), 0);
    return st.f_blocks * st.f_frsize;
  }
};

TEST_F(RemountInPlaceTest, SizesChange) {
  Mount("size=64m");
  Spill(mount_ + "/f", "kept");
  ExpectRemount("size=128m");
  EXPECT_EQ(Size(), 128u << 20);
  ExpectRemount("size=32m,nr_inodes=77");
  EXPECT_EQ(Size(), 32u << 20);
  struct statvfs st {};
  ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.f_files, 77u);
  EXPECT_EQ(Slurp(mount_ + "/f"), "kept");
  // A size that is too small for the contents: nothing changes, not even flags.
  Spill(mount_ + "/g", std::string(4 << 20, 'g'));
  ExpectRefused("size=1m,noexec", "too small");
  ExpectRefused("nr_inodes=1,ro", "nr_inodes=1 is too few");
}

TEST_F(RemountInPlaceTest, FlagsChange) {
  Mount("size=64m");
  ExpectRemount("ro");
  EXPECT_NE(Shell("touch " + mount_ + "/f").status, 0);
  ExpectRemount("rw,noexec,nosuid,nodev");
  EXPECT_EQ(Entry().flags, "rw,nosuid,nodev,noexec,relatime");
  ASSERT_EQ(Shell("cp /usr/bin/true " + mount_ + "/true").status, 0);
  EXPECT_NE(Shell(mount_ + "/true").status, 0);
  // Options that are not named stay.
  ExpectRemount("exec");
  EXPECT_EQ(Entry().flags, "rw,nosuid,nodev,relatime");
  EXPECT_EQ(Shell(mount_ + "/true").status, 0);
  ExpectRemount("suid,dev,noatime,nodiratime,sync,lazytime");
  EXPECT_EQ(Entry().flags, "rw,noatime,nodiratime");
  EXPECT_THAT(Entry().options, testing::StartsWith("rw,sync,lazytime,"));
  ExpectRemount("async,nolazytime,strictatime,diratime");
  EXPECT_EQ(Entry().flags, "rw");
  EXPECT_THAT(Entry().options, testing::StartsWith("rw,user_id="));
  // A file that is open for writing keeps it from being read-only.
  const int fd = open((mount_ + "/true").c_str(), O_WRONLY);
  ExpectRefused("ro,noexec", "files are open for writing");
  close(fd);
}

// mount(8) says again what fstab and the kernel say of a mount.
TEST_F(RemountInPlaceTest, WhatIsSoAlreadyIsTaken) {
  Mount("size=64m,writeback,noexport,mode=700,max_read=65536,pkram=db");
  ExpectRemount(
      "relatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=65536,blksize=4096,"
      "writeback,noexport,mode=755,uid=0,gid=0,pkram=db,size=64m,nofail,x-systemd.automount");
  EXPECT_EQ(Size(), 64u << 20);
  struct stat st {};
  ASSERT_EQ(stat(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  ExpectRemount("size=65m");
}

// KiB of the region that the daemon has locked.
long long LockedBy(pid_t pid, const std::string& region) {
  std::istringstream maps(Slurp("/proc/" + std::to_string(pid) + "/smaps"));
  bool ours = false;
  long long locked = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ')) ours = line.find(region) != std::string::npos;
    if (ours && line.rfind("Locked:", 0) == 0) locked += std::stoll(line.substr(7));
  }
  return locked;
}

TEST_F(RemountInPlaceTest, TheRegionIsLockedInMemory) {
  Mount("size=64m");
  Spill(mount_ + "/before", std::string(4 << 20, 'b'));
  EXPECT_EQ(LockedBy(DaemonPid(), region_), 0);
  // What fails changes nothing.
  ExpectRefused("mlock,size=1m", "is too small");
  // (With a sanitizer munlock does nothing.)
  if (!PKRAMFS_IS_SANITIZED) {
    EXPECT_EQ(LockedBy(DaemonPid(), region_), 0);
  }
  ExpectRemount("mlock");
  EXPECT_GE(LockedBy(DaemonPid(), region_), 4 << 10);
  Spill(mount_ + "/after", std::string(4 << 20, 'a'));
  EXPECT_GE(LockedBy(DaemonPid(), region_), 8 << 10);
  ExpectRemount("mlock,size=80m");
  EXPECT_EQ(Statistics()["options"]["mlock"], true);
  // A successor keeps it.
  ASSERT_TRUE(KillOne(Victim::kServer, region_));
  EXPECT_EQ(Statistics()["options"]["mlock"], true);
  EXPECT_GE(LockedBy(DaemonPid(), region_), 8 << 10);
}

TEST_F(RemountInPlaceTest, WhatCannotChangeIsRefusedByName) {
  Mount("size=64m");
  ExpectRefused("writeback,size=32m", "option writeback: cannot change while it is mounted");
  ExpectRefused("noexport,ro", "option noexport: cannot change");
  ExpectRefused("pkram=other", "option pkram=other: cannot change");
  ExpectRefused("max_read=8192", "option max_read=8192: cannot change");
  ExpectRefused("notakeover", "option notakeover: cannot change");
  ExpectRefused("allow_root", "option allow_root: cannot change");
  ExpectRefused("nonsense", "unknown option 'nonsense'");
}

TEST_F(RemountInPlaceTest, WhatIsNotMountedOrDeadIsNotRemounted) {
  const Ran none = Remount("size=1g");
  EXPECT_EQ(none.status, 32);
  EXPECT_THAT(none.err, HasSubstr("no pkramfs is mounted there"));
  EXPECT_NE(access(region_.c_str(), F_OK), 0);
  Mount("size=64m");
  KillBoth(mount_);
  while (access((mount_ + "/x").c_str(), F_OK) == 0 || errno != ENOTCONN) usleep(1000);
  const Ran dead = Remount("size=1g");
  EXPECT_EQ(dead.status, 32);
  EXPECT_THAT(dead.err, HasSubstr("umount -l " + mount_));
}

// A remount that goes past the helper changes nothing else.
TEST_F(RemountInPlaceTest, TheKernelsOwnRemountHolds) {
  Mount("size=64m,ro");
  EXPECT_NE(Shell("touch " + mount_ + "/f").status, 0);
  ASSERT_EQ(mount(nullptr, mount_.c_str(), nullptr, MS_REMOUNT, nullptr), 0);
  Spill(mount_ + "/f", "there");
  Unmount();
  Mount("rw");
  EXPECT_EQ(Slurp(mount_ + "/f"), "there");
}

// As typed, so that `mount -a`, umount(8) and findmnt(8) know it; all find the same region.
TEST_F(RemountInPlaceTest, TheSourceIsWhatWasTyped) {
  const std::string name = region_.substr(9);
  const std::string link = dir_ + "/a link, with a comma\\";
  ASSERT_EQ(symlink(region_.c_str(), link.c_str()), 0);
  for (const std::string& typed : {name, region_, link}) {
    const Ran ran = Shell(Pkramfs() + " '" + typed + "' " + mount_ + " -o size=16m");
    ASSERT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(Entry().source, typed);
    for (const std::string& other : {name, region_, link}) {
      EXPECT_THAT(Shell(Pkramctl() + " info --json '" + other + "'").out,
                  HasSubstr("\"mounted_on\": \"" + mount_));
    }
    EXPECT_EQ(Shell("findmnt -n -o TARGET --source '" + typed + "'").out, mount_ + "\n");
    EXPECT_EQ(Shell("mountpoint -q " + mount_).status, 0);
    // (What `mount -o remount,size=17m SOURCE` runs, with the directory of that source.)
    EXPECT_EQ(Shell(Pkramfs() + " '" + typed + "' " + mount_ + " -o remount,size=17m").err, "");
    EXPECT_EQ(Shell("umount '" + typed + "'").status, 0);
    WaitUntilFree();
  }
  // Where it would mean something else to others, it is written out.
  ASSERT_EQ(Shell("cd /dev/shm && " + Pkramfs() + " ./" + name + " " + mount_).status, 0);
  EXPECT_EQ(Entry().source, region_);
}

TEST_F(RemountInPlaceTest, TheDaemonIsCalledPkramfs) {
  const std::string helper = dir_ + "/mount.fuse.pkramfs";
  ASSERT_EQ(symlink(PKRAMFS_BINARY, helper.c_str()), 0);
  ASSERT_EQ(Shell(helper + " " + region_ + " " + mount_ + " -o rw,size=16m").status, 0);
  EXPECT_EQ(Slurp("/proc/" + std::to_string(DaemonPid()) + "/comm"), "pkramfs\n");
}

TEST_F(RemountInPlaceTest, AutoUnmountKeepsDevicesAndSetIds) {
  if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "no fusermount3";
  Mount("size=16m,auto_unmount");
  EXPECT_EQ(Entry().flags, "rw,relatime");
}

// fusermount3 looks whether opening the root fails.
TEST_F(RemountInPlaceTest, AutoUnmountUnmountsWhenTheDaemonIsKilled) {
  if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "no fusermount3";
  // It looks once, when a socket of the daemon closes: the connection must be closed by then, even
  // if others have the processor before the daemon is through with its end.
  for (int i = 0; i < 10; ++i) {
    Mount(i % 2 == 0 ? "size=16m,auto_unmount,notakeover" : "size=16m,auto_unmount");
    Spill(mount_ + "/f", "kept");
    EXPECT_EQ(Shell("ls " + mount_).out, "f\n");
    // On one processor, and the daemon last.
    const nlohmann::json statistics = Statistics();
    const pid_t server = statistics["pid"], keeper = statistics.value("keeper", 0);
    std::string daemon = std::to_string(server);
    if (keeper != 0) daemon += " " + std::to_string(keeper);
    Shell("for p in " + daemon + " $(pgrep -f '[f]usermount3 .*" + mount_ +
          "'); do taskset -a -cp 0 $p; done; for p in " + daemon + "; do chrt -a -i -p 0 $p; done");
    KillBoth(mount_);
    ASSERT_TRUE(Eventually([this] { return !IsMounted(mount_); }));
  }
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/f"), "kept");
}

TEST_F(RemountInPlaceTest, InodesAreCountedAsTheyAre) {
  Mount("size=16m");
  Spill(mount_ + "/large", std::string(14 << 20, 'l'));
  struct statvfs st {};
  ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.f_files - st.f_ffree, 2u);
  EXPECT_LT(st.f_ffree, 1000u);
}

}  // namespace
}  // namespace pkramfs
