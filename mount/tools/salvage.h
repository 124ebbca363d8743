// Copies what is intact in a damaged region into a directory.
#ifndef MOUNT_TOOLS_SALVAGE_H_
#define MOUNT_TOOLS_SALVAGE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "pkram/region.h"

namespace pkramfs {

struct Salvaged {
  uint64_t files = 0;  // of all kinds, but for directories
  uint64_t directories = 0;
  uint64_t bytes = 0;
  uint64_t lost = 0;
  uint64_t bare = 0;  // of what was copied: those with attributes that could not be set
  pkram::Region::Report report;
};

// Copies every sound inode of each filesystem in the region at `path` to `directory`/NODE, with its
// names, attributes and holes.  Inodes that no name leads to any more go to
// `directory`/NODE.lost+found.  `lost` gets a line for everything that is not intact: its path, or
// its inode number, and why.  Changes nothing in the region.
//
// `directory` is made, mode 0700, or must be empty.  Errors as Region::Check's; FAILED_PRECONDITION
// or INTERNAL, which names the file, when the directory cannot take it.
absl::StatusOr<Salvaged> SalvageRegion(const std::string& path, const std::string& directory,
                                       const std::function<void(const std::string&)>& lost);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_SALVAGE_H_
