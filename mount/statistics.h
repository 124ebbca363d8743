// What a daemon counts while it serves.
#ifndef MOUNT_STATISTICS_H_
#define MOUNT_STATISTICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "fs/filesystem.h"
#include "pkram/region.h"

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
  // {"pid", "node", "requests": {...}, "pages": {...}, "inodes", "journal_waits"}
  std::string Json(const std::string& node, const Filesystem& fs, pkram::Region* region) const;

 private:
  std::array<std::atomic<uint64_t>, static_cast<size_t>(Request::kCount)> counts_{};
};

}  // namespace pkramfs

#endif  // MOUNT_STATISTICS_H_
