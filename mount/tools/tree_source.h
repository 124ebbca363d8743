// Reads trees of files from this machine's filesystems into lent pages.
#ifndef MOUNT_TOOLS_TREE_SOURCE_H_
#define MOUNT_TOOLS_TREE_SOURCE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/filesystem.h"
#include "fs/tree_builder.h"
#include "pkram/region.h"

namespace pkramfs {

// How far an import has come.  Other threads may read it.
struct ImportProgress {
  std::atomic<uint64_t> inodes{0};
  std::atomic<uint64_t> bytes{0};  // of files' contents that were read, or are to be (CountTree)
  std::atomic<uint64_t> pages{0};  // of the region that it takes; of CountTree
  std::atomic<bool> stop{false};   // set by another thread: CountTree ends with CANCELLED
};

// Builds one source as it is, or of several sources a directory that has each under the last part
// of its path.  Keeps owners, modes, times, attributes, links among the files, and holes.  Errors
// name the path: a file is gone, has changed while it was read, or cannot be read; there is no
// space.
absl::StatusOr<Filesystem::BuiltTree> BuildTree(const std::vector<std::string>& sources,
                                                pkram::Region* region, int threads,
                                                ImportProgress* progress);

// Counts what BuildTree would read and take.  Reads no contents.
absl::Status CountTree(const std::vector<std::string>& sources, ImportProgress* progress);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_TREE_SOURCE_H_
