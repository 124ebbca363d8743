// Directories of this machine's filesystems.
#ifndef MOUNT_TOOLS_DIRECTORY_H_
#define MOUNT_TOOLS_DIRECTORY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// "PATH: what errno says".  FAILED_PRECONDITION.
absl::Status Failed(const std::string& path, int error);

// The names in an open directory, without "." and "..".  Errors name `path`.
absl::StatusOr<std::vector<std::string>> ListNames(int directory, const std::string& path);

// Makes a directory of mode 0700, or opens one that is empty.  FAILED_PRECONDITION otherwise.
absl::StatusOr<pkram::Descriptor> OpenEmptyDirectory(const std::string& path);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_DIRECTORY_H_
