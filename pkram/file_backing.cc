// Regions in files: tmpfs, memfd, or any filesystem with fallocate.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "pkram/backing.h"

namespace pkram {
namespace {

std::string ErrnoText(int error) { return std::strerror(error); }

absl::Status IoStatus(const std::string& name, const char* what, int error) {
  const std::string message = absl::StrCat(name, ": ", what, ": ", ErrnoText(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

class FileBacking final : public Backing {
 public:
  FileBacking(std::string name, int fd) : Backing(std::move(name)), fd_(fd) {}
  ~FileBacking() override { close(fd_); }

  int fd() const override { return fd_; }

  absl::StatusOr<uint64_t> Size() const override {
    struct stat st;
    if (fstat(fd_, &st) != 0) return IoStatus(name(), "stat", errno);
    return static_cast<uint64_t>(st.st_size);
  }

  absl::Status Lock(bool exclusive) override {
    if (flock(fd_, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return absl::OkStatus();
    if (errno != EWOULDBLOCK) return IoStatus(name(), "lock", errno);
    const int pid = LockHolder(fd_);
    return absl::UnavailableError(absl::StrCat(
        name(), ": in use by ", pid > 0 ? absl::StrCat("process ", pid) : "another process"));
  }

  absl::StatusOr<std::byte*> Map(uint64_t pages, bool writable) override {
    void* const at = mmap(nullptr, pages * kPageSize, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                          MAP_SHARED | MAP_NORESERVE, fd_, 0);
    if (at == MAP_FAILED && errno == ENOMEM) {
      return absl::ResourceExhaustedError(absl::StrCat(name(), ": a region of ", pages,
                                                       " pages is more than this machine can map: "
                                                       "choose a smaller size"));
    }
    if (at == MAP_FAILED) return IoStatus(name(), "mmap", errno);
    return static_cast<std::byte*>(at);
  }

  absl::Status Reserve(PageRun run) override {
    int result;
    do {
      result = fallocate(fd_, 0, static_cast<off_t>(run.first.offset()),
                         static_cast<off_t>(run.count * kPageSize));
    } while (result != 0 && errno == EINTR);
    if (result == 0) return absl::OkStatus();
    if (errno == EOPNOTSUPP) {
      return absl::FailedPreconditionError(
          absl::StrCat(name(),
                       ": its filesystem has no fallocate: put the region on tmpfs, ext4, "
                       "xfs or btrfs"));
    }
    return IoStatus(name(), "fallocate", errno);
  }

  absl::Status Fill(uint64_t offset, absl::Span<const iovec> bytes) override {
    static constexpr char kZeros[kPageSize] = {};
    absl::InlinedVector<iovec, 16> vec(bytes.begin(), bytes.end());
    uint64_t end = offset;
    for (const iovec& v : vec) end += v.iov_len;
    if (const uint64_t tail = end % kPageSize; tail != 0) {
      vec.push_back({const_cast<char*>(kZeros), kPageSize - tail});
    }
    absl::Span<iovec> iov = absl::MakeSpan(vec);
    while (!iov.empty()) {
      const ssize_t n = pwritev(fd_, iov.data(), static_cast<int>(std::min<size_t>(iov.size(), 64)),
                                static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return IoStatus(name(), "write", errno);
      if (n == 0) return IoStatus(name(), "write", ENOSPC);
      offset += static_cast<uint64_t>(n);
      size_t done = static_cast<size_t>(n);
      while (!iov.empty() && done >= iov.front().iov_len) {
        done -= iov.front().iov_len;
        iov.remove_prefix(1);
      }
      if (done > 0) {
        iov.front().iov_base = static_cast<char*>(iov.front().iov_base) + done;
        iov.front().iov_len -= done;
      }
    }
    return absl::OkStatus();
  }

  // A page that was a hole is zeroed by the kernel, when it is touched first.
  absl::Status FillZeros(PageRun run) override {
    if (Punch(run)) return Reserve(run);
    static constexpr char kZeros[16 * kPageSize] = {};
    for (uint64_t done = 0; done < run.count;) {
      const uint64_t n = std::min<uint64_t>(run.count - done, sizeof(kZeros) / kPageSize);
      const iovec iov{const_cast<char*>(kZeros), n * kPageSize};
      if (absl::Status s = Fill((run.first + done).offset(), {&iov, 1}); !s.ok()) return s;
      done += n;
    }
    return absl::OkStatus();
  }

  // Where it is not supported, the pages stay and are used again.
  void GiveBack(PageRun run) override { (void)Punch(run); }

  void ShrinkTo(uint64_t pages) override {
    struct stat st;
    const auto bytes = static_cast<off_t>(pages * kPageSize);
    if (fstat(fd_, &st) == 0 && st.st_size > bytes && ftruncate(fd_, bytes) != 0) {
      GiveBack({Pfn(pages), PagesFor(static_cast<uint64_t>(st.st_size - bytes))});
    }
  }

 private:
  bool Punch(PageRun run) {
    return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(run.first.offset()),
                     static_cast<off_t>(run.count * kPageSize)) == 0;
  }

  const int fd_;
};

absl::StatusOr<std::unique_ptr<Backing>> Checked(std::string name, int fd) {
  auto backing = std::make_unique<FileBacking>(std::move(name), fd);
  struct stat st;
  if (fstat(fd, &st) != 0) return IoStatus(backing->name(), "stat", errno);
  if (!S_ISREG(st.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        backing->name(), ": not a regular file: a region is a file, best on tmpfs (/dev/shm)"));
  }
  return backing;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backing>> OpenFileBacking(const std::string& path, OpenFor mode) {
  int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  flags |= mode == OpenFor::kReading ? O_RDONLY : O_RDWR;
  if (mode == OpenFor::kCreating) flags |= O_CREAT;
  const int fd = open(path.c_str(), flags, 0600);
  if (fd >= 0) return Checked(path, fd);
  const std::string message = absl::StrCat(path, ": ", ErrnoText(errno));
  switch (errno) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case EISDIR:
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": is a directory: a region is a file, best on tmpfs (/dev/shm)"));
    default:
      return absl::FailedPreconditionError(message);
  }
}

absl::StatusOr<std::unique_ptr<Backing>> OpenFdBacking(int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return IoStatus(absl::StrCat("fd ", fd), "duplicate", errno);
  return Checked(absl::StrCat("fd ", fd), copy);
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
    if (ino == st.st_ino && makedev(maj, min) == st.st_dev) return pid;
  }
  return 0;
}

}  // namespace pkram
