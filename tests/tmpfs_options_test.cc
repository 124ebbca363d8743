// Every option of mount(8) and tmpfs(5), given to mount(8) for a tmpfs and for pkramfs: both take
// it, or both refuse it, and the kernel shows the same flags; what differs is in semantics.md.
#include <gmock/gmock.h>
#include <sched.h>

#include <set>
#include <string>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

constexpr const char* kOptions[] = {
    // Of mount(8): all that it hands over, keeps to itself, or acts upon.
    "", "defaults", "async", "sync", "dirsync", "atime", "noatime", "diratime", "nodiratime",
    "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "dev",
    "nodev", "suid", "nosuid", "exec", "noexec", "ro", "rw", "symfollow", "nosymfollow", "iversion",
    "noiversion", "mand", "nomand", "silent", "loud", "auto", "noauto", "user", "nouser", "users",
    "nousers", "owner", "noowner", "group", "nogroup", "_netdev", "nofail", "comment=x", "x-foo",
    "X-foo", "x-systemd.automount", "X-mount.mkdir", "X-mount.owner=1", "X-mount.mode=700",
    "private", "shared", "slave", "unbindable", "nodiratime,noatime,ro", "nosuid,suid",
    "rw,noexec,nodev,nosuid,relatime", "context=system_u:object_r:tmp_t:s0",
    "fscontext=system_u:object_r:tmp_t:s0", "defcontext=system_u:object_r:tmp_t:s0",
    "rootcontext=system_u:object_r:tmp_t:s0",
    // Options of tmpfs(5), and what is wrong with each.
    "size=10m", "size=10M", "size=1%", "size=10485760", "size=10m,size=20m", "size=x",
    "size=", "size=0", "nr_blocks=2000", "nr_blocks=x", "nr_inodes=100", "nr_inodes=1k",
    "nr_inodes=0", "nr_inodes=x", "mode=700", "mode=1777", "mode=0755", "mode=9", "mode=", "uid=1",
    "uid=root", "uid=-1", "uid=nobody-of-that-name", "uid=", "gid=1", "gid=root", "gid=-1",
    "noswap", "swap", "inode32", "inode64", "huge=never", "huge=always", "huge=within_size",
    "huge=advise", "mpol=default", "mpol=local", "mpol=prefer:0", "mpol=bind:0",
    "mpol=interleave:0", "quota", "usrquota", "grpquota", "noquota", "usrquota_block_hardlimit=1m",
    "usrquota_inode_hardlimit=100", "grpquota_block_hardlimit=1m", "grpquota_inode_hardlimit=100",
    "casefold", "strict_encoding", "nonsense", "nonsense=1"};

// Refused by us, or by the tmpfs of some kernels.
const std::set<std::string> kDiffers = {"dirsync",
                                        "size=0",
                                        "huge=always",
                                        "huge=within_size",
                                        "huge=advise",
                                        "mpol=local",
                                        "mpol=prefer:0",
                                        "mpol=bind:0",
                                        "mpol=interleave:0",
                                        "quota",
                                        "usrquota",
                                        "grpquota",
                                        "usrquota_block_hardlimit=1m",
                                        "usrquota_inode_hardlimit=100",
                                        "grpquota_block_hardlimit=1m",
                                        "grpquota_inode_hardlimit=100",
                                        "casefold",
                                        "strict_encoding",
                                        "noquota",
                                        "noswap"};

class TmpfsOptionsTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    // A mount namespace in which mount(8) finds its helper.
    const std::string helpers = dir_ + "/sbin";
    mkdir(helpers.c_str(), 0755);
    ASSERT_EQ(symlink(PKRAMFS_BINARY, (helpers + "/mount.fuse.pkramfs").c_str()), 0);
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    const std::string layers = "lowerdir=" + helpers + ":/usr/sbin";
    if (mount("overlay", "/usr/sbin", "overlay", 0, layers.c_str()) != 0) {
      GTEST_SKIP() << "no overlay of /usr/sbin can be made here";
    }
    tmpfs_ = dir_ + "/tmpfs";
    mkdir(tmpfs_.c_str(), 0755);
  }

  std::string FlagsAt(const std::string& path) {
    std::string flags = "not mounted";
    for (const MountEntry& m : AllMounts()) {
      if (m.mount_point == path) flags = m.flags;
    }
    return flags;
  }

  Ran MountTmpfs(const std::string& options) {
    return Shell("mount -t tmpfs -o '" + options + "' none " + tmpfs_);
  }
  Ran MountOurs(const std::string& options) {
    // A size that is not of the default's, as a region must have room.
    const bool is_sized = options.find("size=") != std::string::npos ||
                          options.find("nr_blocks=") != std::string::npos;
    return Shell("mount -t fuse.pkramfs -o '" + options + (is_sized ? "" : ",size=16m") + "' " +
                 region_ + " " + mount_);
  }
  void End() {
    if (FlagsAt(tmpfs_) != "not mounted") {
      EXPECT_EQ(umount2(tmpfs_.c_str(), 0), 0);
    }
    if (IsMounted(mount_)) Unmount();
    unlink(region_.c_str());
  }

  void ExpectAsTmpfs(const std::string& options, const Ran& tmpfs, const Ran& ours) {
    SCOPED_TRACE("-o " + options + ": " + ours.err);
    if (!kDiffers.contains(options)) {
      EXPECT_EQ(ours.status == 0, tmpfs.status == 0);
      EXPECT_EQ(FlagsAt(mount_), FlagsAt(tmpfs_));
    }
    if (ours.status == 0) {
      // mount(8) itself has something to say of mand and of systemd.
      EXPECT_EQ(ours.err.find("pkramfs: "), std::string::npos);
    } else if (tmpfs.status == 0) {
      // Says which word of it, and what to write.
      EXPECT_THAT(ours.err, testing::HasSubstr("option " + options.substr(0, options.find('='))));
      EXPECT_THAT(ours.err, testing::ContainsRegex("leave it out|as size="));
    }
  }

  std::string tmpfs_;
};

TEST_F(TmpfsOptionsTest, EachIsTakenOrRefusedAsByTmpfs) {
  for (const std::string options : kOptions) {
    const Ran tmpfs = MountTmpfs(options);
    ExpectAsTmpfs(options, tmpfs, MountOurs(options));
    End();
    if (HasFatalFailure()) return;
  }
}

TEST_F(TmpfsOptionsTest, EachIsRemountedAsByTmpfs) {
  for (const std::string options : kOptions) {
    ASSERT_EQ(MountTmpfs("size=16m").status, 0);
    ASSERT_EQ(MountOurs("size=16m").status, 0);
    const Ran tmpfs = Shell("mount -o 'remount," + options + "' " + tmpfs_);
    ExpectAsTmpfs(options, tmpfs, Shell("mount -o 'remount," + options + "' " + mount_));
    End();
    if (HasFatalFailure()) return;
  }
}

// A reader who looks for the reason finds each option in the document.
TEST(TmpfsDifferencesTest, AreListed) {
  const std::string text = Slurp(SOURCE_DIR "/docs/semantics.md");
  for (const std::string& options : kDiffers) {
    const std::string name = options == "size=0" ? options : options.substr(0, options.find('='));
    EXPECT_NE(text.find('`' + name), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace pkramfs
