// What kernels build on a filesystem: locks, leases, notification, file handles, mounts
// on and of it.
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <csignal>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

class SystemRules : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    NEEDS_KERNEL();
  }
  // What a child process comes to.
  static int InChild(const std::function<int()>& fn) {
    const pid_t pid = fork();
    if (pid == 0) _exit(fn());
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
};

// --- Locks ---------------------------------------------------------------------------

TEST_F(SystemRules, FlockIsOfTheOpenFile) {
  ON_A_KERNEL();
  MakeFile("f");
  Settle();
  const int a = Open("f"), b = Open("f");
  EXPECT_EQ(flock(a, LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(ErrnoOf(flock(b, LOCK_SH | LOCK_NB)), EWOULDBLOCK);
  EXPECT_EQ(flock(a, LOCK_SH | LOCK_NB), 0);
  EXPECT_EQ(flock(b, LOCK_SH | LOCK_NB), 0);
  EXPECT_EQ(ErrnoOf(flock(a, LOCK_EX | LOCK_NB)), EWOULDBLOCK);
  fs().Close(b);
  EXPECT_EQ(flock(a, LOCK_EX | LOCK_NB), 0);
}

TEST_F(SystemRules, PosixLocksAreOfTheProcess) {
  ON_A_KERNEL();
  MakeFile("f", std::string(100, 'x'));
  Settle();
  const int fd = Open("f");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 10;
  lock.l_len = 20;
  ASSERT_EQ(fcntl(fd, F_SETLK, &lock), 0);
  const std::string path = Path("f");
  const pid_t parent = getpid();
  EXPECT_EQ(InChild([&] {
              const int mine = open(path.c_str(), O_RDWR);
              struct flock other {};
              other.l_type = F_RDLCK;
              other.l_whence = SEEK_SET;
              other.l_start = 29;
              other.l_len = 1;
              if (fcntl(mine, F_SETLK, &other) == 0 || errno != EAGAIN) return 1;
              struct flock who = other;
              if (fcntl(mine, F_GETLK, &who) != 0 || who.l_pid != parent) return 2;
              other.l_start = 30;
              return fcntl(mine, F_SETLK, &other) == 0 ? 0 : 3;
            }),
            0);
  // Closing any descriptor of the file gives the lock up.
  fs().Close(Open("f"));
  EXPECT_EQ(InChild([&] {
              const int mine = open(path.c_str(), O_RDWR);
              struct flock other = {};
              other.l_type = F_WRLCK;
              return fcntl(mine, F_SETLK, &other) == 0 ? 0 : 1;
            }),
            0);
}

TEST_F(SystemRules, OpenFileLocksAreOfTheDescription) {
  ON_A_KERNEL();
  MakeFile("f");
  const int a = Open("f"), b = Open("f");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  EXPECT_EQ(fcntl(a, F_OFD_SETLK, &lock), 0);
  struct flock other {};
  other.l_type = F_RDLCK;
  EXPECT_EQ(ErrnoOf(fcntl(b, F_OFD_SETLK, &other)), EAGAIN);
  fs().Close(a);
  EXPECT_EQ(fcntl(b, F_OFD_SETLK, &other), 0);
}

TEST_F(SystemRules, AWaitingLockIsGranted) {
  ON_A_KERNEL();
  MakeFile("f");
  const std::string path = Path("f");
  const int fd = Open("f");
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  const pid_t waiter = fork();
  if (waiter == 0) {
    const int mine = open(path.c_str(), O_RDWR);
    _exit(flock(mine, LOCK_EX) == 0 ? 0 : 1);
  }
  usleep(20000);
  EXPECT_EQ(flock(fd, LOCK_UN), 0);
  int status = -1;
  waitpid(waiter, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(SystemRules, LeasesAreBroken) {
  ON_A_KERNEL();
  MakeFile("f");
  Settle();
  const int fd = Open("f", O_RDONLY);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGIO);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  ASSERT_EQ(fcntl(fd, F_SETLEASE, F_RDLCK), 0) << std::strerror(errno);
  EXPECT_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
  const std::string path = Path("f");
  const pid_t writer = fork();
  if (writer == 0) _exit(open(path.c_str(), O_WRONLY) >= 0 ? 0 : 1);
  const timespec patience{120, 0};
  EXPECT_EQ(sigtimedwait(&set, nullptr, &patience), SIGIO);
  EXPECT_EQ(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
  int status = -1;
  waitpid(writer, &status, 0);
  EXPECT_EQ(status, 0);
}

// --- inotify ---------------------------------------------------------------------------

TEST_F(SystemRules, InotifyTellsWhatHappens) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  Settle();
  const int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_GE(inotify_add_watch(in, Path("d").c_str(),
                              IN_ALL_EVENTS & ~(IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE)),
            0);
  const int fd = MakeOpen("d/f");
  EXPECT_EQ(fs().Write(fd, "x", 0), 1);
  fs().Close(fd);
  EXPECT_EQ(fs().Chmod("d/f", 0600), 0);
  EXPECT_EQ(fs().Rename("d/f", "d/g"), 0);
  EXPECT_EQ(fs().Unlink("d/g"), 0);
  std::vector<uint32_t> masks;
  alignas(inotify_event) char buffer[8192];
  const ssize_t n = read(in, buffer, sizeof(buffer));
  for (ssize_t at = 0; at < n;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
    masks.push_back(event->mask);
    at += static_cast<ssize_t>(sizeof(inotify_event)) + event->len;
  }
  close(in);
  EXPECT_THAT(masks, testing::ElementsAre(IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE, IN_ATTRIB,
                                          IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE));
}

// --- File handles ------------------------------------------------------------------------

class HandleRules : public SystemRules {
 protected:
  struct Handle {
    file_handle header;
    char bytes[MAX_HANDLE_SZ];
  };
  Handle HandleOf(const std::string& path) {
    Handle handle{};
    handle.header.handle_bytes = MAX_HANDLE_SZ;
    int mount_id;
    EXPECT_EQ(name_to_handle_at(AT_FDCWD, Path(path).c_str(), &handle.header, &mount_id, 0), 0)
        << std::strerror(errno);
    return handle;
  }
  int OpenHandle(Handle handle, int flags = O_RDONLY) {
    const int mount = open(Path(".").c_str(), O_RDONLY | O_DIRECTORY);
    const int fd = open_by_handle_at(mount, &handle.header, flags);
    const int error = errno;
    close(mount);
    return fd < 0 ? -error : fd;
  }
};

TEST_F(HandleRules, AHandleFindsItsFile) {
  ON_A_KERNEL();
  MakeFile("f", "found");
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(fs().Mkdir("d/e", 0755), 0);
  const Handle file = HandleOf("f"), directory = HandleOf("d/e");
  const ino_t ino = Of("f").st_ino;
  Settle();
  const int fd = OpenHandle(file, O_RDWR);
  ASSERT_GE(fd, 0) << std::strerror(-fd);
  struct stat st;
  EXPECT_EQ(fstat(fd, &st), 0);
  EXPECT_EQ(st.st_ino, ino);
  char bytes[6] = {};
  EXPECT_EQ(read(fd, bytes, 5), 5);
  EXPECT_STREQ(bytes, "found");
  close(fd);
  const int dir_fd = OpenHandle(directory);
  ASSERT_GE(dir_fd, 0) << std::strerror(-dir_fd);
  // The way up from there is known, too.
  EXPECT_EQ(fstatat(dir_fd, "..", &st, 0), 0);
  EXPECT_EQ(st.st_ino, Of("d").st_ino);
  close(dir_fd);
}

TEST_F(HandleRules, AHandleFollowsARename) {
  ON_A_KERNEL();
  MakeFile("f", "moved");
  const Handle handle = HandleOf("f");
  ASSERT_EQ(fs().Rename("f", "g"), 0);
  Settle();
  const int fd = OpenHandle(handle);
  ASSERT_GE(fd, 0);
  struct stat st;
  EXPECT_EQ(fstat(fd, &st), 0);
  EXPECT_EQ(st.st_ino, Of("g").st_ino);
  close(fd);
}

TEST_F(HandleRules, AHandleNeverFindsAnotherFile) {
  ON_A_KERNEL();
  std::vector<Handle> handles;
  for (int i = 0; i < 20; ++i) {
    MakeFile("f", "old");
    handles.push_back(HandleOf("f"));
    ASSERT_EQ(fs().Unlink("f"), 0);
    if (i == 10) Settle();
  }
  Settle();
  // As many new files as there were: they have the same numbers, but not the same handles.
  for (int i = 0; i < 40; ++i) MakeFile("new" + std::to_string(i), "new");
  for (const Handle& handle : handles) EXPECT_EQ(OpenHandle(handle), -ESTALE);
}

// --- O_TMPFILE ---------------------------------------------------------------------------

TEST_F(SystemRules, AFileWithoutANameCanBeGivenOne) {
  ON_A_KERNEL();
  if (FUSE_VERSION < FUSE_MAKE_VERSION(3, 17)) {
    DIFFERS_ON_A_MOUNT("libfuse before 3.17 has no O_TMPFILE: EOPNOTSUPP, and programs do without");
  }
  const int fd = fs().Open(".", O_TMPFILE | O_RDWR, 0640);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(fs().Write(fd, "x", 0), 1);
  EXPECT_EQ(List("."), Names());
  EXPECT_EQ(linkat(fd, "", AT_FDCWD, Path("f").c_str(), AT_EMPTY_PATH), 0);
  EXPECT_EQ(Text("f"), "x");
}

TEST_F(SystemRules, WithoutATmpfileProgramsAreTold) {
  ON_A_KERNEL();
  if (fs().is_tmpfs()) GTEST_SKIP() << "tmpfs has it";
  if (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)) GTEST_SKIP() << "this libfuse has it";
  EXPECT_EQ(fs().Open(".", O_TMPFILE | O_RDWR, 0640), -EOPNOTSUPP);
}

// --- Birth -------------------------------------------------------------------------------

TEST_F(SystemRules, StatxTellsTheBirth) {
  ON_A_KERNEL();
  if (FUSE_VERSION < FUSE_MAKE_VERSION(3, 18)) {
    DIFFERS_ON_A_MOUNT("libfuse before 3.18 has no statx");
  }
  MakeFile("f");
  struct statx st;
  ASSERT_EQ(statx(AT_FDCWD, Path("f").c_str(), 0, STATX_BTIME, &st), 0);
  EXPECT_NE(st.stx_mask & STATX_BTIME, 0u);
}

// --- Mounts --------------------------------------------------------------------------------

TEST_F(SystemRules, BindMountsAndNamespaces) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("a", 0755), 0);
  ASSERT_EQ(fs().Mkdir("b", 0755), 0);
  MakeFile("a/f", "bound");
  const std::string a = Path("a"), b = Path("b");
  EXPECT_EQ(InChild([&] {
              if (unshare(CLONE_NEWNS) != 0) return 1;
              if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 2;
              if (mount(a.c_str(), b.c_str(), nullptr, MS_BIND, nullptr) != 0) return 3;
              if (access((b + "/f").c_str(), R_OK) != 0) return 4;
              if (rename((b + "/f").c_str(), (a + "/g").c_str()) == 0 || errno != EXDEV) return 5;
              if (link((b + "/f").c_str(), (a + "/g").c_str()) == 0 || errno != EXDEV) return 6;
              if (rmdir(b.c_str()) == 0 || errno != EBUSY) return 7;
              const unsigned long read_only = MS_REMOUNT | MS_BIND | MS_RDONLY;
              if (mount(nullptr, b.c_str(), nullptr, read_only, nullptr) != 0) return 8;
              if (open((b + "/f").c_str(), O_WRONLY) >= 0 || errno != EROFS) return 9;
              return 0;
            }),
            0);
  EXPECT_FALSE(Exists("b/f"));
}

TEST_F(SystemRules, ReadOnlyMountsRefuseEveryChange) {
  ON_A_KERNEL();
  MakeFile("f", "x");
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  const std::string base = Path(".");
  EXPECT_EQ(InChild([&] {
              if (unshare(CLONE_NEWNS) != 0) return 1;
              if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 2;
              if (mount(base.c_str(), base.c_str(), nullptr, MS_BIND, nullptr) != 0) return 3;
              const unsigned long read_only = MS_REMOUNT | MS_BIND | MS_RDONLY;
              if (mount(nullptr, base.c_str(), nullptr, read_only, nullptr) != 0) return 4;
              if (chdir(base.c_str()) != 0) return 5;
              const int results[] = {open("new", O_CREAT | O_WRONLY, 0644),
                                     open("f", O_WRONLY),
                                     mkdir("new", 0755),
                                     mknod("new", S_IFIFO | 0644, 0),
                                     symlink("t", "new"),
                                     link("f", "new"),
                                     unlink("f"),
                                     rmdir("d"),
                                     rename("f", "g"),
                                     chmod("f", 0600),
                                     chown("f", 1, 1),
                                     truncate("f", 0),
                                     utimensat(AT_FDCWD, "f", nullptr, 0),
                                     setxattr("f", "user.a", "1", 1, 0),
                                     removexattr("f", "user.a")};
              for (size_t i = 0; i < std::size(results); ++i) {
                if (results[i] >= 0) return static_cast<int>(10 + i);
              }
              return errno == EROFS ? 0 : 6;
            }),
            0);
}

TEST_F(SystemRules, Chroot) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("root", 0755), 0);
  MakeFile("root/f", "inside");
  ASSERT_EQ(fs().Symlink("/f", "root/s"), 0);
  Settle();
  const std::string root = Path("root");
  EXPECT_EQ(InChild([&] {
              if (chroot(root.c_str()) != 0 || chdir("/") != 0) return 1;
              return access("/s", R_OK) == 0 && access("../f", R_OK) == 0 ? 0 : 2;
            }),
            0);
}

TEST_F(SystemRules, SocketsAndFifosConnect) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mknod("fifo", S_IFIFO | 0600, 0), 0);
  Settle();
  const int both = Open("fifo", O_RDWR | O_NONBLOCK);
  EXPECT_EQ(write(both, "through", 7), 7);
  char bytes[8] = {};
  EXPECT_EQ(read(both, bytes, 7), 7);
  EXPECT_STREQ(bytes, "through");
}

TEST_F(SystemRules, UserNamespacesSeeTheirIds) {
  ON_A_KERNEL();
  MakeFile("f", "x", 0600);
  ASSERT_EQ(fs().Chown("f", kOther.uid, kOther.gid), 0);
  const std::string path = Path("f");
  EXPECT_EQ(InChild([&] {
              if (unshare(CLONE_NEWUSER) != 0) return 0;  // not here
              struct stat st;
              if (stat(path.c_str(), &st) != 0) return 1;
              return st.st_uid == 65534 ? 0 : 2;
            }),
            0);
}

// --- overlayfs -----------------------------------------------------------------------------

class OverlayRules : public SystemRules {
 protected:
  // A script in a mount namespace of its own, with an overlay on m, whose upper and work
  // directories are here.
  int Overlay(const std::string& options, const std::string& script) {
    const std::string command =
        "cd " + Path(".") + " && unshare -m sh -ec 'mkdir -p lower upper work m && " +
        "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work" + options +
        " m; " + script +
        "' >/tmp/overlay-$$.log 2>&1 || { cat /tmp/overlay-$$.log; rm /tmp/overlay-$$.log; exit 1; "
        "}; rm /tmp/overlay-$$.log";
    return std::system(command.c_str());
  }
};

TEST_F(OverlayRules, WhiteoutsHideWhatIsBelow) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("lower", 0755), 0);
  MakeFile("lower/f", "below");
  MakeFile("lower/g", "below");
  Settle();
  EXPECT_EQ(
      Overlay(
          "",
          "rm m/f; echo changed > m/g; test ! -e m/f; test $(cat m/g) = changed; test -f lower/f"),
      0);
  EXPECT_EQ(Of("upper/f").st_mode & S_IFMT, static_cast<mode_t>(S_IFCHR));
  EXPECT_EQ(Of("upper/f").st_rdev, 0u);
  EXPECT_EQ(Text("upper/g"), "changed\n");
  Settle();
  if (TheRun().remount) {
    DIFFERS_ON_A_MOUNT(
        "since Linux 6.16 overlayfs finds by handles on FUSE what it cannot use then");
  }
  EXPECT_EQ(Overlay("", "test ! -e m/f; test $(cat m/g) = changed; test $(ls m | wc -l) = 1"), 0);
}

TEST_F(OverlayRules, OpaqueDirectoriesHideWhatIsBelow) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("lower", 0755), 0);
  ASSERT_EQ(fs().Mkdir("lower/d", 0755), 0);
  MakeFile("lower/d/f", "below");
  EXPECT_EQ(Overlay("", "rm -r m/d; mkdir m/d; echo new > m/d/g; test $(ls m/d) = g"), 0);
  std::string value;
  EXPECT_EQ(fs().GetXattr("upper/d", "trusted.overlay.opaque", &value), 0);
  EXPECT_EQ(value, "y");
  Settle();
  EXPECT_EQ(Overlay("", "test $(ls m/d) = g"), 0);
}

TEST_F(OverlayRules, RenamedDirectoriesAreRedirected) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("lower", 0755), 0);
  ASSERT_EQ(fs().Mkdir("lower/d", 0755), 0);
  MakeFile("lower/d/f", "below");
  EXPECT_EQ(Overlay(",redirect_dir=on", "mv m/d m/e; test $(cat m/e/f) = below; test ! -e m/d"), 0);
  std::string value;
  EXPECT_EQ(fs().GetXattr("upper/e", "trusted.overlay.redirect", &value), 0);
  Settle();
  EXPECT_EQ(Overlay(",redirect_dir=on", "test $(cat m/e/f) = below; test ! -e m/d"), 0);
}

TEST_F(OverlayRules, AnImageLayerIsUnpackedIntoIt) {
  ON_A_KERNEL();
  ASSERT_EQ(fs().Mkdir("lower", 0755), 0);
  // A layer as images have them: programs, links, owners, modes, attributes.
  EXPECT_EQ(
      Overlay("",
              "tar -C / -cf - usr/share/doc/bash usr/bin/env etc/passwd bin | tar -C m "
              "--numeric-owner -xpf -; "
              "diff -r --no-dereference /usr/share/doc/bash m/usr/share/doc/bash; cmp /usr/bin/env "
              "m/usr/bin/env; "
              "chroot m /usr/bin/env 2>/dev/null || true; mv m/usr/share/doc m/usr/share/moved; "
              "chmod 4711 m/usr/bin/env; ln m/usr/bin/env m/usr/bin/env2"),
      0);
  Settle();
  EXPECT_EQ(Overlay("",
                    "diff -r --no-dereference /usr/share/doc/bash m/usr/share/moved/bash; test "
                    "$(stat -c %a%h "
                    "m/usr/bin/env2) = 47112"),
            0);
}

// --- Full ----------------------------------------------------------------------------------

TEST_F(SystemRules, AFullFilesystemSaysSo) {
  ON_A_KERNEL();
  MakeFile("small", "x");
  const int fd = MakeOpen("f");
  struct statvfs before;
  ASSERT_EQ(fs().StatFs(&before), 0);
  const std::string chunk(1 << 20, 'x');
  off_t size = 0;
  ssize_t n;
  while ((n = fs().Write(fd, chunk, size)) > 0) size += n;
  EXPECT_EQ(n, -ENOSPC);
  EXPECT_GT(size, static_cast<off_t>(before.f_bfree) * 4096 - (4 << 20));
  EXPECT_EQ(Of("f").st_size, size);
  EXPECT_EQ(fs().Write(fd, "y", 0), 1);  // where there is a page already
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 1 << 20), 0);
  EXPECT_EQ(fs().Write(fd, std::string(4096, 'z'), 8192), 4096);
  EXPECT_EQ(fs().Ftruncate(fd, 5), 0);
  EXPECT_EQ(Text("small"), "x");
  fs().Close(fd);
  EXPECT_EQ(fs().Unlink("f"), 0);
  EXPECT_TRUE(Eventually([&] {
    struct statvfs st;
    return fs().StatFs(&st) == 0 && st.f_bfree > 10000;
  }));
  MakeFile("again", chunk);
}

}  // namespace
}  // namespace pkramfs
