// What pkramctl does with images of regions (pkram/image.h).
#ifndef MOUNT_TOOLS_IMAGES_H_
#define MOUNT_TOOLS_IMAGES_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/types.h"

namespace pkramfs {

// Whether a file ends as an image does.  It may be a damaged image.
bool IsImage(const std::string& path);

// The damaged pages of an image, each with the path of the file that it belongs to (OwnersOf), or
// "" where that is not known.  Errors as pkram::Image::Open's.
absl::StatusOr<std::map<pkram::Pfn, std::string>> DamagedPages(const std::string& path);

// Makes a region from an image, where there is none.  ALREADY_EXISTS, FAILED_PRECONDITION when
// something is there; errors of pkram::Restore.  A failure leaves nothing behind, except on a
// device.
absl::Status RestoreImage(const std::string& image, const std::string& region);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_IMAGES_H_
