// `mount -o remount`: changes a mount in place.
#ifndef MOUNT_DAEMON_REMOUNT_H_
#define MOUNT_DAEMON_REMOUNT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "mount/region/options.h"

namespace pkramfs {

// Changes the mount on options.mount_point: its flags, size=, nr_inodes= and mlock.  Options that
// the mount has already are accepted, because mount(8) passes those of fstab and of the kernel
// again.  mode=, uid= and gid= are ignored: they are of a new filesystem.  INVALID_ARGUMENT names
// an option that would have to change and cannot.  After an error nothing is changed.  `warn` gets
// sentences about what will go wrong later.
absl::Status Remount(const MountOptions& options,
                     const std::function<void(const std::string&)>& warn);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_REMOUNT_H_
