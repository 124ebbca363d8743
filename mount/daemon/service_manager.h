// systemd as the service manager of a unit of Type=notify that runs `pkramfs -f`.  systemd learns
// when the mount is there, and keeps descriptors for the unit's next start
// (FileDescriptorStoreMax=).  So a mount goes on even when both of its processes have died at once.
//
// The descriptors are those of an Estate, each with a name, and one more with the Estate's text.
// See sd_pid_notify_with_fds(3), sd_listen_fds(3).
#ifndef MOUNT_DAEMON_SERVICE_MANAGER_H_
#define MOUNT_DAEMON_SERVICE_MANAGER_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/daemon/link.h"

namespace pkramfs {

// Tells the manager that the mount is there, and that this process, its keeper, is the service's
// main process now (NotifyAccess=all).  The manager keeps `estate`, if the unit allows it.  Without
// a manager nothing happens.
void TellServiceManager(const Estate& estate);

// Whether there is a manager.
bool HasServiceManager();
// Whether there is one that keeps descriptors.  (systemd says so from version 254 on.)
bool ServiceManagerKeepsRegions();

// Says that the mount is over.  The manager gives back what it has kept, but for the region with
// `keeps_region`.
void LeaveServiceManager(bool keeps_region);

// The estate that the manager has kept of a mount that has not ended.  Its `server` is this
// process.  If the mount has ended, what is left of it is given back.  The region stays if it is
// the memfd that `region` names, and this process has it open; also if the kernel before has left
// it.  An error says that the kernel does not give it back.
absl::StatusOr<std::optional<Estate>> KeptByServiceManager(const std::string& region);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_SERVICE_MANAGER_H_
