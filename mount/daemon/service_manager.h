// What systemd, as the service manager, does for a unit of Type=notify that runs `pkramfs -f`: it
// learns when the mount is there, and keeps descriptors for the unit's next start
// (FileDescriptorStoreMax=).  So a mount whose two processes died at once goes on where they were.
//
// The descriptors are an Estate's, each by its name, and one more with what else is in it: a few
// words.  See sd_pid_notify_with_fds(3), sd_listen_fds(3).
#ifndef MOUNT_DAEMON_SERVICE_MANAGER_H_
#define MOUNT_DAEMON_SERVICE_MANAGER_H_

#include <optional>

#include "mount/daemon/link.h"

namespace pkramfs {

// The mount is there, and this process, its keeper, is the service's main one, whoever was before
// (NotifyAccess=all).  The manager keeps `estate`, if the unit says that it may.  Without a manager
// nothing happens.
void TellServiceManager(const Estate& estate);

// What the manager has kept of a mount that has not ended; its `server` is this process.  What is
// left of one that has ended is given back.
std::optional<Estate> KeptByServiceManager();

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_SERVICE_MANAGER_H_
