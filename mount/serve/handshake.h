// The beginning of a session: INIT, read from the kernel and answered by hand, before anybody is
// told that the mount serves.  So what the kernel or libfuse refuses is an error of the mount.
//
// libfuse makes the answer; what it has no words for is added: that we take set-id bits and
// capabilities off a file that is written, truncated or given away (HANDLE_KILLPRIV_V2; without it
// the kernel asks for security.capability before each buffered write; libfuse 3.17 knows it), and
// that the mount may be idmapped (ALLOW_IDMAP; libfuse 3.19).
#ifndef MOUNT_SERVE_HANDSHAKE_H_
#define MOUNT_SERVE_HANDSHAKE_H_

#include <fuse_lowlevel.h>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mount/serve/in_flight.h"

namespace pkramfs {

// Of a mounted session, before anything else reads its requests.  Waits for the kernel's INIT, and
// keeps it for a successor.
// INTERNAL says which side refused; CANCELLED when the mount is gone.
absl::Status BeginSession(fuse_session* session, InFlight* in_flight);

// In the place of a process that died: the kernel has its answer, and does not ask again; libfuse
// learns from the kept INIT what was agreed on.
absl::Status ResumeSession(fuse_session* session, const InFlight& in_flight);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_HANDSHAKE_H_
