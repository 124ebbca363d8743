// A kernel's live update orchestrator for programs that have this library loaded (LD_PRELOAD),
// where the kernel has none.  It is as good as the tests need.
//
// What it knows is in the directory PKRAMFS_FAKE_LIVEUPDATE:
//   device       stands for /dev/liveupdate; no such file: no such device
//   out/NAME     a session of this kernel; it is open as long as somebody has its lock
//   in/NAME      a session that the kernel before has left: the contents of its memfd.  It goes
//   when
//                whoever has taken it closes it, and when its memfd cannot be given back
//   fail-CALL    the error number that the call (create, preserve, retrieve) fails with
//   cgroup       that of the process that took the last memfd out of a session
// A memfd that is in a session of this kernel has the session's path in an extended attribute.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace {

constexpr char kSessionOf[] = "trusted.fake.session";

std::string Directory() {
  const char* const path = getenv("PKRAMFS_FAKE_LIVEUPDATE");
  return path == nullptr ? "" : path;
}

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
int RealOpen(const std::string& path, int flags) {
  return Real<int(const char*, int, ...)>("open")(path.c_str(), flags | O_CLOEXEC, 0600);
}

// Fails with an error number that is there already if it is one.
int Error(int error) {
  errno = error;
  return -1;
}
int Planned(const char* call) {
  int error = 0;
  std::ifstream(Directory() + "/fail-" + call) >> error;
  return error;
}

// What the descriptor is open on, below the directory: "device", "out/NAME", "in/NAME".
std::string Below(int fd) {
  char target[4096];
  const ssize_t size =
      readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof(target));
  const std::string path(target, size > 0 ? static_cast<size_t>(size) : 0), directory = Directory();
  if (directory.empty() || path.rfind(directory + "/", 0) != 0) return "";
  return path.substr(directory.size() + 1);
}

// A lock of the open file, which all its descriptors share.
struct flock Whole() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}
bool Lock(int fd) {
  struct flock lock = Whole();
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

// Whether a session has the memfd, and is open.
bool IsFrozen(int fd) {
  const int saved = errno;
  char path[4096];
  const ssize_t size = fgetxattr(fd, kSessionOf, path, sizeof(path));
  bool frozen = false;
  if (size > 0) {
    const int session = RealOpen(std::string(path, static_cast<size_t>(size)), O_RDWR);
    struct flock lock = Whole();
    frozen = session >= 0 && fcntl(session, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(session);
  }
  errno = saved;
  return frozen;
}

struct Asked {
  uint32_t size;
  int32_t fd;
  union {
    char name[64];
    uint64_t token;
  };
};

int Create(Asked* asked) {
  if (const int error = Planned("create")) return Error(error);
  const int fd = RealOpen(Directory() + "/out/" + asked->name, O_RDWR | O_CREAT);
  if (!Lock(fd)) {
    close(fd);
    return Error(EEXIST);
  }
  asked->fd = fd;
  return 0;
}

int RetrieveSession(Asked* asked) {
  const std::string path = Directory() + "/in/" + asked->name;
  const int fd = RealOpen(path, O_RDWR);
  if (fd < 0) return Error(ENOENT);
  if (!Lock(fd)) {
    close(fd);
    return Error(EINVAL);
  }
  const int taken = RealOpen(path + ".taken", O_RDWR | O_CREAT | O_EXCL);
  if (taken < 0) {  // and closed
    unlink(path.c_str());
    close(fd);
    return Error(ENOENT);
  }
  close(taken);
  asked->fd = fd;
  return 0;
}

int Preserve(const std::string& session, const Asked& asked) {
  if (const int error = Planned("preserve")) return Error(error);
  if (IsFrozen(asked.fd)) return Error(EBUSY);
  struct stat st;
  fstat(asked.fd, &st);
  if (fallocate(asked.fd, 0, 0, st.st_size) != 0) return -1;
  const std::string path = Directory() + "/" + session;
  return fsetxattr(asked.fd, kSessionOf, path.data(), path.size(), 0);
}

int Retrieve(int session, Asked* asked) {
  if (asked->token != 1) return Error(ENOENT);
  if (Below(session).find(" (deleted)") != std::string::npos) return Error(ENOENT);  // finished
  if (const int error = Planned("retrieve")) return Error(error);
  std::ofstream(Directory() + "/cgroup") << std::ifstream("/proc/self/cgroup").rdbuf();
  const int memfd = memfd_create("", MFD_CLOEXEC);
  struct stat st;
  fstat(session, &st);
  off_t from = 0;
  while (from < st.st_size) {
    if (sendfile(memfd, session, &from, static_cast<size_t>(st.st_size - from)) <= 0) return -1;
  }
  asked->fd = memfd;
  return 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list words;
  va_start(words, flags);
  const mode_t mode = va_arg(words, mode_t);
  va_end(words);
  const auto real = Real<int(const char*, int, ...)>("open");
  if (Directory().empty() || std::strcmp(path, "/dev/liveupdate") != 0)
    return real(path, flags, mode);
  const int fd = RealOpen(Directory() + "/device", O_RDWR);
  if (fd >= 0 && !Lock(fd)) {
    close(fd);
    return Error(EBUSY);
  }
  return fd;
}
int open64(const char* path, int flags, ...) {
  va_list words;
  va_start(words, flags);
  const mode_t mode = va_arg(words, mode_t);
  va_end(words);
  return open(path, flags, mode);
}

int ioctl(int fd, unsigned long call, ...) {
  va_list words;
  va_start(words, call);
  void* const argument = va_arg(words, void*);
  va_end(words);
  if (_IOC_TYPE(call) != 0xBA)
    return Real<int(int, unsigned long, ...)>("ioctl")(fd, call, argument);
  const std::string file = Below(fd);
  auto* const asked = static_cast<Asked*>(argument);
  const bool is_old = file.rfind("in/", 0) == 0, is_new = file.rfind("out/", 0) == 0;
  switch (_IOC_NR(call)) {
    case 0x00:
      return Create(asked);
    case 0x01:
      return RetrieveSession(asked);
    case 0x40:
      return is_new ? Preserve(file, *asked) : Error(EINVAL);
    case 0x41:
      return is_old ? Retrieve(fd, asked) : Error(EINVAL);
    case 0x43:
      std::strcpy(reinterpret_cast<char*>(argument) + 8, file.substr(file.find('/') + 1).c_str());
      return 0;
    case 0x42:
      return is_old ? unlink((Directory() + "/" + file).c_str()) : Error(EINVAL);
  }
  return Error(EINVAL);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  if (IsFrozen(fd)) return Error(EPERM);
  return Real<int(int, int, off_t, off_t)>("fallocate")(fd, mode, offset, bytes);
}
int fallocate64(int fd, int mode, off_t offset, off_t bytes) {
  return fallocate(fd, mode, offset, bytes);
}
int ftruncate(int fd, off_t bytes) noexcept {
  if (IsFrozen(fd)) return Error(EPERM);
  return Real<int(int, off_t)>("ftruncate")(fd, bytes);
}
int ftruncate64(int fd, off_t bytes) noexcept { return ftruncate(fd, bytes); }
ssize_t pwritev(int fd, const iovec* iov, int count, off_t offset) {
  off_t end = offset;
  for (int i = 0; i < count; ++i) end += static_cast<off_t>(iov[i].iov_len);
  struct stat st;
  if (IsFrozen(fd) && fstat(fd, &st) == 0 && end > st.st_size) return Error(EPERM);
  return Real<ssize_t(int, const iovec*, int, off_t)>("pwritev")(fd, iov, count, offset);
}
ssize_t pwritev64(int fd, const iovec* iov, int count, off_t offset) {
  return pwritev(fd, iov, count, offset);
}
}
