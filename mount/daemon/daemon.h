// One mount, from the command line to the seal.
#ifndef MOUNT_DAEMON_DAEMON_H_
#define MOUNT_DAEMON_DAEMON_H_

#include <string>
#include <vector>

#include "mount/daemon/program.h"
#include "mount/region/options.h"

namespace pkramfs {

// Mounts and serves until it is unmounted or told to end, or changes what is mounted already
// (remount); the exit status.  `arguments`: what `options` were read from, for successors.
int Serve(const MountOptions& options, const std::vector<std::string>& arguments);

// What the program is when it is started for a mount that is there.
int ServeInPlaceOf(const Role& role, const MountOptions& options,
                   const std::vector<std::string>& arguments);
int KeepFor(const Role& role, const MountOptions& options,
            const std::vector<std::string>& arguments);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_DAEMON_H_
