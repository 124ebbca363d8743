// A session of libfuse: a mount, as long as this object lives.
#ifndef MOUNT_DAEMON_SESSION_H_
#define MOUNT_DAEMON_SESSION_H_

#include <fuse_lowlevel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/types.h"
#include "mount/daemon/link.h"
#include "mount/daemon/threads.h"
#include "mount/region/mount_flags.h"
#include "mount/region/mount_point.h"
#include "mount/serve/in_flight.h"
#include "mount/serve/server.h"
#include "pkram/descriptor.h"

namespace pkramfs {

class Session {
 public:
  // Mounts on a directory, and begins the session.  When this returns, the kernel has taken our
  // answer to INIT.  If this process may mount, it mounts on exactly the directory that it looked
  // at, and later unmounts exactly that mount, even if somebody renames a directory above.  For
  // ordinary users (and with auto_unmount) fusermount3 mounts: it goes to the path with their
  // rights.  `server` and `in_flight` outlive this.
  static absl::StatusOr<std::unique_ptr<Session>> Mount(const std::string& fuse_options,
                                                        const FlagChange& flags,
                                                        const std::string& mount_point,
                                                        bool by_itself, Server* server,
                                                        InFlight* in_flight);
  // Goes on with the session of a server that died, on its connection to the kernel.
  static absl::StatusOr<std::unique_ptr<Session>> Resume(Estate estate,
                                                         const std::string& fuse_options,
                                                         Server* server, InFlight* in_flight);
  // Unmounts.
  ~Session();

  // Starts to answer requests, those that a predecessor has left first.  RESOURCE_EXHAUSTED when no
  // thread can be started.
  absl::Status Start() { return threads_->Start(); }
  // Waits until the mount is unmounted or the process is told to end, and no request is being
  // answered; or until Threads' Wait returns.
  Threads::Wake WaitToEnd(int link, int timeout);
  bool ended() const { return fuse_session_exited(session_) != 0; }

  // Makes the kernel forget what it has cached of an inode's attributes.
  void ForgetAttributes(Ino ino) { fuse_lowlevel_notify_inval_inode(session_, ino, -1, 0); }
  // The mount.  Empty if that cannot be known.
  const MountIdentity& mount() const { return mount_; }
  // The connection to the kernel.
  int connection() const { return fuse_session_fd(session_); }
  // The socket to the fusermount3 that unmounts once nobody has it open; -1 without auto_unmount.
  int fusermount() const { return fusermount_.get(); }

 private:
  Session() = default;
  absl::Status Make(const std::string& fuse_options, Server* server);
  void Unmount();
  // Whether somebody has unmounted it.
  bool IsGone() const;

  fuse_session* session_ = nullptr;
  std::unique_ptr<Threads> threads_;
  MountIdentity mount_;
  bool mounted_ = false;
  pkram::Descriptor fusermount_{-1};
  // Made before the mount, which could not be unmounted without it.
  pkram::Descriptor broken_pipe_{-1};
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_SESSION_H_
