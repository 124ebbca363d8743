// Directories of this machine.
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

// The names in an open directory, but "." and "..".  Errors name `path`.
absl::StatusOr<std::vector<std::string>> ListNames(int directory, const std::string& path);

// A directory that is made, mode 0700, or is there and empty; else FAILED_PRECONDITION.
absl::StatusOr<pkram::Descriptor> OpenEmptyDirectory(const std::string& path);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_DIRECTORY_H_
