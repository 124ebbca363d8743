// pkramctl release: frees a region in a memfd.
#ifndef MOUNT_CTL_RELEASE_H_
#define MOUNT_CTL_RELEASE_H_

#include <string>

namespace pkramfs {

// `given`: what the user calls the region.  Returns the exit status.
int RunRelease(const std::string& given);

}  // namespace pkramfs

#endif  // MOUNT_CTL_RELEASE_H_
