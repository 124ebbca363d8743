// Who sent a request, as far as that can be known.
//
// The kernel names the caller in requests that create something.  In others a mount that may be
// idmapped (see handshake.h) says -1, so that /proc has to be asked; and /proc knows nobody from
// outside of the daemon's pid namespace.  What the kernel itself says about a caller's rights comes
// before both.
#ifndef MOUNT_SERVE_CALLER_H_
#define MOUNT_SERVE_CALLER_H_

#include <fuse_lowlevel.h>

#include <cstddef>
#include <optional>

#include "fs/types.h"
#include "mount/serve/in_flight.h"

namespace pkramfs {

// The user, or nothing.
std::optional<uid_t> UserOf(fuse_req_t req);

// Whether the caller, whom UserOf allows to control the mount, may name files that this process
// runs or writes.  Root of a container may not: it is not this machine's, and names files of its
// own.
bool MayNamePaths(fuse_req_t req);

// Who calls and when; what is dear to know is found out when it is asked for.  `req` outlives it.
Context ContextOf(fuse_req_t req);

// While it lives, the request that this thread answers, as the kernel sent it: libfuse does not
// hand on all of it.  Its outcome is noted in the slot's receipt.
class CurrentRequest {
 public:
  explicit CurrentRequest(InFlight::Slot* slot);
  ~CurrentRequest();
  CurrentRequest(const CurrentRequest&) = delete;
  CurrentRequest& operator=(const CurrentRequest&) = delete;

  // Of this thread; null when it answers none.
  static InFlight::Slot* Get();
  // Whether a predecessor has executed it, so that it is only answered.
  static bool IsExecuted();
};

}  // namespace pkramfs

#endif  // MOUNT_SERVE_CALLER_H_
