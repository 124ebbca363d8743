// Who sent a request, as far as that can be known.
//
// The kernel names the caller in requests that create something.  In other requests, a mount that
// may be idmapped (see handshake.h) says -1, and /proc has to be asked.  /proc shows nobody from
// outside of the daemon's pid namespace.  If the kernel itself says something about a caller's
// rights, that counts first.
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

// Whether the caller may name files that this process runs or writes.  UserOf says whether it may
// control the mount at all.  Root of a container may not name files: it is not root of this
// machine, and its names mean other files.
bool MayNamePaths(fuse_req_t req);

// Who calls and when.  Facts that are expensive to know are found out when they are asked for.
// `req` outlives this.
Context ContextOf(fuse_req_t req);

// The request that this thread answers, as the kernel sent it, as long as this object lives.
// (libfuse does not hand on all of it.)  The request's outcome is noted in the slot's receipt.
class CurrentRequest {
 public:
  explicit CurrentRequest(InFlight::Slot* slot);
  ~CurrentRequest();
  CurrentRequest(const CurrentRequest&) = delete;
  CurrentRequest& operator=(const CurrentRequest&) = delete;

  // The request of this thread; null when it answers none.
  static InFlight::Slot* Get();
  // Whether a predecessor has executed the request, so that it is only to be answered.
  static bool IsExecuted();
};

}  // namespace pkramfs

#endif  // MOUNT_SERVE_CALLER_H_
