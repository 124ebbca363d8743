// pkramctl export: brings a tree out of a region, past the kernel's transport.
#ifndef MOUNT_TOOLS_EXPORT_H_
#define MOUNT_TOOLS_EXPORT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "mount/tools/tree_source.h"

namespace pkramfs {

struct ExportOptions {
  // As ImportOptions::target; the region may also be the image of a checkpoint.
  std::string source;
  // A new or empty directory; "" writes an archive (tar, in the pax format) to `output`.
  std::string directory;
  int output = -1;
};

// Exports the tree as it is at one moment.  A mount goes on meanwhile; but changes wait while this
// notes which files there are.  `skipped` gets a line for each socket, because archives have no
// sockets. FAILED_PRECONDITION; DATA_LOSS when the region is damaged (pkramctl check).
absl::Status Export(const ExportOptions& options, ImportProgress* progress,
                    const std::function<void(const std::string&)>& skipped);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_EXPORT_H_
