// What libfuse before 3.17 cannot tell the kernel when a session begins: that we take set-id bits
// and capabilities off a file that is written, truncated or given away (HANDLE_KILLPRIV_V2).  The
// kernel asks for security.capability before each write otherwise.
#ifndef MOUNT_HANDSHAKE_H_
#define MOUNT_HANDSHAKE_H_

#include <fuse_lowlevel.h>

#include <atomic>

namespace pkramfs {

struct Handshake {
  std::atomic<bool> offered = false;  // the kernel knows it
  std::atomic<bool> done = false;
};

// Has a mounted session say it, whose user data is a Server.  0, or a negative errno.
int SayThatPrivilegesAreDropped(fuse_session* session);

}  // namespace pkramfs

#endif  // MOUNT_HANDSHAKE_H_
