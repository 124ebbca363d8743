// A holder: a small process that has the memfd of a region open while there is no mount of it.  It
// does nothing else, and lasts until it is told to end (SIGTERM): then the region's memory is free.
// A process that starts one may have threads only if they do not hold locks of the allocator.
#ifndef MOUNT_REGION_HOLDER_H_
#define MOUNT_REGION_HOLDER_H_

#include <vector>

#include "absl/status/status.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// Starts a holder.  `region` is the memfd, opened by anybody.  RESOURCE_EXHAUSTED.
absl::Status StartHolder(int region);

// The holders of that memfd, as pidfds.
std::vector<pkram::Descriptor> HoldersOf(int region);

// Tells a holder to end, and waits until it has.
void EndHolder(const pkram::Descriptor& holder);

}  // namespace pkramfs

#endif  // MOUNT_REGION_HOLDER_H_
