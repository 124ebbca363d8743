// A holder: a small process that has the memfd of a region open while there is no mount of it.  It
// does nothing else, and lasts until it is told to end (SIGTERM): then the region's memory is free.
// A process that starts one may have threads only if they do not hold locks of the allocator.
#ifndef MOUNT_REGION_HOLDER_H_
#define MOUNT_REGION_HOLDER_H_

#include <vector>

#include "absl/status/status.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// Starts a holder.  `region` is the memfd, opened by anybody.  `session`, if it is none of -1, is a
// session that preserves the memfd (live_update.h): such a holder is one of sessions, and ending it
// ends the session.  RESOURCE_EXHAUSTED.
absl::Status StartHolder(int region, int session = -1);

// The holders of that memfd, as pidfds.
enum class Holds { kRegion, kSession };
std::vector<pkram::Descriptor> HoldersOf(int region, Holds what = Holds::kRegion);

// Tells a holder to end, and waits until it has.
void EndHolder(const pkram::Descriptor& holder);

}  // namespace pkramfs

#endif  // MOUNT_REGION_HOLDER_H_
