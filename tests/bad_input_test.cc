// Bad input gets one line that says what and what to do, a status that mount(8)
// sees, nothing mounted and nothing changed.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <regex>

#include "pkram/format.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class BadInputTest : public MountTest {
 protected:
  // The command fails with one line that says all of `what`.
  void ExpectRefused(const std::string& command, const std::vector<std::string>& what) {
    const Ran ran = Shell(command);
    SCOPED_TRACE(command);
    EXPECT_NE(ran.status, 0);
    EXPECT_EQ(ran.out, "");
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_EQ(ran.err.rfind("pkram", 0), 0u) << ran.err;
    for (const std::string& words : what) EXPECT_THAT(ran.err, HasSubstr(words));
    EXPECT_FALSE(IsMounted(mount_));
  }
  // The same for a mount of region_, in the background and in the foreground.  The region must not
  // have changed.
  void ExpectMountRefused(const std::vector<std::string>& what, const std::string& options = "") {
    const bool existed = access(region_.c_str(), F_OK) == 0;
    const std::string before = existed ? Slurp(region_) : "";
    ExpectRefused(Command(options), what);
    ExpectRefused(Command(options) + " -f", what);
    EXPECT_EQ(access(region_.c_str(), F_OK) == 0, existed);
    if (existed) {
      EXPECT_TRUE(Slurp(region_) == before);
    }
  }
  std::string Command(const std::string& options = "") const {
    return Pkramfs() + " " + region_ + " " + mount_ + (options.empty() ? "" : " -o " + options);
  }
  // A region with a file in it, sealed.
  void MakeRegion(const std::string& options = "size=16m") {
    Mount(options);
    Spill(mount_ + "/f", std::string(100000, 'f'));
    Unmount();
  }
  void PokeRegion(uint64_t offset, const std::string& bytes) {
    const int fd = open(region_.c_str(), O_WRONLY);
    ASSERT_EQ(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
    close(fd);
  }
};

TEST_F(BadInputTest, WrongOptions) {
  ExpectMountRefused({"unknown option 'foo'", "--help"}, "foo");
  ExpectMountRefused({"unknown option 'clone_fd'"}, "clone_fd");
  ExpectMountRefused({"option size=12q", "as 2G"}, "size=12q");
  ExpectMountRefused({"option size=-1"}, "size=-1");
  ExpectMountRefused({"option size="}, "size=");
  ExpectMountRefused({"option size=99999999999t"}, "size=99999999999t");
  ExpectMountRefused({"option size=0"}, "size=0");
  ExpectMountRefused({"option mode=9"}, "mode=9");
  ExpectMountRefused({"option uid=nobody-knows-it", "a user that is known"}, "uid=nobody-knows-it");
  ExpectMountRefused({"option gid=4294967295", "a group that is known"}, "gid=4294967295");
  ExpectMountRefused({"option nr_blocks=0", "4 KiB blocks"}, "nr_blocks=0");
  ExpectMountRefused({"option huge: ", "leave it out"}, "huge=always");
  ExpectMountRefused({"option usrquota: ", "no quotas"}, "usrquota");
  ExpectMountRefused({"option max_read=17", "from 4096 on"}, "max_read=17");
  ExpectMountRefused({"option nr_inodes=x"}, "nr_inodes=x");
  ExpectMountRefused({"option pkram="}, "pkram=");
  ExpectMountRefused({"no pkramfs is mounted there"}, "remount,size=1g");
}

TEST_F(BadInputTest, WrongCommandLines) {
  ExpectRefused(Pkramfs(), {"region is required", "--help"});
  ExpectRefused(Pkramfs() + " " + region_, {"mountpoint is required"});
  ExpectRefused(Pkramfs() + " --nonsense a b", {"--nonsense"});
  ExpectRefused(Pkramctl(), {"subcommand"});
  ExpectRefused(Pkramctl() + " info", {"region is required"});
}

TEST_F(BadInputTest, SizesThatCannotBe) {
  ExpectMountRefused({"a region has 64 to", "pages"}, "size=8000000t");
  ExpectMountRefused({"more than this machine can map", "choose a smaller size"}, "size=900t");
  MakeRegion();
  Mount();
  Spill(mount_ + "/file", std::string(1 << 20, 'x'));
  Unmount();
  ExpectMountRefused({"too small", "choose a larger size"}, "size=64k");
}

TEST_F(BadInputTest, MissingAndUnreadableRegions) {
  ExpectRefused(Pkramfs() + " /nowhere/region " + mount_, {"/nowhere/region", "No such file"});
  ExpectRefused(Pkramfs() + " /dev/null " + mount_, {"/dev/null", "not a regular file"});
  ExpectRefused(Pkramfs() + " /tmp " + mount_, {"/tmp", "is a directory"});
  MakeRegion();
  ASSERT_EQ(Shell("install -m 755 " + Pkramfs() + " " + dir_ + "/pkramfs").status, 0);
  ExpectRefused("setpriv --reuid=65534 --regid=65534 --clear-groups " + dir_ + "/pkramfs " +
                    region_ + " " + mount_,
                {region_, "Permission denied"});
  ExpectRefused(Pkramctl() + " info /nowhere/region", {"/nowhere/region", "No such file"});
}

TEST_F(BadInputTest, ForeignFilesAreNeverOverwritten) {
  Spill(region_, "precious");
  ExpectMountRefused({region_, "not a pkramfs region", "choose another path"});
  Spill(region_, std::string(1 << 20, 'p'));
  ExpectMountRefused({region_, "not a pkramfs region", "choose another path"}, "size=16m");
  ExpectRefused(Pkramctl() + " check " + region_, {"not a pkramfs region"});
}

TEST_F(BadInputTest, LockedRegions) {
  Mount("size=16m");
  const std::string other = dir_ + "/other";
  mkdir(other.c_str(), 0755);
  const Ran ran = Shell(Pkramfs() + " " + region_ + " " + other);
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("in use by process " + std::to_string(DaemonPid())));
  EXPECT_THAT(ran.err, HasSubstr("mounted on " + mount_));
  EXPECT_FALSE(IsMounted(other));
  const Ran check = Shell(Pkramctl() + " check " + region_);
  EXPECT_EQ(check.status, 2);
  EXPECT_THAT(check.err, HasSubstr("in use by process " + std::to_string(DaemonPid())));
  EXPECT_THAT(Shell("echo x | " + Pkramctl() + " put " + region_ + " n").err,
              HasSubstr("in use by process"));
}

TEST_F(BadInputTest, TruncatedAndCorruptRegions) {
  MakeRegion();
  const std::string good = Slurp(region_);
  ASSERT_EQ(truncate(region_.c_str(), 18 * 4096), 0);
  ExpectMountRefused({region_, "beyond the end (18 pages)", "pkramctl check"});
  Spill(region_, good);
  PokeRegion(40, "X");
  ExpectMountRefused({region_, "page 0", "checksum"});
  const Ran check = Shell(Pkramctl() + " check " + region_);
  EXPECT_EQ(check.status, 1);
  Spill(region_, good);
  // On the node, which the super block leads to.
  uint64_t nodes;
  std::memcpy(&nodes, good.data() + 96, sizeof(nodes));
  PokeRegion((nodes >> 12) * 4096 + 100, "scribble");
  ExpectMountRefused({region_, "page ", "was changed since it was sealed"});
  EXPECT_EQ(Shell(Pkramctl() + " check " + region_).status, 1);
  EXPECT_EQ(Shell(Pkramctl() + " info " + region_).status, 1);
  Spill(region_, good);
  Mount();
}

TEST_F(BadInputTest, RegionsOfANewerFormat) {
  MakeRegion();
  PokeRegion(8, "\x02");
  ExpectMountRefused({"format version 2", "this program knows 1", "use a newer pkramfs"});
}

TEST_F(BadInputTest, ANodeThatIsNoFilesystem) {
  MakeRegion();
  ASSERT_EQ(Shell("echo bytes | " + Pkramctl() + " put " + region_ + " blob").status, 0);
  ExpectMountRefused({"node 'blob'", "holds no filesystem", "pkram="}, "pkram=blob");
  EXPECT_EQ(Shell(Pkramctl() + " get " + region_ + " blob").out, "bytes\n");
  ExpectRefused("echo x | " + Pkramctl() + " put " + region_ + " blob", {"node 'blob' exists"});
  ExpectRefused(Pkramctl() + " get " + region_ + " none", {"no node 'none'"});
  ExpectRefused(Pkramctl() + " get " + region_ + " pkramfs", {"not a saved stream"});
  ExpectRefused(Pkramctl() + " rm " + region_ + " none", {"no node 'none'"});
}

// Nothing says so but the filesystem itself, and the node's seal is its maker's.
TEST_F(BadInputTest, AFilesystemOfANewerVersion) {
  Mount("size=16m");
  Kill();
  WaitUntilFree();
  const std::string region = Slurp(region_);
  uint64_t nodes;
  std::memcpy(&nodes, region.data() + 96, sizeof(nodes));
  PokeRegion((nodes >> 12) * 4096 + 40, "\x02");
  ExpectMountRefused({"a filesystem of version 2", "this program knows 1", "use a newer pkramfs"});
}

TEST_F(BadInputTest, MountPointsThatAreNone) {
  const std::string mount = mount_;
  mount_ = dir_ + "/none";
  ExpectMountRefused({"mount point " + mount_, "No such file", "create it first"});
  for (const char* more : {"/", "/below"}) {
    ExpectRefused(Pkramfs() + " " + region_ + " " + mount_ + more, {"create it first"});
  }
  ExpectRefused(Pkramfs() + " " + region_ + " ''", {"mount point", "No such file"});
  ExpectRefused(Pkramfs() + " '' " + mount, {"is a directory"});
  mount_ = dir_ + "/file";
  Spill(mount_, "");
  ExpectMountRefused({"mount point " + mount_, "not a directory"});
  mount_ = mount;
  Mount("size=16m");
  KillBoth(mount_);
  while (access((mount_ + "/x").c_str(), F_OK) == 0 || errno != ENOTCONN) usleep(1000);
  const Ran dead = TryMount();
  EXPECT_NE(dead.status, 0);
  EXPECT_THAT(dead.err, HasSubstr("a dead mount is there: `umount -l " + mount_ + "` first"));
  umount2(mount_.c_str(), MNT_DETACH);
  Mount();
  const Ran twice = TryMount();
  EXPECT_NE(twice.status, 0);
  EXPECT_THAT(twice.err, HasSubstr("is mounted there: unmount it first"));
}

// In a mount namespace of its own, the machine is what the test says.
std::string InNamespace(const std::string& prepare, const std::string& command) {
  return "unshare -m sh -c '" + prepare + " && exec " + command + "'";
}

TEST_F(BadInputTest, NoFuseDevice) {
  ExpectRefused(InNamespace("mount -t tmpfs none /dev", Pkramfs() + " " + dir_ + "/r " + mount_),
                {"no /dev/fuse", "modprobe fuse"});
  EXPECT_NE(access((dir_ + "/r").c_str(), F_OK), 0);
}

TEST_F(BadInputTest, NoSpaceForTheRegion) {
  // A filesystem that is full: the region cannot even begin.
  ExpectRefused(InNamespace("mount -t tmpfs -o size=64k none /dev/shm && head -c 64k /dev/zero > "
                            "/dev/shm/filler",
                            Pkramfs() + " r " + mount_ + " -o size=16m"),
                {"/dev/shm/r", "No space left on device"});
}

TEST_F(BadInputTest, LessSpaceThanTheSizeIsAWarning) {
  const Ran ran = Shell(InNamespace(
      "mount -t tmpfs -o size=1m none /dev/shm",
      "sh -c \"" + Pkramfs() + " r " + mount_ + " -o size=16m && umount " + mount_ + "\""));
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("warning: the filesystem of /dev/shm/r has room for"));
  EXPECT_THAT(ran.err, HasSubstr("mount -o remount,size="));
}

TEST_F(BadInputTest, WhenTheBackingIsFullWritesSayENOSPC) {
  const std::string writing = "cd " + mount_ +
                              " && head -c 4M /dev/zero > big; stat -c %s big; "
                              "rm big && echo small > small && cat small; cd /; umount " +
                              mount_;
  const Ran ran = Shell(InNamespace(
      "mount -t tmpfs -o size=1m none /dev/shm",
      "sh -c \"" + Pkramfs() + " r " + mount_ + " -o size=16m 2>/dev/null; " + writing + "\""));
  EXPECT_THAT(ran.err, HasSubstr("No space left on device"));
  EXPECT_THAT(ran.out, HasSubstr("small"));
}

TEST_F(BadInputTest, ARegionThatLogindWillDeleteIsAWarning) {
  ASSERT_EQ(Shell("install -m 755 " + Pkramfs() + " " + dir_ + "/pkramfs && chown nobody " + mount_)
                .status,
            0);
  const std::string user = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
  // Fuse's device as udev sets it, for a moment and in this namespace only.
  const std::string prepare = "mount -t tmpfs none /run && mkdir -p /run/systemd/seats && mknod " +
                              dir_ + "/fuse c 10 229 && chmod 666 " + dir_ +
                              "/fuse && mount --bind " + dir_ + "/fuse /dev/fuse";
  const Ran ran =
      Shell(InNamespace(prepare, "sh -c \"" + user + dir_ + "/pkramfs " + region_ + " " + mount_ +
                                     " -o size=1m && umount " + mount_ + "\""));
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("will be deleted when you log out"));
  EXPECT_THAT(ran.err, HasSubstr("RemoveIPC=no"));
}

TEST_F(BadInputTest, AnInterruptedStartLeavesNothing) {
  MakeRegion();
  const std::string before = Slurp(region_);
  // Somebody else's lock makes the start wait, which is when it is interrupted.
  const int fd = open(region_.c_str(), O_RDONLY);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  const pid_t start = fork();
  if (start == 0) {
    execl(PKRAMFS_BINARY, "pkramfs", region_.c_str(), mount_.c_str(), nullptr);
    _exit(99);
  }
  // When it takes interruptions: SigCgt has a bit for each signal.
  EXPECT_TRUE(Eventually([start] {
    const std::string status = Slurp("/proc/" + std::to_string(start) + "/status");
    const size_t at = status.find("SigCgt:");
    return at != std::string::npos &&
           (std::stoull(status.substr(at + 7), nullptr, 16) >> (SIGINT - 1) & 1) != 0;
  }));
  kill(start, SIGINT);
  int status = 0;
  ASSERT_EQ(waitpid(start, &status, 0), start);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 8);  // mount(8)'s "interrupted"
  close(fd);
  WaitUntilFree();
  EXPECT_FALSE(IsMounted(mount_));
  EXPECT_TRUE(Slurp(region_) == before);
  Mount();
}

TEST_F(BadInputTest, AMountThatFailsUnmakesTheRegionItMade) {
  // The option is refused by the kernel, after the region was formatted.
  ExpectMountRefused({"cannot mount on " + mount_}, "size=16m,fscontext=nonsense");
  Spill(region_, "");
  ExpectMountRefused({"cannot mount on " + mount_}, "size=16m,fscontext=nonsense");
}

// Status 0 means mounted, whatever is short; any other, that nothing is there.
class ShortOfTest : public BadInputTest {
 protected:
  // As which user, with which limit.  Whether it was mounted.
  bool ExpectAllOrNothing(const std::string& limit) {
    SCOPED_TRACE(limit);
    const Ran ran = Shell(limit + " " + Command("size=16m"));
    EXPECT_EQ(ran.status == 0, IsMounted(mount_)) << ran.status << ran.err;
    if (ran.status != 0) {
      EXPECT_NE(ran.err, "");
      WaitUntilFree();
      EXPECT_NE(access(region_.c_str(), F_OK), 0);
      return false;
    }
    Spill(mount_ + "/f", "served");
    EXPECT_EQ(Slurp(mount_ + "/f"), "served");
    EXPECT_EQ(Shell("umount " + mount_).status, 0);
    WaitUntilFree();
    unlink(region_.c_str());
    return true;
  }
};

TEST_F(ShortOfTest, Descriptors) {
  int mounted = 0;
  int tried = 0;
  for (int n = 3; n < 100; n += n < 70 ? 1 : 10, ++tried) {
    mounted += ExpectAllOrNothing("ulimit -n " + std::to_string(n) + ";");
  }
  EXPECT_GT(mounted, 0);
  EXPECT_LT(mounted, tried);
}

TEST_F(ShortOfTest, AddressSpace) {
  if (PKRAMFS_IS_SANITIZED) GTEST_SKIP() << "a sanitizer's own address space is beyond any limit";
  int mounted = 0;
  // A region is mapped with 64 GiB of room.
  for (const uint64_t mib : {10, 20, 40, 100, 1000, 60000, 65500, 65600, 65700, 66000, 80000}) {
    mounted += ExpectAllOrNothing("ulimit -v " + std::to_string(mib * 1024) + ";");
  }
  EXPECT_GT(mounted, 0);
  EXPECT_LT(mounted, 11);
}

TEST_F(ShortOfTest, Processes) {
  // A user whom no other test is.
  ASSERT_EQ(Shell("install -m 755 " + Pkramfs() + " " + dir_ + "/pkramfs && chown games " + mount_ +
                  " && chmod 666 /dev/fuse")
                .status,
            0);
  // Those that have ended count until they are waited for.  The thread sanitizer has two threads
  // for each.
  int mounted = 0;
  for (int n = 1; n < 12; ++n) {
    const Ran ran =
        Shell("prlimit --nproc=$(($(ps -o pid= -u games | wc -l) + " + std::to_string(n) +
              ")) setpriv --reuid=games --regid=games --clear-groups " + dir_ + "/pkramfs " +
              region_ + " " + mount_ + " -o size=16m");
    EXPECT_EQ(ran.status == 0, IsMounted(mount_)) << n << ": " << ran.err;
    mounted += ran.status == 0;
    if (ran.status == 0) umount2(mount_.c_str(), 0);
    WaitUntilFree();
    if (n > 1) continue;
    // In the foreground, too.
    const Ran front =
        Shell("prlimit --nproc=1 setpriv --reuid=games --regid=games --clear-groups " + dir_ +
              "/pkramfs -f " + region_ + " " + mount_ + " -o size=16m");
    EXPECT_NE(front.status, 0);
    EXPECT_NE(front.err, "");
    EXPECT_FALSE(IsMounted(mount_));
    unlink(region_.c_str());
  }
  EXPECT_GT(mounted, 0);
  EXPECT_LT(mounted, 11);
}

// An ordinary user's mount, which fusermount3 refuses.
TEST_F(BadInputTest, WhatFusermountRefuses) {
  if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "no fusermount3";
  ASSERT_EQ(
      Shell("install -m 755 " + Pkramfs() + " " + dir_ + "/pkramfs && chown nobody " + mount_ +
            " && chmod 666 /dev/fuse && mkdir " + dir_ + "/roots && cp /usr/bin/fusermount3 " +
            dir_ + "/copy && chmod 755 " + dir_ + "/copy")
          .status,
      0);
  chmod(dir_.c_str(), 0777);
  region_ = dir_ + "/region";  // logind has no say there
  const auto try_it = [this](const std::string& prepare, const std::string& options,
                             const std::vector<std::string>& what, std::string where) {
    if (where.empty()) where = mount_;
    // Nothing is mounted in there, either.
    const Ran ran = Shell(
        "unshare -m sh -c '" + prepare + "; setpriv --reuid=65534 --regid=65534 " +
        "--clear-groups " + dir_ + "/pkramfs " + region_ + " " + where + " -o size=16m" + options +
        "; status=$?; grep \" " + where + " fuse.pkramfs\" /proc/mounts; exit $status'");
    EXPECT_NE(ran.status, 0);
    EXPECT_EQ(ran.out, "");
    // What fusermount3 says, and what we do.  (libfuse from 3.17 on says itself that there is
    // none, and each version in other words.)
    const bool is_started = ran.err.find("calling fusermount") == std::string::npos &&
                            ran.err.find("Failed to call") == std::string::npos;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), is_started ? 2 : 1) << ran.err;
    EXPECT_THAT(ran.err,
                HasSubstr((is_started ? "\n" : "") + ("pkramfs: cannot mount on " + where)));
    for (const std::string& words : what) EXPECT_THAT(ran.err, testing::ContainsRegex(words));
    EXPECT_NE(access(region_.c_str(), F_OK), 0);
  };
  // In the background and not.
  const auto refused = [&](const std::string& prepare, const std::string& options,
                           const std::vector<std::string>& what, const std::string& where = "") {
    try_it(prepare, options, what, where);
    try_it(prepare, options + " -f", what, where);
  };
  const std::string binary = "$(readlink -f /usr/bin/fusermount3)";
  refused("mount --bind /dev/null " + binary, "",
          {"failed to exec fusermount3|posix_spawn failed: Permission denied|"
           "Failed to call 'fusermount3': Permission denied"});
  // One without the set-uid bit.
  refused("mount --bind " + dir_ + "/copy " + binary, "", {"Operation not permitted"});
  refused("mount --bind /dev/null /etc/fuse.conf", ",allow_other", {"allow_other"});
  refused("echo mount_max=0 >" + dir_ + "/conf; mount --bind " + dir_ + "/conf /etc/fuse.conf", "",
          {"mount_max"});
  refused("true", "", {"no write access to mountpoint"}, dir_ + "/roots");
  refused("true", ",fscontext=nonsense", {"fscontext"});
}

TEST_F(BadInputTest, AUserIsNamedAndARootThatIsThereKeepsItsOwner) {
  Mount("size=16m,uid=nobody,mode=750");
  struct stat st;
  ASSERT_EQ(stat(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 65534u);
  EXPECT_EQ(st.st_mode & 07777, 0750u);
  EXPECT_EQ(st.st_blksize, 4096) << "programs take it for the size of holes";
  Unmount();
  Mount("uid=nobody,mode=750");
  Unmount();
  // What changes nothing says so.
  const Ran ran = TryMount("uid=root,mode=755");
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("mode=755 (it is 750), uid=0 (it is 65534) changes nothing"));
  ASSERT_EQ(stat(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 65534u);
}

TEST_F(BadInputTest, MaxReadIsHonoured) {
  Mount("size=16m,max_read=8192");
  Spill(mount_ + "/f", std::string(1 << 20, 'f'));
  Unmount();
  Mount("max_read=8192");
  EXPECT_EQ(Slurp(mount_ + "/f"), std::string(1 << 20, 'f'));
  EXPECT_GE(Statistics()["requests"]["read"], 128);
}

TEST_F(BadInputTest, AWordThatIsNoDescriptorIsNoRegion) {
  ExpectRefused(Pkramfs() + " fd=x " + mount_, {"fd=x", "an open descriptor"});
  EXPECT_NE(access("/dev/shm/fd=x", F_OK), 0);
  for (const char* command : {"info", "check"}) {
    ExpectRefused(Pkramctl() + " " + command + " fd=x", {"fd=x", "an open descriptor"});
  }
}

TEST_F(BadInputTest, MlockBeyondTheLimit) {
  ASSERT_EQ(Shell("install -m 755 " + Pkramfs() + " " + dir_ + "/pkramfs && chown nobody " + mount_)
                .status,
            0);
  region_ = dir_ + "/region";
  chmod(dir_.c_str(), 0777);
  ExpectRefused("ulimit -l 64; setpriv --reuid=65534 --regid=65534 --clear-groups " + dir_ +
                    "/pkramfs " + region_ + " " + mount_ + " -o size=16m,mlock",
                {"cannot lock the region in memory", "without mlock"});
  EXPECT_NE(access(region_.c_str(), F_OK), 0);
  // The limit is for the region, not for what it might grow into.
  ASSERT_EQ(chmod("/dev/fuse", 0666), 0);
  const Ran within = Shell("ulimit -l 8192; setpriv --reuid=65534 --regid=65534 --clear-groups " +
                           dir_ + "/pkramfs " + region_ + " " + mount_ + " -o size=2m,mlock");
  EXPECT_EQ(within.status, 0) << within.err;
}

}  // namespace
}  // namespace pkramfs
