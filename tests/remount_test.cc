// Files outlive the process that serves them: on a real mount, with a real tree.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <utility>

#include "tests/manifest.h"
#include "tests/mount_fixture.h"
#include "tests/odd_tree.h"

namespace pkramfs {
namespace {

class RemountTest : public MountTest {};

TEST_F(RemountTest, ARealTreeComesBackAfterUnmountAndAfterKill) {
  Mount("size=1g");
  MakeOddTree(mount_ + "/odd");
  // A part of it where a sanitizer makes each file take ten times as long.
  std::vector<std::string> dirs = {"linux"};
  if (!PKRAMFS_IS_SANITIZED) dirs.push_back("c++");
  for (const std::string& dir : dirs) {
    ASSERT_EQ(Shell("cp -a /usr/include/" + dir + " " + mount_ + "/").status, 0);
  }
  const Manifest before = ManifestOf(mount_);
  ASSERT_GT(before.size(), PKRAMFS_IS_SANITIZED ? 600u : 3000u);
  // The copy equals its source.
  for (const std::string& dir : dirs) {
    const ManifestOptions copied{.inode_numbers = false, .blocks = false};
    EXPECT_EQ(FirstDifference(ManifestOf(std::string("/usr/include/") + dir, copied),
                              ManifestOf(mount_ + "/" + dir, copied)),
              "");
  }
  Unmount();
  Mount();
  EXPECT_EQ(FirstDifference(before, ManifestOf(mount_)), "");
  Kill();
  Mount();
  EXPECT_EQ(FirstDifference(before, ManifestOf(mount_)), "");
  // And once more, from what the recovery left.
  Unmount();
  const Ran check = Shell(Pkramctl() + " check " + region_);
  EXPECT_EQ(check.status, 0) << check.out;
  Mount();
  EXPECT_EQ(FirstDifference(before, ManifestOf(mount_)), "");
  ASSERT_EQ(Shell("rm -r " + mount_ + "/*").status, 0);
  // (The kernel's forgets come after the answers.)
  EXPECT_TRUE(Eventually([&] {
    const nlohmann::json now = Statistics();
    return now["inodes"] == 1 && now["pages"]["metadata"] < 60 && now["pages"]["data"] == 0;
  })) << Statistics();
}

// With writeback, written bytes are preserved at fsync, close and msync.
TEST_F(RemountTest, WritebackCountsAtItsPoints) {
  Mount("size=256m,writeback");
  const std::string text(3 << 20, 'w');
  const struct {
    const char* name;
    std::function<void(int*)> point;
    bool times;
  } points[] = {
      {"fsync", [](int* fd) { EXPECT_EQ(fsync(*fd), 0); }, true},
      {"fdatasync", [](int* fd) { EXPECT_EQ(fdatasync(*fd), 0); }, false},
      {"close", [](int* fd) { EXPECT_EQ(close(std::exchange(*fd, -1)), 0); }, true},
      {"msync",
       [&](int* fd) {
         void* const at = mmap(nullptr, text.size(), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
         ASSERT_NE(at, MAP_FAILED);
         EXPECT_EQ(msync(at, text.size(), MS_SYNC), 0);
         munmap(at, text.size());
       },
       false},
  };
  for (const int flags : {O_RDWR, O_WRONLY}) {
    for (const auto& [name, point, times] : points) {
      if (flags == O_WRONLY && std::string_view(name) == "msync") continue;
      SCOPED_TRACE(name);
      const std::string path = mount_ + "/" + name + (flags == O_WRONLY ? " write-only" : "");
      int fd = open(path.c_str(), O_CREAT | flags, 0644);
      for (size_t at = 0; at < text.size(); at += 1000) {
        const size_t n = std::min<size_t>(1000, text.size() - at);
        ASSERT_EQ(write(fd, text.data() + at, n), static_cast<ssize_t>(n));
      }
      struct stat now, then;
      // Nothing of it is a hole, wherever it is.
      EXPECT_EQ(lseek(fd, 0, SEEK_HOLE), static_cast<off_t>(text.size()));
      EXPECT_EQ(lseek(fd, 5, SEEK_DATA), 5);
      point(&fd);
      ASSERT_EQ(stat(path.c_str(), &now), 0);
      Kill();
      if (fd >= 0) close(fd);
      Mount("writeback");
      EXPECT_TRUE(Slurp(path) == text);
      ASSERT_EQ(stat(path.c_str(), &then), 0);
      EXPECT_EQ(then.st_size, now.st_size);
      if (times) {
        EXPECT_EQ(then.st_mtim.tv_sec, now.st_mtim.tv_sec);
        EXPECT_EQ(then.st_mtim.tv_nsec, now.st_mtim.tv_nsec);
      }
    }
  }
}

// The kernel takes a page for sent unless it is told of an error, however much was taken.
TEST_F(RemountTest, WhatDoesNotFitIsToldWhenItIsSent) {
  for (const bool writeback : {true, false}) {
    SCOPED_TRACE(writeback ? "writeback" : "mapped");
    Mount(writeback ? "size=16m,writeback" : "size=16m");
    const std::string path = mount_ + "/f";
    const size_t size = 1 << 20;
    int fd = open(path.c_str(), O_CREAT | O_RDWR, 0644);
    ASSERT_EQ(ftruncate(fd, size), 0);
    // Space for half a request is left.
    struct statvfs st;
    ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
    const int other = open((mount_ + "/other").c_str(), O_CREAT | O_RDWR, 0644);
    ASSERT_EQ(posix_fallocate(other, 0, static_cast<off_t>((st.f_bfree - 130) * st.f_bsize)), 0);
    const std::string bytes(size, 'x');
    if (writeback) {
      EXPECT_EQ(pwrite(fd, bytes.data(), size, 0), static_cast<ssize_t>(size));
    } else {
      void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      ASSERT_NE(at, MAP_FAILED);
      std::memset(at, 'x', size);
      EXPECT_NE(msync(at, size, MS_SYNC), 0);
      munmap(at, size);
    }
    // The first program that asks gets the error.
    EXPECT_EQ(fsync(fd), writeback ? -1 : 0);
    close(fd);
    close(other);
    Unmount();
    unlink(region_.c_str());
  }
}

// Linux takes pages for sent that it could not send because the daemon is gone, and only
// the request behind them tells; so there must be one.
TEST_F(RemountTest, WhatNobodyTookIsNotAcknowledged) {
  for (const bool writeback : {false, true}) {
    const std::vector<std::string> points =
        writeback ? std::vector<std::string>{"msync", "fsync", "fdatasync", "close"}
                  : std::vector<std::string>{"msync", "fsync", "fdatasync"};
    for (const std::string& point : points) {
      SCOPED_TRACE(point + (writeback ? " with writeback" : ""));
      Mount(writeback ? "size=16m,writeback" : "size=16m");
      const int fd = open((mount_ + "/" + point).c_str(), O_CREAT | O_RDWR, 0644);
      ASSERT_EQ(ftruncate(fd, 4096), 0);
      void* const at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      ASSERT_NE(at, MAP_FAILED);
      // By now the kernel knows whether it has to ask.
      EXPECT_EQ(msync(at, 4096, MS_SYNC), 0);
      EXPECT_EQ(fsync(fd), 0);
      EXPECT_EQ(fdatasync(fd), 0);
      EXPECT_EQ(close(dup(fd)), 0);
      std::memset(at, 'x', 4096);
      KillBoth(mount_);
      WaitUntilFree();
      EXPECT_NE(point == "msync"       ? msync(at, 4096, MS_SYNC)
                : point == "fsync"     ? fsync(fd)
                : point == "fdatasync" ? fdatasync(fd)
                                       : close(dup(fd)),
                0);
      munmap(at, 4096);
      close(fd);
      umount2(mount_.c_str(), MNT_DETACH);
    }
  }
}

TEST_F(RemountTest, TheSecondMountWaitsForTheSealOfTheFirst) {
  Mount();
  ASSERT_EQ(Shell("cp -r /usr/include/linux " + mount_).status, 0);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(umount2(mount_.c_str(), 0), 0) << std::strerror(errno);
    Mount();
  }
  Unmount();
  const auto info = nlohmann::json::parse(Shell(Pkramctl() + " info --json " + region_).out);
  EXPECT_TRUE(info["sealed"]);
  EXPECT_TRUE(info["nodes"][0]["sealed"]);
}

TEST_F(RemountTest, ARootMountIsAsAnyFilesystem) {
  Mount();
  std::string options;
  std::istringstream mounts(Slurp("/proc/mounts"));
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(" " + mount_ + " ") != std::string::npos) options = line;
  }
  EXPECT_NE(options.find(region_ + " " + mount_ + " fuse.pkramfs rw"), std::string::npos)
      << options;
  for (const char* has : {"allow_other", "default_permissions"}) {
    EXPECT_NE(options.find(has), std::string::npos) << options;
  }
  for (const char* has_not : {"nosuid", "nodev", "noexec"}) {
    EXPECT_EQ(options.find(has_not), std::string::npos) << options;
  }
  struct stat st;
  ASSERT_EQ(stat(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFDIR | 01777u);
  Unmount();
  Mount("ro,nosuid");
  EXPECT_LT(open((mount_ + "/f").c_str(), O_CREAT | O_WRONLY, 0644), 0);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(RemountTest, OptionsShapeTheRootAndTheLimits) {
  Mount("size=8m,mode=750,uid=5,gid=6,nr_inodes=3");
  struct stat st;
  ASSERT_EQ(stat(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFDIR | 0750u);
  EXPECT_EQ(st.st_uid, 5u);
  EXPECT_EQ(st.st_gid, 6u);
  Spill(mount_ + "/a", "");
  Spill(mount_ + "/b", "");
  EXPECT_LT(open((mount_ + "/c").c_str(), O_CREAT | O_WRONLY, 0644), 0);
  EXPECT_EQ(errno, ENOSPC);
}

TEST_F(RemountTest, SigtermEndsItCleanly) {
  Mount();
  Spill(mount_ + "/f", "x");
  kill(DaemonPid(), SIGTERM);
  EXPECT_TRUE(Eventually([&] { return !IsMounted(mount_); }));
  WaitUntilFree();
  EXPECT_TRUE(nlohmann::json::parse(Shell(Pkramctl() + " info --json " + region_).out)["sealed"]);
}

TEST_F(RemountTest, SharedMappingsAreInTheRegionOnceMsyncReturned) {
  Mount();
  Spill(mount_ + "/mapped", std::string(100000, '-'));
  const std::string script =
      "import mmap,os,sys\n"
      "f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0)\n"
      "m[5000:5005]=b'hello'; m.flush(); os._exit(0)\n";
  Spill(dir_ + "/map.py", script);
  if (Shell("command -v python3").status != 0) GTEST_SKIP() << "needs python3";
  ASSERT_EQ(Shell("python3 " + dir_ + "/map.py " + mount_ + "/mapped").status, 0);
  Kill();
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/mapped").substr(4998, 9), "--hello--");
}

TEST_F(RemountTest, SeveralFilesystemsShareARegion) {
  Mount("size=64m,pkram=one");
  Spill(mount_ + "/f", "one");
  Unmount();
  Mount("pkram=two");
  EXPECT_EQ(access((mount_ + "/f").c_str(), F_OK), -1);
  Spill(mount_ + "/f", "two");
  Unmount();
  Mount("pkram=one");
  EXPECT_EQ(Slurp(mount_ + "/f"), "one");
  Unmount();
  ASSERT_EQ(Shell(Pkramctl() + " rm " + region_ + " one").status, 0);
  const auto info = nlohmann::json::parse(Shell(Pkramctl() + " info --json " + region_).out);
  EXPECT_EQ(info["nodes"].size(), 1u);
}

TEST_F(RemountTest, SizeHoldsAsManyBytesOfLargeFilesAsItSays) {
  Mount("size=64m");
  struct statvfs st;
  ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
  EXPECT_EQ(st.f_blocks * st.f_frsize, uint64_t{64} << 20);
  EXPECT_EQ(Shell("head -c 64M /dev/zero > " + mount_ + "/big").status, 0);
  // A byte more than its size and slack does not fit.
  EXPECT_NE(Shell("head -c 2M /dev/zero > " + mount_ + "/more").status, 0);
  Unmount();
  Mount("size=128m");
  EXPECT_EQ(Shell("head -c 60M /dev/zero > " + mount_ + "/more").status, 0);
}

// All of an overlay's layers are on one mount, which is mounted again: files that were copied up
// are found each time it is asked for, on kernels that take an origin found by handle for stale,
// too.
TEST_F(RemountTest, OverlayfsGoesOnWithoutExport) {
  Mount("size=64m,noexport");
  const auto overlay = [this](const std::string& script) {
    return Shell("cd " + mount_ + " && unshare -m sh -ec 'mount -t overlay overlay -o " +
                 "lowerdir=lower,upperdir=upper,workdir=work m; " + script + "'");
  };
  ASSERT_EQ(Shell("cd " + mount_ + " && mkdir lower upper work m && echo below > lower/f").status,
            0);
  const Ran copied = overlay("echo changed > m/f");
  ASSERT_EQ(copied.status, 0) << copied.err;
  Kill();
  Mount("noexport");
  EXPECT_EQ(overlay("cat m/f; cat m/f; ls m").out, "changed\nchanged\nf\n");
}

// If the filesystem under the region is full, operations that make space still work.
TEST_F(RemountTest, SpaceIsMadeWhenTheRegionsFilesystemIsFull) {
  const std::string under = dir_ + "/under";
  ASSERT_EQ(Shell("mkdir " + under + " && mount -t tmpfs -o size=12m tmpfs " + under).status, 0);
  region_ = under + "/region";
  const Ran mounted = TryMount("size=256m");
  EXPECT_EQ(mounted.status, 0);
  EXPECT_THAT(mounted.err, testing::HasSubstr("has room for"));
  const std::string fill = "head -c 20M /dev/zero > ";
  ASSERT_EQ(Shell("cd " + mount_ +
                  " && head -c 4M /dev/zero > a && head -c 100k /dev/zero > b && "
                  "setfattr -n user.a -v 1 b && setfattr -n user.b -v 2 b && "
                  "setfacl -m u:7:rw b && touch c")
                .status,
            0);
  EXPECT_NE(Shell(fill + mount_ + "/full").status, 0);
  EXPECT_NE(Shell("head -c 100k /dev/zero > " + mount_ + "/more").status, 0);
  const Ran made = Shell("cd " + mount_ +
                         " && setfattr -x user.a b && chmod 600 b && "
                         "fallocate -p -o 4096 -l 8192 a && fallocate -p -o 1M -l 2M a && "
                         "truncate -s 5000 full && rm c");
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(Shell("head -c 1M /dev/zero > " + mount_ + "/again").status, 0);
  Unmount();
  EXPECT_EQ(Shell(Pkramctl() + " check " + region_).status, 0);
  // (The daemon may take a moment to be gone, once it has let go of the lock.)
  EXPECT_TRUE(Eventually([&] { return umount2(under.c_str(), 0) == 0 || errno != EBUSY; }));
}

// Somebody else's file fills the region's filesystem before it is mounted, and until after it
// is mounted again.
TEST_F(RemountTest, ItIsServedWhileOthersLeaveNoSpaceAtAll) {
  const std::string under = dir_ + "/under";
  ASSERT_EQ(Shell("mkdir " + under + " && mount -t tmpfs -o size=12m tmpfs " + under).status, 0);
  region_ = under + "/region";
  ASSERT_EQ(TryMount("size=256m").status, 0);
  ASSERT_EQ(Shell("cd " + mount_ +
                  " && head -c 4M /dev/zero > a && head -c 100k /dev/zero > b && "
                  "setfattr -n user.a -v 1 b && mkdir d && touch d/c && echo text > e")
                .status,
            0);
  for (const bool sealed : {true, false}) {
    SCOPED_TRACE(sealed);
    if (sealed) {
      Unmount();
    } else {
      Kill();
    }
    WaitUntilFree();
    EXPECT_NE(Shell("head -c 20M /dev/zero > " + under + "/theirs").status, 0);
    ASSERT_EQ(TryMount("size=256m").status, 0);
    EXPECT_NE(Shell("head -c 1M /dev/zero > " + mount_ + "/more").status, 0);
    EXPECT_EQ(Slurp(mount_ + "/e"), "text\n");
    const Ran made =
        Shell("cd " + mount_ + " && rm -f more && " +
              (sealed ? "setfattr -x user.a b && rm d/c && rmdir d && chmod 600 e"
                      : "fallocate -p -o 4096 -l 8192 a && truncate -s 5000 a && rm b"));
    EXPECT_EQ(made.status, 0) << made.err;
    const Manifest before = ManifestOf(mount_);
    Unmount();
    EXPECT_EQ(Shell(Pkramctl() + " check " + region_).status, 0);
    ASSERT_EQ(TryMount("size=256m").status, 0);
    EXPECT_EQ(FirstDifference(before, ManifestOf(mount_)), "");
    unlink((under + "/theirs").c_str());
  }
  Unmount();
  // (The daemon may take a moment to be gone, once it has let go of the lock.)
  EXPECT_TRUE(Eventually([&] { return umount2(under.c_str(), 0) == 0 || errno != EBUSY; }));
}

// A copy of a region's file may have holes where the region's pages are zeros.
TEST_F(RemountTest, ACopyWithHolesIsServedWhileThereIsNoSpaceForThem) {
  const std::string under = dir_ + "/under", theirs = under + "/theirs";
  ASSERT_EQ(Shell("mkdir " + under + " && mount -t tmpfs -o size=12m tmpfs " + under).status, 0);
  region_ = under + "/region";
  ASSERT_EQ(TryMount("size=256m").status, 0);
  const std::string file = mount_ + "/file";
  ASSERT_EQ(Shell("head -c 64k /dev/zero > " + file + " && echo text > " + mount_ + "/text").status,
            0);
  Unmount();
  WaitUntilFree();
  ASSERT_EQ(Shell("cd " + under + " && cp --sparse=always region copy && mv copy region").status,
            0);
  const auto fill = [&] { EXPECT_NE(Shell("head -c 20M /dev/zero >> " + theirs).status, 0); };
  fill();
  // Free slots of the journal are zeros.
  for (const Ran& ran : {Shell(Pkramctl() + " check " + region_), TryMount("size=256m")}) {
    EXPECT_THAT(ran.status, testing::AnyOf(2, 32));
    EXPECT_THAT(ran.err, testing::HasSubstr("no space for them: make space"));
  }
  ASSERT_EQ(Shell("truncate -s -1M " + theirs).status, 0);
  ASSERT_EQ(TryMount("size=256m").status, 0);
  fill();
  const std::string overwrite = "yes | head -c 20000 | dd conv=notrunc status=none of=" + file;
  for (int i = 0; i < 2; ++i) {
    const Ran ran = Shell(overwrite);
    EXPECT_NE(ran.status, 0);
    EXPECT_THAT(ran.err, testing::HasSubstr("No space left"));
  }
  EXPECT_EQ(Shell("truncate -s 6000 " + file + " && truncate -s 64k " + file).status, 0);
  EXPECT_TRUE(Slurp(file) == std::string(65536, '\0'));
  EXPECT_EQ(Slurp(mount_ + "/text"), "text\n");
  unlink(theirs.c_str());
  std::string expected(65536, '\0');
  for (size_t i = 0; i < 20000; ++i) expected[i] = i % 2 == 0 ? 'y' : '\n';
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Shell(overwrite).status, 0);
    EXPECT_TRUE(Slurp(file) == expected);
  }
  Unmount();
  EXPECT_TRUE(Eventually([&] { return umount2(under.c_str(), 0) == 0 || errno != EBUSY; }));
}

TEST_F(RemountTest, MemoryGoesBackWhenFilesAreDeleted) {
  Mount("size=256m");
  struct stat st;
  ASSERT_EQ(Shell("head -c 100M /dev/zero > " + mount_ + "/big").status, 0);
  ASSERT_EQ(stat(region_.c_str(), &st), 0);
  EXPECT_GT(st.st_blocks, 200000);
  ASSERT_EQ(unlink((mount_ + "/big").c_str()), 0);
  // The kernel's forget comes after unlink's reply, and the file's end is cut off last.
  EXPECT_TRUE(Eventually([&] {
    return stat(region_.c_str(), &st) == 0 && st.st_size < 4 << 20 && st.st_blocks < 2000;
  })) << st.st_size
      << ", " << st.st_blocks << " blocks";
}

TEST_F(RemountTest, MlockKeepsTheContentsInMemory) {
  Mount("size=64m,mlock");
  Spill(mount_ + "/f", std::string(8 << 20, 'm'));
  // "Locked:" of the region's mapping.
  std::istringstream maps(Slurp("/proc/" + std::to_string(DaemonPid()) + "/smaps"));
  bool ours = false;
  long long locked = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ')) ours = line.find(region_) != std::string::npos;
    if (ours && line.rfind("Locked:", 0) == 0) locked += std::stoll(line.substr(7));
  }
  EXPECT_GE(locked, 8 << 10);
}

TEST_F(RemountTest, AnOrdinaryUserMountsThroughFusermount) {
  // As udev sets it; some containers do not.
  ASSERT_EQ(chmod("/dev/fuse", 0666), 0);
  // The user must be able to run it, wherever it was built.
  ASSERT_EQ(Shell("install -m 755 " + Pkramfs() + " " + dir_ + "/pkramfs && chown nobody " + mount_)
                .status,
            0);
  const auto as_user = [&](const std::string& command) {
    return Shell("setpriv --reuid=65534 --regid=65534 --clear-groups sh -c '" + command + "'");
  };
  const Ran mounted = as_user(dir_ + "/pkramfs " + region_ + " " + mount_ + " -o size=16m");
  ASSERT_EQ(mounted.status, 0) << mounted.err;
  EXPECT_EQ(as_user("echo mine > " + mount_ + "/f && cat " + mount_ + "/f").out, "mine\n");
  EXPECT_EQ(as_user("stat -c %u " + mount_ + "/f").out, "65534\n");
  ASSERT_EQ(as_user("fusermount3 -u " + mount_).status, 0);
  WaitUntilFree();
  ASSERT_EQ(as_user(dir_ + "/pkramfs " + region_ + " " + mount_).status, 0);
  EXPECT_EQ(as_user("cat " + mount_ + "/f").out, "mine\n");
  ASSERT_EQ(as_user("fusermount3 -u " + mount_).status, 0);
}

TEST_F(RemountTest, AMemfdIsARegion) {
  const int fd = memfd_create("region", 0);
  region_ = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
  Mount("size=16m");
  Spill(mount_ + "/f", "in a memfd");
  Kill();
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/f"), "in a memfd");
  Unmount();
  close(fd);
}

}  // namespace
}  // namespace pkramfs
