// One mount, from the command line to the seal.
#ifndef MOUNT_DAEMON_DAEMON_H_
#define MOUNT_DAEMON_DAEMON_H_

#include "mount/region/options.h"

namespace pkramfs {

// Mounts and serves until it is unmounted or told to end, or changes what is mounted already
// (remount); the exit status.
int Serve(const MountOptions& options);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_DAEMON_H_
