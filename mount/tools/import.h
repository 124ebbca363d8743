// pkramctl import: brings a tree of files into a region, past the kernel's transport.
#ifndef MOUNT_TOOLS_IMPORT_H_
#define MOUNT_TOOLS_IMPORT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/filesystem.h"
#include "mount/tools/tree_source.h"

namespace pkramfs {

struct ImportOptions {
  // A path on a mount, or REGION:/PATH, of a region that is mounted or is not, or MOUNT:/PATH.
  std::string target;
  std::vector<std::string> sources;
  Filesystem::Placing placing = Filesystem::Placing::kNew;
  int threads = 0;  // 0: as many as there are processors
};

// The same for a filesystem that this process has open, of a region at that path which nobody else
// uses.  `path` is in the filesystem; "" is its root, into which the tree is merged.
absl::Status ImportInto(Filesystem* fs, const std::string& region_path, const std::string& path,
                        const ImportOptions& options, ImportProgress* progress);

// When this returns, the whole tree is there.  After an error nothing of it is there, except with
// kMerge, whose files come one by one.
absl::Status Import(const ImportOptions& options, ImportProgress* progress);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_IMPORT_H_
