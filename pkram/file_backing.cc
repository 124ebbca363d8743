// Regions in files: tmpfs, memfd, or any filesystem with fallocate.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "pkram/backing_kinds.h"

namespace pkram {
namespace {

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

  // The kernel refuses to change a file that it holds, also where there is nothing to change: this
  // asks where no page can be.
  std::optional<uint64_t> held_pages() const override {
    constexpr Pfn kNowhere(uint64_t{1} << 48);
    if (Punch({kNowhere, 1}) || errno != EPERM) return std::nullopt;
    struct stat st;
    // (It holds none that has a name.)
    if (fstat(fd_, &st) != 0 || st.st_nlink != 0) return std::nullopt;
    return PagesFor(static_cast<uint64_t>(st.st_size));
  }

  absl::Status Lock(bool exclusive) override { return LockDescriptor(name(), fd_, exclusive); }

  absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) override {
    return MapDescriptor(name(), fd_, pages * kPageSize, writable);
  }

  absl::Status Reserve(PageRun run) override {
    int result;
    do {
      result = fallocate(fd_, 0, static_cast<off_t>(run.first.offset()),
                         static_cast<off_t>(run.count * kPageSize));
    } while (result != 0 && errno == EINTR);
    if (result == 0) return absl::OkStatus();
    if (errno == EPERM) {
      const std::optional<uint64_t> held = held_pages();
      if (held && run.first.value() + run.count <= *held) return absl::OkStatus();
      errno = EPERM;
    }
    if (errno == EOPNOTSUPP) {
      return absl::FailedPreconditionError(
          absl::StrCat(name(),
                       ": its filesystem has no fallocate: put the region on tmpfs, ext4, "
                       "xfs or btrfs"));
    }
    return IoStatus(name(), "fallocate", errno);
  }

  absl::Status Read(uint64_t offset, absl::Span<char> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return IoStatus(name(), "read", errno);
      if (n == 0) {  // behind the file's end
        std::fill(bytes.begin(), bytes.end(), '\0');
        break;
      }
      offset += static_cast<uint64_t>(n);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    absl::InlinedVector<iovec, 16> vec(bytes.begin(), bytes.end());
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

  bool HoldsMoreThan(uint64_t pages) const override {
    struct stat st;
    return fstat(fd_, &st) != 0 || static_cast<uint64_t>(st.st_blocks) * 512 > pages * kPageSize;
  }

  // Where punching is not supported, the pages stay, and are used again.
  void GiveBack(PageRun run) override { (void)Punch(run); }

  void ShrinkTo(uint64_t pages) override {
    struct stat st;
    const auto bytes = static_cast<off_t>(pages * kPageSize);
    if (fstat(fd_, &st) == 0 && st.st_size > bytes && ftruncate(fd_, bytes) != 0) {
      GiveBack({Pfn(pages), PagesFor(static_cast<uint64_t>(st.st_size - bytes))});
    }
  }

 private:
  bool Punch(PageRun run) const {
    return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(run.first.offset()),
                     static_cast<off_t>(run.count * kPageSize)) == 0;
  }

  const int fd_;
};

}  // namespace

std::unique_ptr<Backing> MakeFileBacking(std::string name, int fd) {
  return std::make_unique<FileBacking>(std::move(name), fd);
}

}  // namespace pkram
