// pkramctl check: the problems of a region or an image, and what is intact in spite of them.
#ifndef MOUNT_CTL_CHECK_H_
#define MOUNT_CTL_CHECK_H_

#include <string>

namespace pkramfs {

// Both print what they find, and return the exit status.
int RunCheck(const std::string& region);
// Copies what is intact to `directory`, which is new or empty.
int RunSalvage(const std::string& region, const std::string& directory);

}  // namespace pkramfs

#endif  // MOUNT_CTL_CHECK_H_
