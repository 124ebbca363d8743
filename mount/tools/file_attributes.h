// What a file of this machine is, but for its contents.
#ifndef MOUNT_TOOLS_FILE_ATTRIBUTES_H_
#define MOUNT_TOOLS_FILE_ATTRIBUTES_H_

#include <sys/stat.h>

#include <string>

#include "absl/status/status.h"
#include "fs/tree_builder.h"

namespace pkramfs {

// Whether it is the same file, and nothing of it has changed.
bool IsSame(const struct stat& a, const struct stat& b);

// All but its extended attributes.
TreeBuilder::Attributes AttributesOf(const struct stat& st);

// The extended attributes of an open file, or of what a path leads to, links not followed: those
// that this filesystem keeps (not system.*, but ACLs).  Errors name `path`.
absl::Status ReadXattrs(int fd, const std::string& path, uint32_t mode, std::string* blob);
absl::Status ReadXattrs(const std::string& file, const std::string& path, uint32_t mode,
                        std::string* blob);

// `to` gets those of `from`; both are open directories of a pkramfs.  It loses an ACL that `from`
// does not have.  Errors name `path`.
absl::Status CopyXattrs(int from, int to, uint32_t mode, const std::string& path);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_FILE_ATTRIBUTES_H_
