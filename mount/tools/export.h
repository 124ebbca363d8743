// pkramctl export: a tree of a region goes out at once, past the kernel's transport.
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

// What stands there at one moment.  What is mounted goes on, but for the time in which what there
// is is noted: then whoever changes something waits.  `skipped` gets a line for each socket, of
// which archives know nothing.  FAILED_PRECONDITION, DATA_LOSS: the region is damaged (pkramctl
// check).
absl::Status Export(const ExportOptions& options, ImportProgress* progress,
                    const std::function<void(const std::string&)>& skipped);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_EXPORT_H_
