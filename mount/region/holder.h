// A holder: a small process that has the memfd of a region open while there is no mount of it.  It
// does nothing else, and lasts until it is told to end (SIGTERM): then the region's memory is free.
//
// A holder of sessions has a session open that preserves the memfd (live_update.h).
//
// Root's holders leave the cgroup of whoever starts them, so they do not end with that.  A process
// that starts one may have threads only if they do not hold locks of the allocator.
#ifndef MOUNT_REGION_HOLDER_H_
#define MOUNT_REGION_HOLDER_H_

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

enum class Holds { kRegion, kSession };

// What a holder has open; without a session one of its kind has only the region.
struct Held {
  pkram::Descriptor region;
  pkram::Descriptor session{-1};
  // Called when whoever goes through /proc can see that the holder has the region.  What this uses
  // must have descriptors from kFree on.
  std::function<void()> in_place{};
  static constexpr int kFree = 16;
};

// Starts a holder of `region`, the memfd, opened by anybody; and of `session`, if that is not -1.
// RESOURCE_EXHAUSTED.
absl::Status StartHolder(int region, int session = -1);

// Starts a holder that gets the memfd itself.  `get` is called in that process, which goes on if
// this one is killed.  Its error is returned.
absl::Status StartHolderThatGets(const std::function<absl::StatusOr<Held>()>& get);

// The holders of that memfd, as pidfds.
std::vector<pkram::Descriptor> HoldersOf(int region, Holds what = Holds::kRegion);

// Tells a holder to end, and waits until it has.
void EndHolder(const pkram::Descriptor& holder);

}  // namespace pkramfs

#endif  // MOUNT_REGION_HOLDER_H_
