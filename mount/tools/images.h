// Images of regions (pkram/image.h), as pkramctl deals with them.
#ifndef MOUNT_TOOLS_IMAGES_H_
#define MOUNT_TOOLS_IMAGES_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/types.h"

namespace pkramfs {

// Whether a file ends as an image does, whole or damaged.
bool IsImage(const std::string& path);

// The pages of an image that are damaged, each with the path of what it is of (OwnersOf), or none
// where that is not known.  As pkram::Image::Open says.
absl::StatusOr<std::map<pkram::Pfn, std::string>> DamagedPages(const std::string& path);

// Makes a region of an image, where none is.  ALREADY_EXISTS, FAILED_PRECONDITION when something is
// there; as pkram::Restore says.  What fails leaves nothing behind, but of a device.
absl::Status RestoreImage(const std::string& image, const std::string& region);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_IMAGES_H_
