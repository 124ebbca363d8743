// Errors that the manual pages list and that no other file asks for: bad pointers, bad
// descriptors, unknown flags, limits of paths, other filesystems.
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <csignal>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

class ErrorRules : public Conformance {
 public:
  void Check(const std::function<long(ErrorRules&)>& call, int error) {
    NEEDS_KERNEL();
    MakeFile("f", "contents");
    ASSERT_EQ(fs().Mkdir("d", 0755), 0);
    Settle();
    errno = 0;
    const long result = call(*this);
    EXPECT_EQ(result < 0 ? errno : 0, error);
    EXPECT_EQ(List("."), (Names{"f", "d"}));
    EXPECT_EQ(Text("f"), "contents");
  }
};

// Where nothing is mapped; the compiler must not see that.
template <typename T = char>
T* Nowhere() {
  static volatile uintptr_t nowhere = 0x10;
  return reinterpret_cast<T*>(nowhere);
}

const bool kErrorRulesRegistered = [] {
  using T = ErrorRules;
  struct Row {
    const char* name;
    int error;
    std::function<long(T&)> call;
  };
  constexpr int kNone = 1 << 20;  // no descriptor
  const Row rows[] = {
      {"open_of_nowhere", EFAULT, [](T&) { return open(Nowhere(), O_RDONLY); }},
      {"creat_of_nowhere", EFAULT, [](T&) { return open(Nowhere(), O_CREAT | O_WRONLY, 0644); }},
      {"mkdir_of_nowhere", EFAULT, [](T&) { return mkdir(Nowhere(), 0755); }},
      {"mknod_of_nowhere", EFAULT, [](T&) { return mknod(Nowhere(), S_IFIFO, 0); }},
      {"unlink_of_nowhere", EFAULT, [](T&) { return unlink(Nowhere()); }},
      {"rmdir_of_nowhere", EFAULT, [](T&) { return rmdir(Nowhere()); }},
      {"symlink_of_nowhere", EFAULT,
       [](T& t) { return symlink(Nowhere(), t.Path("new").c_str()); }},
      {"symlink_to_nowhere", EFAULT, [](T&) { return symlink("t", Nowhere()); }},
      {"link_of_nowhere", EFAULT, [](T& t) { return link(Nowhere(), t.Path("new").c_str()); }},
      {"link_to_nowhere", EFAULT, [](T& t) { return link(t.Path("f").c_str(), Nowhere()); }},
      {"rename_of_nowhere", EFAULT, [](T& t) { return rename(Nowhere(), t.Path("new").c_str()); }},
      {"rename_to_nowhere", EFAULT, [](T& t) { return rename(t.Path("f").c_str(), Nowhere()); }},
      {"stat_into_nowhere", EFAULT,
       [](T& t) { return syscall(SYS_newfstatat, AT_FDCWD, t.Path("f").c_str(), Nowhere(), 0); }},
      {"chmod_of_nowhere", EFAULT, [](T&) { return chmod(Nowhere(), 0600); }},
      {"chown_of_nowhere", EFAULT, [](T&) { return chown(Nowhere(), 0, 0); }},
      {"truncate_of_nowhere", EFAULT, [](T&) { return truncate(Nowhere(), 0); }},
      {"readlink_of_nowhere", EFAULT,
       [](T&) {
         char b[8];
         return static_cast<long>(readlink(Nowhere(), b, 8));
       }},
      {"utimensat_from_nowhere", EFAULT,
       [](T& t) { return utimensat(AT_FDCWD, t.Path("f").c_str(), Nowhere<timespec>(), 0); }},
      {"read_into_nowhere", EFAULT,
       [](T& t) { return static_cast<long>(pread(t.Open("f"), Nowhere(), 4, 0)); }},
      {"write_from_nowhere", EFAULT,
       [](T& t) { return static_cast<long>(pwrite(t.Open("f"), Nowhere(), 4, 0)); }},
      {"setxattr_from_nowhere", EFAULT,
       [](T& t) { return setxattr(t.Path("f").c_str(), "user.a", Nowhere(), 4, 0); }},
      {"getxattr_of_nowhere", EFAULT,
       [](T& t) {
         return static_cast<long>(getxattr(t.Path("f").c_str(), Nowhere(), nullptr, 0));
       }},
      {"read_of_no_descriptor", EBADF,
       [](T&) {
         char b;
         return static_cast<long>(read(kNone, &b, 1));
       }},
      {"write_of_no_descriptor", EBADF, [](T&) { return static_cast<long>(write(kNone, "x", 1)); }},
      {"ftruncate_of_no_descriptor", EBADF, [](T&) { return ftruncate(kNone, 0); }},
      {"fsync_of_no_descriptor", EBADF, [](T&) { return fsync(kNone); }},
      {"fchmod_of_no_descriptor", EBADF, [](T&) { return fchmod(kNone, 0600); }},
      {"fchown_of_no_descriptor", EBADF, [](T&) { return fchown(kNone, 0, 0); }},
      {"fallocate_of_no_descriptor", EBADF, [](T&) { return fallocate(kNone, 0, 0, 1); }},
      {"lseek_of_no_descriptor", EBADF, [](T&) { return lseek(kNone, 0, SEEK_DATA); }},
      {"openat_of_no_descriptor", EBADF, [](T&) { return openat(kNone, "f", O_RDONLY); }},
      {"unlinkat_of_no_descriptor", EBADF, [](T&) { return unlinkat(kNone, "f", 0); }},
      {"renameat_of_no_descriptor", EBADF, [](T&) { return renameat(kNone, "f", kNone, "g"); }},
      {"linkat_of_no_descriptor", EBADF, [](T&) { return linkat(kNone, "f", kNone, "g", 0); }},
      {"mkdirat_of_no_descriptor", EBADF, [](T&) { return mkdirat(kNone, "new", 0755); }},
      {"openat_of_a_file", ENOTDIR, [](T& t) { return openat(t.Open("f"), "x", O_RDONLY); }},
      {"unlinkat_of_a_file", ENOTDIR, [](T& t) { return unlinkat(t.Open("f"), "x", 0); }},
      {"mkdirat_of_a_file", ENOTDIR, [](T& t) { return mkdirat(t.Open("f"), "x", 0755); }},
      {"symlinkat_of_a_file", ENOTDIR, [](T& t) { return symlinkat("t", t.Open("f"), "x"); }},
      {"linkat_of_a_file", ENOTDIR,
       [](T& t) { return linkat(t.Open("f"), "x", AT_FDCWD, "y", 0); }},
      {"renameat_of_a_file", ENOTDIR,
       [](T& t) { return renameat(t.Open("f"), "x", AT_FDCWD, "y"); }},
      {"fstatat_of_a_file", ENOTDIR,
       [](T& t) {
         struct stat st;
         return fstatat(t.Open("f"), "x", &st, 0);
       }},
      {"fchmodat_of_a_file", ENOTDIR, [](T& t) { return fchmodat(t.Open("f"), "x", 0600, 0); }},
      {"utimensat_of_a_file", ENOTDIR,
       [](T& t) { return utimensat(t.Open("f"), "x", nullptr, 0); }},
      {"fchdir_of_a_file", ENOTDIR, [](T& t) { return fchdir(t.Open("f")); }},
      {"chdir_of_a_file", ENOTDIR, [](T& t) { return chdir(t.Path("f").c_str()); }},
      {"unlinkat_with_an_unknown_flag", EINVAL,
       [](T& t) { return unlinkat(AT_FDCWD, t.Path("f").c_str(), 1 << 20); }},
      {"linkat_with_an_unknown_flag", EINVAL,
       [](T& t) {
         return linkat(AT_FDCWD, t.Path("f").c_str(), AT_FDCWD, t.Path("g").c_str(), 1 << 20);
       }},
      {"utimensat_with_an_unknown_flag", EINVAL,
       [](T& t) { return utimensat(AT_FDCWD, t.Path("f").c_str(), nullptr, 1 << 20); }},
      {"fstatat_with_an_unknown_flag", EINVAL,
       [](T& t) {
         struct stat st;
         return fstatat(AT_FDCWD, t.Path("f").c_str(), &st, 1 << 20);
       }},
      {"renameat2_with_an_unknown_flag", EINVAL,
       [](T& t) {
         return renameat2(AT_FDCWD, t.Path("f").c_str(), AT_FDCWD, t.Path("g").c_str(), 1 << 20);
       }},
      {"fallocate_with_an_unknown_flag", EOPNOTSUPP,
       [](T& t) { return fallocate(t.Open("f"), 1 << 20, 0, 1); }},
      {"copy_file_range_with_a_flag", EINVAL,
       [](T& t) {
         return static_cast<long>(
             copy_file_range(t.Open("f"), nullptr, t.Open("f"), nullptr, 1, 1));
       }},
      {"readlink_into_nothing", EINVAL,
       [](T& t) {
         char b;
         return static_cast<long>(syscall(SYS_readlinkat, AT_FDCWD, t.Path("f").c_str(), &b, 0));
       }},
      {"rename_to_another_filesystem", EXDEV,
       [](T& t) { return rename(t.Path("f").c_str(), "/proc/f"); }},
      {"link_to_another_filesystem", EXDEV,
       [](T& t) { return link(t.Path("f").c_str(), "/tmp/never"); }},
      {"linkat_of_a_directory", EPERM,
       [](T& t) { return link(t.Path("d").c_str(), t.Path("e").c_str()); }},
      {"execve_of_a_directory", EACCES,
       [](T& t) { return execl(t.Path("d").c_str(), "d", nullptr); }},
      {"execve_of_what_is_not_executable", EACCES,
       [](T& t) { return execl(t.Path("f").c_str(), "f", nullptr); }},
  };
  for (const Row& row : rows) {
    Register<ErrorRules>("ErrorRules", row.name,
                         [row](ErrorRules& t) { t.Check(row.call, row.error); });
  }
  return true;
}();

TEST_F(ErrorRules, NamesAndPathsUpToTheirLimits) {
  NEEDS_KERNEL();
  const std::string name(255, 'n');
  MakeFile(name, "x");
  // "./" as often as it goes, 4095 bytes in all.
  std::string path = Path(name);
  while (path.size() + 2 <= 4095) path.insert(path.rfind('/'), "/.");
  while (path.size() < 4095) path.insert(path.rfind('/'), "/");
  Settle();
  struct stat st;
  EXPECT_EQ(stat(path.c_str(), &st), 0) << std::strerror(errno);
  path.insert(path.rfind('/'), "/");
  EXPECT_EQ(stat(path.c_str(), &st), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_F(ErrorRules, FortySymlinksAreFollowed) {
  MakeFile("s0", "x");
  for (int i = 1; i <= 41; ++i) {
    ASSERT_EQ(fs().Symlink("s" + std::to_string(i - 1), "s" + std::to_string(i)), 0);
  }
  Settle();
  struct stat st;
  EXPECT_EQ(fs().Stat("s40", &st), 0);
  EXPECT_EQ(fs().Stat("s41", &st), -ELOOP);
}

TEST_F(ErrorRules, ARunningProgramIsNotWrittenTo) {
  NEEDS_KERNEL();
  ASSERT_EQ(std::system(("cp /bin/sleep " + Path("sleep")).c_str()), 0);
  Settle();
  const std::string program = Path("sleep");
  const pid_t pid = fork();
  if (pid == 0) {
    execl(program.c_str(), "sleep", "1000", nullptr);
    _exit(1);
  }
  // Until it runs.
  EXPECT_TRUE(Eventually([&] {
    char link[4096] = {};
    const std::string exe = "/proc/" + std::to_string(pid) + "/exe";
    return readlink(exe.c_str(), link, sizeof(link) - 1) > 0 && program == link;
  }));
  EXPECT_EQ(fs().Open("sleep", O_WRONLY), -ETXTBSY);
  EXPECT_EQ(fs().Truncate("sleep", 0), -ETXTBSY);
  EXPECT_EQ(fs().Unlink("sleep"), 0);
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST_F(ErrorRules, TheFileSizeLimitIsKept) {
  NEEDS_KERNEL();
  const int fd = MakeOpen("f");
  rlimit limit, small;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  small = limit;
  small.rlim_cur = 5000;
  signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_EQ(fs().Write(fd, std::string(6000, 'x'), 0), 5000);
  EXPECT_EQ(fs().Write(fd, "x", 5000), -EFBIG);
  EXPECT_EQ(fs().Ftruncate(fd, 5001), -EFBIG);
  EXPECT_EQ(fs().Truncate("f", 5001), -EFBIG);
  EXPECT_EQ(fs().Fallocate(fd, 0, 0, 6000), -EFBIG);
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_EQ(Of("f").st_size, 5000);
}

}  // namespace
}  // namespace pkramfs
