// The beginning of a session.  INIT is read from the kernel and answered by hand, before anybody is
// told that the mount serves.  So what the kernel or libfuse refuses is an error of the mount.
//
// libfuse makes the answer.  Two things are added for which it has no words.  HANDLE_KILLPRIV_V2
// says that we take set-id bits and capabilities off a file that is written, truncated or given
// away. Without it the kernel asks for security.capability before each buffered write.
// (libfuse 3.17 knows it.)  ALLOW_IDMAP says that the mount may be idmapped.  (libfuse 3.19 knows
// it.)
#ifndef MOUNT_SERVE_HANDSHAKE_H_
#define MOUNT_SERVE_HANDSHAKE_H_

#include <fuse_lowlevel.h>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mount/serve/in_flight.h"

namespace pkramfs {

// To be called on a mounted session, before anything else reads its requests.  Waits for the
// kernel's INIT, answers it, and keeps it for a successor. INTERNAL says which side refused;
// CANCELLED when the mount is gone.
absl::Status BeginSession(fuse_session* session, InFlight* in_flight);

// For a successor.  The kernel has its answer and does not ask again.  libfuse learns from the kept
// INIT what was agreed on.
absl::Status ResumeSession(fuse_session* session, const InFlight& in_flight);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_HANDSHAKE_H_
