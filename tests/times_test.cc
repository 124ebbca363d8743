// Times of files, beside tmpfs: which call sets which, that they run forward, that one which was
// given stays, and that a remount finds them as they were.  Both with and without writeback.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/xattr.h>

#include "tests/killer.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using Time = std::pair<int64_t, int64_t>;

Time Of(const timespec& t) { return {t.tv_sec, t.tv_nsec}; }

struct Times {
  Time atime, mtime, ctime;
};

Times TimesOf(const std::string& path) {
  struct stat st {};
  EXPECT_EQ(lstat(path.c_str(), &st), 0) << path;
  return {Of(st.st_atim), Of(st.st_mtim), Of(st.st_ctim)};
}

// Each kind of mount, and a tmpfs beside it.
class TimesTest : public MountTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    Mount(GetParam());
    tmpfs_ = dir_ + "/tmpfs";
    mkdir(tmpfs_.c_str(), 0755);
    ASSERT_EQ(mount("none", tmpfs_.c_str(), "tmpfs", 0, "size=16m"), 0);
  }
  void TearDown() override {
    umount2(tmpfs_.c_str(), MNT_DETACH);
    MountTest::TearDown();
  }
  std::string tmpfs_;
};

class OpenFile {
 public:
  OpenFile(const std::string& path, int flags) : fd_(open(path.c_str(), flags, 0644)) {
    EXPECT_GE(fd_, 0) << path << ": " << std::strerror(errno);
  }
  ~OpenFile() { close(fd_); }
  operator int() const { return fd_; }

 private:
  const int fd_;
};

void StoreAndSend(int fd) {
  void* const at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(at, MAP_FAILED);
  *static_cast<char*>(at) = 's';
  EXPECT_EQ(msync(at, 4096, MS_SYNC), 0);
  munmap(at, 4096);
}

// rw- for the owner, r-- for others, and `group` for the group.
void SetAcl(const std::string& path, uint16_t group, const char* name = "system.posix_acl_access") {
  constexpr uint32_t kNobody = ACL_UNDEFINED_ID;
  const struct {
    uint32_t version = POSIX_ACL_XATTR_VERSION;
    posix_acl_xattr_entry entries[3];
  } acl{.entries = {
            {ACL_USER_OBJ, 6, kNobody}, {ACL_GROUP_OBJ, group, kNobody}, {ACL_OTHER, 4, kNobody}}};
  EXPECT_EQ(setxattr(path.c_str(), name, &acl, sizeof acl, 0), 0) << std::strerror(errno);
}

// Long ago.
constexpr timespec kThen[] = {{100, 3}, {100, 3}};

struct Call {
  const char* name;
  std::function<void(const std::string& directory)> run;
};

// Each of files "f" (of 10,000 bytes), "g", "d/" and "l" (a link) that are there.
std::vector<Call> Calls() {
  const auto on_f = [](int flags, auto run) {
    return [flags, run](const std::string& d) {
      const OpenFile fd(d + "/f", flags);
      run(static_cast<int>(fd));
    };
  };
  constexpr timespec kGiven[] = {{1000, 5}, {2000, 7}};
  constexpr timespec kNow[] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  return {
      {"write", on_f(O_WRONLY, [](int fd) { EXPECT_EQ(pwrite(fd, "x", 1, 5), 1); })},
      {"append", on_f(O_WRONLY | O_APPEND, [](int fd) { EXPECT_EQ(write(fd, "x", 1), 1); })},
      {"write of nothing", on_f(O_WRONLY, [](int fd) { EXPECT_EQ(write(fd, "", 0), 0); })},
      {"write, O_SYNC", on_f(O_WRONLY | O_SYNC, [](int fd) { EXPECT_EQ(write(fd, "x", 1), 1); })},
      {"write, O_DIRECT", on_f(O_WRONLY | O_DIRECT,
                               [](int fd) {
                                 alignas(4096) static const char bytes[4096] = {};
                                 EXPECT_EQ(pwrite(fd, bytes, 4096, 4096), 4096);
                               })},
      {"sendfile",
       [](const std::string& d) {
         const OpenFile from(d + "/f", O_RDONLY), to(d + "/g", O_WRONLY);
         EXPECT_EQ(sendfile(to, from, nullptr, 5000), 5000);
       }},
      {"splice",
       [](const std::string& d) {
         const OpenFile to(d + "/g", O_WRONLY);
         int pipe[2];
         EXPECT_EQ(pipe2(pipe, O_CLOEXEC), 0);
         EXPECT_EQ(::write(pipe[1], "xyz", 3), 3);
         EXPECT_EQ(splice(pipe[0], nullptr, to, nullptr, 3, 0), 3);
         close(pipe[0]);
         close(pipe[1]);
       }},
      {"open, O_TRUNC", on_f(O_WRONLY | O_TRUNC, [](int) {})},
      {"open, O_TRUNC of nothing",
       [](const std::string& d) {
         OpenFile(d + "/g", O_WRONLY | O_TRUNC);
         utimensat(-1, (d + "/g").c_str(), kThen, 0);
         WaitForTheFileClock();
         OpenFile(d + "/g", O_WRONLY | O_TRUNC);
       }},
      {"ftruncate to the same", on_f(O_WRONLY, [](int fd) { EXPECT_EQ(ftruncate(fd, 10000), 0); })},
      {"ftruncate to less", on_f(O_WRONLY, [](int fd) { EXPECT_EQ(ftruncate(fd, 50), 0); })},
      {"ftruncate to more", on_f(O_WRONLY, [](int fd) { EXPECT_EQ(ftruncate(fd, 50000), 0); })},
      {"truncate", [](const std::string& d) { EXPECT_EQ(truncate((d + "/f").c_str(), 7), 0); }},
      {"fallocate", on_f(O_WRONLY, [](int fd) { EXPECT_EQ(fallocate(fd, 0, 0, 99999), 0); })},
      {"fallocate of what is there",
       on_f(O_WRONLY, [](int fd) { EXPECT_EQ(fallocate(fd, 0, 0, 5000), 0); })},
      {"fallocate behind the end",
       on_f(O_WRONLY,
            [](int fd) { EXPECT_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, 50000, 5000), 0); })},
      {"punch", on_f(O_WRONLY,
                     [](int fd) {
                       EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096),
                                 0);
                     })},
      {"copy_file_range",
       [](const std::string& d) {
         const OpenFile from(d + "/f", O_RDONLY), to(d + "/g", O_WRONLY);
         EXPECT_EQ(copy_file_range(from, nullptr, to, nullptr, 4096, 0), 4096);
       }},
      {"utimensat", [=](const std::string& d) { utimensat(-1, (d + "/f").c_str(), kGiven, 0); }},
      {"utimensat of one",
       [](const std::string& d) {
         constexpr timespec kOne[] = {{1000, 5}, {0, UTIME_OMIT}};
         utimensat(-1, (d + "/f").c_str(), kOne, 0);
       }},
      {"utimensat of the other",
       [](const std::string& d) {
         constexpr timespec kOne[] = {{0, UTIME_OMIT}, {2000, 7}};
         utimensat(-1, (d + "/f").c_str(), kOne, 0);
       }},
      {"utimensat of none",
       [](const std::string& d) {
         constexpr timespec kNone[] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
         utimensat(-1, (d + "/f").c_str(), kNone, 0);
       }},
      {"utimensat to now",
       [=](const std::string& d) { utimensat(-1, (d + "/f").c_str(), kNow, 0); }},
      {"futimens", on_f(O_RDONLY, [=](int fd) { futimens(fd, kGiven); })},
      {"write, then utimensat", on_f(O_WRONLY,
                                     [=](int fd) {
                                       EXPECT_EQ(write(fd, "xyz", 3), 3);
                                       futimens(fd, kGiven);
                                     })},
      {"utimensat of a link",
       [=](const std::string& d) {
         utimensat(-1, (d + "/l").c_str(), kGiven, AT_SYMLINK_NOFOLLOW);
       }},
      {"chmod", [](const std::string& d) { chmod((d + "/f").c_str(), 0600); }},
      {"chmod to the same", [](const std::string& d) { chmod((d + "/f").c_str(), 0644); }},
      {"chown", [](const std::string& d) { (void)!chown((d + "/f").c_str(), 5, 6); }},
      {"chown of nothing", [](const std::string& d) { (void)!chown((d + "/f").c_str(), -1, -1); }},
      {"setxattr", [](const std::string& d) { setxattr((d + "/f").c_str(), "user.a", "1", 1, 0); }},
      {"removexattr of none",
       [](const std::string& d) { removexattr((d + "/f").c_str(), "user.none"); }},
      {"setfacl", [](const std::string& d) { SetAcl(d + "/f", 6); }},
      {"setfacl of what the mode says", [](const std::string& d) { SetAcl(d + "/f", 4); }},
      {"setfacl of a directory's files",
       [](const std::string& d) { SetAcl(d + "/d", 7, "system.posix_acl_default"); }},
      {"setfacl -b of none",
       [](const std::string& d) { removexattr((d + "/f").c_str(), "system.posix_acl_access"); }},
      {"link", [](const std::string& d) { (void)!link((d + "/f").c_str(), (d + "/h").c_str()); }},
      {"symlink", [](const std::string& d) { (void)!symlink("f", (d + "/s").c_str()); }},
      {"unlink", [](const std::string& d) { unlink((d + "/g").c_str()); }},
      {"rename", [](const std::string& d) { rename((d + "/f").c_str(), (d + "/d/f").c_str()); }},
      {"rename over", [](const std::string& d) { rename((d + "/f").c_str(), (d + "/g").c_str()); }},
      {"rename, both ways",
       [](const std::string& d) {
         EXPECT_EQ(renameat2(-1, (d + "/f").c_str(), -1, (d + "/g").c_str(), RENAME_EXCHANGE), 0);
       }},
      {"rename to the same",
       [](const std::string& d) { rename((d + "/f").c_str(), (d + "/f").c_str()); }},
      {"rename that leaves a whiteout",
       [](const std::string& d) {
         EXPECT_EQ(renameat2(-1, (d + "/f").c_str(), -1, (d + "/d/f").c_str(), RENAME_WHITEOUT), 0);
       }},
      {"mkdir", [](const std::string& d) { mkdir((d + "/e").c_str(), 0755); }},
      {"rmdir", [](const std::string& d) { rmdir((d + "/d").c_str()); }},
      {"create", [](const std::string& d) { OpenFile(d + "/n", O_CREAT | O_WRONLY); }},
      {"mknod", [](const std::string& d) { mknod((d + "/p").c_str(), S_IFIFO | 0644, 0); }},
      {"what fails", [](const std::string& d) { mkdir((d + "/f").c_str(), 0755); }},
  };
}

// Files with times of long ago; and which of these times a call changes.
std::string WhatChanges(const std::string& directory, const Call& call) {
  mkdir(directory.c_str(), 0755);
  Spill(directory + "/f", std::string(10000, 'f'));
  Spill(directory + "/g", "g");
  mkdir((directory + "/d").c_str(), 0755);
  (void)!symlink("f", (directory + "/l").c_str());
  const std::string names[] = {"/f", "/g", "/d", "/l", ""};
  for (const std::string& name : names) {
    utimensat(-1, (directory + name).c_str(), kThen, AT_SYMLINK_NOFOLLOW);
  }
  std::map<std::string, Times> before;
  for (const std::string& name : names) before[name] = TimesOf(directory + name);
  WaitForTheFileClock();
  call.run(directory);
  std::string changes;
  for (const std::string& name : names) {
    if (access((directory + name).c_str(), F_OK) != 0) continue;
    const Times now = TimesOf(directory + name);
    changes += name + ":";
    if (now.mtime != before[name].mtime) changes += now.mtime.first < 5000 ? "M" : "m";
    if (now.ctime != before[name].ctime) changes += "c";
    // atime is not compared but where it was given (semantics.md), and not of a link, which
    // access(2) has followed.
    if (name != "/l" && now.atime != before[name].atime && now.atime.first < 5000) changes += "A";
    changes += " ";
  }
  return changes;
}

TEST_P(TimesTest, EachCallSetsWhatItSetsOnTmpfs) {
  // Since Linux 6.6 a tmpfs has user attributes, and takes O_DIRECT.
  const bool has_attributes = setxattr(tmpfs_.c_str(), "user.a", "1", 1, 0) == 0;
  const int direct = open((tmpfs_ + "/direct").c_str(), O_CREAT | O_RDWR | O_DIRECT, 0600);
  if (direct >= 0) close(direct);
  int i = 0;
  for (const Call& call : Calls()) {
    if (!has_attributes && std::string(call.name) == "setxattr") continue;
    if (direct < 0 && std::string(call.name) == "write, O_DIRECT") continue;
    const std::string name = "/" + std::to_string(i++);
    EXPECT_EQ(WhatChanges(mount_ + name, call), WhatChanges(tmpfs_ + name, call)) << call.name;
  }
}

// tmpfs has no zero range: it sets what punching a hole sets there.
TEST_P(TimesTest, ZeroRangeSetsWhatPunchingSetsOnTmpfs) {
  const auto allocate = [](int mode) {
    return Call{"", [mode](const std::string& d) {
                  const OpenFile fd(d + "/f", O_WRONLY);
                  EXPECT_EQ(fallocate(fd, mode, 100, 5000), 0) << std::strerror(errno);
                }};
  };
  EXPECT_EQ(WhatChanges(mount_ + "/z", allocate(FALLOC_FL_ZERO_RANGE)),
            WhatChanges(tmpfs_ + "/z", allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)));
}

// Each way to have stores to a mapping sent, with its name.
TEST_P(TimesTest, AGivenMtimeStaysWhenTheMappingIsSent) {
  constexpr timespec kGiven[] = {{1000, 5}, {2000, 7}};
  for (const std::string how : {"munmap", "msync", "fsync", "close", "exit", "sync"}) {
    const std::string path = mount_ + "/" + how;
    Spill(path, std::string(8192, 'a'));
    const pid_t child = fork();
    if (child == 0) {
      const int fd = open(path.c_str(), O_RDWR);
      char* const at =
          static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
      at[0] = at[5000] = 'b';
      if (futimens(fd, kGiven) != 0) _exit(1);
      if (how == "munmap") munmap(at, 8192);
      if (how == "msync" && msync(at, 8192, MS_SYNC) != 0) _exit(2);
      if (how == "fsync" && fsync(fd) != 0) _exit(3);
      if (how == "close") close(fd);
      if (how == "sync") sync();
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << how;
    const OpenFile fd(path, O_RDWR);
    ASSERT_EQ(fsync(fd), 0);
    EXPECT_EQ(TimesOf(path).mtime, (Time{2000, 7})) << how;
    EXPECT_EQ(Slurp(path).substr(5000, 2), "ba") << how;
    // A write sets it again.
    ASSERT_EQ(pwrite(fd, "c", 1, 0), 1);
    EXPECT_GT(TimesOf(path).mtime.first, 2000) << how;
  }
}

// One file after another, here and on tmpfs in turn.
TEST_P(TimesTest, TheyRunForwardAcrossFilesystems) {
  Time last{0, 0};
  const auto later = [&last](const std::string& path, const char* what) {
    const Times now = TimesOf(path);
    EXPECT_GE(now.mtime, last) << what << " " << path;
    EXPECT_GE(now.ctime, now.mtime) << what << " " << path;
    last = std::max(now.mtime, now.ctime);
  };
  for (int i = 0; i < 300 && !HasFailure(); ++i) {
    for (const std::string& directory : {mount_, tmpfs_}) {
      const std::string path = directory + "/" + std::to_string(i);
      const OpenFile fd(path, O_CREAT | O_EXCL | O_WRONLY);
      later(path, "created");
      ASSERT_EQ(write(fd, "x", 1), 1);
      later(path, "written");
      ASSERT_EQ(ftruncate(fd, 100), 0);
      later(path, "truncated");
      const std::string made = path + "d";
      ASSERT_EQ(mkdir(made.c_str(), 0755), 0);
      later(made, "made");
    }
  }
}

TEST_P(TimesTest, ARemountFindsThemAsTheyWere) {
  std::map<std::string, Times> before;
  int i = 0;
  for (const Call& call : Calls()) WhatChanges(mount_ + "/" + std::to_string(i++), call);
  for (int k = 0; k < 20; ++k) Spill(mount_ + "/w" + std::to_string(k), std::string(5000, 'w'));
  // Of a mapping, with a time that was given, and without.
  for (const bool gives : {false, true}) {
    const OpenFile fd(mount_ + "/w" + std::to_string(gives), O_RDWR);
    StoreAndSend(fd);
    if (gives) {
      EXPECT_EQ(futimens(fd, kThen), 0);
    }
  }
  std::istringstream all(Shell("find " + mount_ + " -mindepth 1").out);
  for (std::string path; std::getline(all, path);) before[path] = TimesOf(path);
  EXPECT_GT(before.size(), 150u);
  const auto expect_the_same = [&] {
    for (const auto& [path, times] : before) {
      const Times now = TimesOf(path);
      EXPECT_EQ(now.atime, times.atime) << path;
      EXPECT_EQ(now.mtime, times.mtime) << path;
      EXPECT_EQ(now.ctime, times.ctime) << path;
    }
  };
  ASSERT_TRUE(KillOne(Victim::kServer, region_));
  expect_the_same();
  Unmount();
  Mount(GetParam());
  expect_the_same();
  Kill();
  WaitUntilFree();
  Mount(GetParam());
  expect_the_same();
}

// tmpfs does not: it is not told of stores (semantics.md).
TEST_P(TimesTest, AStoreToAMappingSetsTheMtimeWhenItIsSent) {
  const OpenFile fd(mount_ + "/f", O_CREAT | O_RDWR);
  ASSERT_EQ(ftruncate(fd, 8192), 0);
  const Times before = TimesOf(mount_ + "/f");
  WaitForTheFileClock();
  StoreAndSend(fd);
  EXPECT_GT(TimesOf(mount_ + "/f").mtime, before.mtime);
  EXPECT_GT(TimesOf(mount_ + "/f").ctime, before.ctime);
}

INSTANTIATE_TEST_SUITE_P(Modes, TimesTest,
                         testing::Values("size=64m", "size=64m,writeback",
                                         "size=64m,writeback,sync"));

}  // namespace
}  // namespace pkramfs
