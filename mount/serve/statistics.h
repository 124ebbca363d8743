// What a daemon counts while it serves.
#ifndef MOUNT_SERVE_STATISTICS_H_
#define MOUNT_SERVE_STATISTICS_H_

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>

namespace pkramfs {

enum class Request {
  kLookup,
  kForget,
  kGetAttr,
  kSetAttr,
  kReadLink,
  kMakeNode,
  kMakeDirectory,
  kUnlink,
  kRemoveDirectory,
  kSymlink,
  kRename,
  kLink,
  kOpen,
  kRead,
  kWrite,
  kFlush,
  kRelease,
  kFsync,
  kOpenDirectory,
  kReadDirectory,
  kReadDirectoryPlus,
  kReleaseDirectory,
  kStatFs,
  kSetXattr,
  kGetXattr,
  kListXattrs,
  kRemoveXattr,
  kCreate,
  kMakeTemporary,
  kFallocate,
  kSeek,
  kCopyRange,
  kIoctl,
  kCount
};

class Statistics {
 public:
  void Count(Request request) {
    counts_[static_cast<size_t>(request)].fetch_add(1, std::memory_order_relaxed);
  }
  uint64_t count(Request request) const {
    return counts_[static_cast<size_t>(request)].load(std::memory_order_relaxed);
  }

  // Bytes of answers to READ, and of WRITE.
  void CountRead(uint64_t bytes) { Add(&bytes_read_, bytes); }
  void CountWritten(uint64_t bytes) { Add(&bytes_written_, bytes); }
  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }
  uint64_t bytes_written() const { return bytes_written_.load(std::memory_order_relaxed); }

  // An answer that is an errno.  Only those are counted that say that something is wrong with the
  // filesystem: programs ask for names that are not there all the time.
  void CountError(int error) {
    if (error == ENOSPC) Add(&out_of_space_, 1);
    if (error == EIO) Add(&io_errors_, 1);
  }
  uint64_t out_of_space() const { return out_of_space_.load(std::memory_order_relaxed); }
  uint64_t io_errors() const { return io_errors_.load(std::memory_order_relaxed); }

 private:
  using Counter = std::atomic<uint64_t>;
  static void Add(Counter* counter, uint64_t n) {
    counter->fetch_add(n, std::memory_order_relaxed);
  }

  Counter bytes_read_{0}, bytes_written_{0}, out_of_space_{0}, io_errors_{0};
  std::array<Counter, static_cast<size_t>(Request::kCount)> counts_{};
};

}  // namespace pkramfs

#endif  // MOUNT_SERVE_STATISTICS_H_
