// What a daemon counts while it serves.
#ifndef MOUNT_SERVE_STATISTICS_H_
#define MOUNT_SERVE_STATISTICS_H_

#include <array>
#include <atomic>
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

 private:
  std::array<std::atomic<uint64_t>, static_cast<size_t>(Request::kCount)> counts_{};
};

}  // namespace pkramfs

#endif  // MOUNT_SERVE_STATISTICS_H_
