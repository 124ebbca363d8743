// Attributes of this machine's files.
#ifndef MOUNT_TOOLS_FILE_ATTRIBUTES_H_
#define MOUNT_TOOLS_FILE_ATTRIBUTES_H_

#include <sys/stat.h>

#include <string>

#include "absl/status/status.h"
#include "fs/tree_builder.h"

namespace pkramfs {

// Whether both are of the same file, and it has not changed in between.
bool IsSame(const struct stat& a, const struct stat& b);

// All attributes except extended ones.
TreeBuilder::Attributes AttributesOf(const struct stat& st);

// Reads the extended attributes of an open file, or of a path whose links are not followed.  Takes
// those that this filesystem keeps: not system.*, except ACLs.  Errors name `path`.
absl::Status ReadXattrs(int fd, const std::string& path, uint32_t mode, std::string* blob);
absl::Status ReadXattrs(const std::string& file, const std::string& path, uint32_t mode,
                        std::string* blob);

// Gives `to` the extended attributes of `from`.  Both are open directories of a pkramfs.  `to`
// loses an ACL that `from` does not have.  Errors name `path`.
absl::Status CopyXattrs(int from, int to, uint32_t mode, const std::string& path);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_FILE_ATTRIBUTES_H_
