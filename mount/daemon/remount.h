// `mount -o remount`: what of a mount can be changed in place.
#ifndef MOUNT_DAEMON_REMOUNT_H_
#define MOUNT_DAEMON_REMOUNT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "mount/region/options.h"

namespace pkramfs {

// Changes the mount on options.mount_point: its flags, size= and nr_inodes=.  Options that the
// mount has already are taken, as mount(8) gives those of fstab and of the kernel again; mode=,
// uid= and gid= are a new filesystem's.  INVALID_ARGUMENT names an option that would have to
// change and cannot.  Where an error is returned, nothing was changed.  `warn` gets sentences about
// what will go wrong later.
absl::Status Remount(const MountOptions& options,
                     const std::function<void(const std::string&)>& warn);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_REMOUNT_H_
