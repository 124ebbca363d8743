// Finds out what kind of backing a file or a device is.  Also has what the kinds have in common.
#include "pkram/backing.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/cleanup/cleanup.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "pkram/backing_kinds.h"
#include "pkram/place.h"

namespace pkram {
namespace {

constexpr char kWhereItMayBe[] = "a region is a file, best on tmpfs (/dev/shm), or /dev/daxX.Y";

// A device's directory below /sys/dev.
std::string SysfsOf(const char* kind, dev_t device) {
  return absl::StrCat("/sys/dev/", kind, "/", major(device), ":", minor(device));
}

std::string LinkName(const std::string& path) {
  std::error_code error;
  return std::filesystem::read_symlink(path, error).filename().string();
}

absl::StatusOr<uint64_t> ReadNumber(const std::string& path) {
  uint64_t number = 0;
  if (std::ifstream(path) >> number) return number;
  return absl::FailedPreconditionError(absl::StrCat(path, ": no number is there"));
}

// Opens the device's own node, if another node of it was opened; or -1.
int OpenOwnNode(const std::string& sysfs, const struct stat& opened) {
  const int fd = open(absl::StrCat("/dev/", LinkName(sysfs)).c_str(),
                      O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat st;
  if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISCHR(st.st_mode) || st.st_rdev != opened.st_rdev ||
                  (st.st_ino == opened.st_ino && st.st_dev == opened.st_dev))) {
    close(fd);
    return -1;
  }
  return fd;
}

absl::StatusOr<DeviceShape> ShapeOf(const std::string& sysfs) {
  const absl::StatusOr<uint64_t> size = ReadNumber(sysfs + "/size");
  if (!size.ok()) return size.status();
  const absl::StatusOr<uint64_t> alignment = ReadNumber(sysfs + "/align");
  if (!alignment.ok()) return alignment.status();
  return DeviceShape{*size, *alignment};
}

// Mapping a block device gives its page cache, which no other kernel will find.
absl::Status BlockDevice(const std::string& name, dev_t device) {
  std::string space = LinkName(SysfsOf("block", device) + "/device");
  if (space.rfind("namespace", 0) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": a block device: ", kWhereItMayBe));
  }
  return absl::FailedPreconditionError(
      absl::StrCat(name, ": a block device, which cannot be mapped as the memory that it is: make ",
                   "it a /dev/daxX.Y, which deletes what it holds: ndctl create-namespace -f -e ",
                   space, " -m devdax"));
}

// Takes `fd` over.
absl::StatusOr<std::unique_ptr<Backing>> OfKind(std::string name, int fd, bool writable) {
  auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat st;
  if (fstat(fd, &st) != 0) return IoStatus(name, "stat", errno);
  if (S_ISREG(st.st_mode)) {
    std::move(closer).Cancel();
    return MakeFileBacking(std::move(name), fd);
  }
  const std::string sysfs = SysfsOf("char", st.st_rdev);
  if (S_ISCHR(st.st_mode) && LinkName(sysfs + "/subsystem") == "dax") {
    const absl::StatusOr<DeviceShape> shape = ShapeOf(sysfs);
    if (!shape.ok()) return shape.status();
    std::move(closer).Cancel();
    return MakeDeviceBacking(std::move(name), fd, OpenOwnNode(sysfs, st), *shape, writable);
  }
  if (S_ISBLK(st.st_mode)) return BlockDevice(name, st.st_rdev);
  return absl::FailedPreconditionError(absl::StrCat(name, ": not a regular file: ", kWhereItMayBe));
}

int FlagsFor(OpenFor mode) {
  const int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  if (mode == OpenFor::kReading) return flags | O_RDONLY;
  return flags | O_RDWR | (mode == OpenFor::kCreating ? O_CREAT : 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backing>> OpenBacking(const std::string& path, OpenFor mode,
                                                     const std::string& called) {
  const std::string& name = called.empty() ? path : called;
  const absl::StatusOr<Place> place = FindPlace(path);
  if (!place.ok()) return place.status();
  const int fd = OpenPlace(*place, FlagsFor(mode), 0600);
  if (fd < 0 && errno == EISDIR) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": is a directory: ", kWhereItMayBe));
  }
  if (fd < 0) return OpenStatus(name, errno);
  absl::StatusOr<std::unique_ptr<Backing>> backing = OfKind(name, fd, mode != OpenFor::kReading);
  struct stat st;
  if (!backing.ok()) return backing;
  if (fstat(fd, &st) != 0) return IoStatus(name, "stat", errno);
  if (absl::Status s = CheckOwner(name, st); S_ISREG(st.st_mode) && !s.ok()) return s;
  return backing;
}

absl::StatusOr<std::unique_ptr<Backing>> OpenFdBacking(int fd, OpenFor mode,
                                                       const std::string& called) {
  const std::string name = called.empty() ? absl::StrCat("fd=", fd) : called;
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return absl::NotFoundError(absl::StrCat(name, ": not an open descriptor"));
  // The new descriptor must not allow more than the one that was handed over.
  if (mode != OpenFor::kReading && (flags & O_ACCMODE) != O_RDWR) {
    return absl::PermissionDeniedError(absl::StrCat(
        name,
        ": not open for reading and writing: hand over one that is, as with 3<>FILE in a "
        "shell"));
  }
  // The owner of the descriptor has chosen the file.
  const int again = mode == OpenFor::kTakingOver
                        ? fcntl(fd, F_DUPFD_CLOEXEC, 3)
                        : open(absl::StrCat("/proc/self/fd/", fd).c_str(),
                               FlagsFor(mode == OpenFor::kCreating ? OpenFor::kWriting : mode));
  if (again < 0) return OpenStatus(name, errno);
  return OfKind(name, again, mode != OpenFor::kReading);
}

absl::Status IoStatus(const std::string& name, const char* what, int error) {
  const std::string message = absl::StrCat(name, ": ", what, ": ", std::strerror(error));
  // A file on tmpfs takes memory of the system, or of a cgroup.  EPERM: the kernel holds the size
  // of the file for a kexec, or somebody has sealed it.
  if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM || error == EPERM) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

absl::Status LockDescriptor(const std::string& name, int fd, bool exclusive) {
  if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return absl::OkStatus();
  if (errno != EWOULDBLOCK) return IoStatus(name, "lock", errno);
  const int pid = LockHolder(fd);
  return absl::UnavailableError(absl::StrCat(
      name, ": in use by ", pid > 0 ? absl::StrCat("process ", pid) : "another process"));
}

absl::StatusOr<absl::Span<std::byte>> MapDescriptor(const std::string& name, int fd, size_t bytes,
                                                    bool writable) {
  void* const at = mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                        MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (at != MAP_FAILED) return absl::MakeSpan(static_cast<std::byte*>(at), bytes);
  if (errno != ENOMEM) return IoStatus(name, "mmap", errno);
  return absl::ResourceExhaustedError(absl::StrCat(name, ": a region of ", PagesFor(bytes),
                                                   " pages is more than this machine can map: "
                                                   "choose a smaller size"));
}

int LockHolder(int fd) {
  // A line of /proc/locks: "1: FLOCK  ADVISORY  WRITE 812 00:1b:4711 0 EOF".
  struct stat st;
  if (fstat(fd, &st) != 0) return 0;
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream in(line);
    std::string number, kind, advisory, access, file;
    int pid = 0;
    unsigned maj = 0, min = 0;
    unsigned long long ino = 0;
    if (!(in >> number >> kind >> advisory >> access >> pid >> file)) continue;
    if (kind != "FLOCK" || std::sscanf(file.c_str(), "%x:%x:%llu", &maj, &min, &ino) != 3) continue;
    // The process that took the lock may be gone, and another one may hold the same open file (a
    // server that took over).
    if (ino != st.st_ino || makedev(maj, min) != st.st_dev) continue;
    return kill(pid, 0) == 0 || errno == EPERM ? pid : 0;
  }
  return 0;
}

absl::Status Backing::Fill(uint64_t offset, absl::Span<const iovec> bytes) {
  static constexpr char kZeros[kPageSize] = {};
  absl::InlinedVector<iovec, 8> all(bytes.begin(), bytes.end());
  uint64_t end = offset;
  for (const iovec& v : all) end += v.iov_len;
  all.push_back({const_cast<char*>(kZeros), (kPageSize - end % kPageSize) % kPageSize});
  return Write(offset, all);
}

}  // namespace pkram
