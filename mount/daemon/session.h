// A session of libfuse: a mount that serves as long as this lives.
#ifndef MOUNT_DAEMON_SESSION_H_
#define MOUNT_DAEMON_SESSION_H_

#include <fuse_lowlevel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/types.h"
#include "mount/region/mount_flags.h"
#include "mount/region/mount_point.h"
#include "mount/serve/server.h"
#include "mount/daemon/threads.h"
#include "pkram/descriptor.h"

namespace pkramfs {

class Session {
 public:
  // Mounts on a directory and begins the session: when this returns, the kernel has taken our
  // answer.  By itself, if it may: who may rename what leads to the mount point leads it nowhere
  // else, neither now nor when it unmounts.  fusermount3, which mounts for ordinary users (and
  // with auto_unmount), goes to the path with their rights.  `server` outlives it.
  static absl::StatusOr<std::unique_ptr<Session>> Mount(const std::string& fuse_options,
                                                        const FlagChange& flags,
                                                        const std::string& mount_point,
                                                        bool by_itself, Server* server);
  // Unmounts.
  ~Session();

  // Requests are answered from now on.  RESOURCE_EXHAUSTED without threads.
  absl::Status Start() { return threads_->Start(); }
  // Until it is unmounted or the process is told to end, and no request is being answered.
  void WaitToEnd();
  bool ended() const { return fuse_session_exited(session_) != 0; }

  // What the kernel has cached of them.
  void ForgetAttributes(Ino ino) { fuse_lowlevel_notify_inval_inode(session_, ino, -1, 0); }
  // MAJOR:MINOR, or nothing, if it cannot be known.
  const std::string& device() const { return mount_.device; }

 private:
  Session() = default;
  void Unmount();

  fuse_session* session_ = nullptr;
  std::unique_ptr<Threads> threads_;
  MountIdentity mount_;
  bool by_itself_ = false;
  bool mounted_ = false;
  // Made before the mount, which could not be unmounted without it.
  pkram::Descriptor broken_pipe_{-1};
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_SESSION_H_
