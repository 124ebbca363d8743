// One mount, from the command line to the seal.
#ifndef MOUNT_DAEMON_DAEMON_H_
#define MOUNT_DAEMON_DAEMON_H_

#include <string>
#include <vector>

#include "mount/daemon/program.h"
#include "mount/region/options.h"

namespace pkramfs {

// Mounts, and serves until the mount is unmounted or the process is told to end.  Or changes a
// mount that is there (remount).  Returns the exit status.  `arguments` is the command line that
// `options` were read from, for successors.
int Serve(const MountOptions& options, const std::vector<std::string>& arguments);

// The role of the program when it is started for a mount that is there already.
int ServeInPlaceOf(const Role& role, const MountOptions& options,
                   const std::vector<std::string>& arguments);
int KeepFor(const Role& role, const MountOptions& options,
            const std::vector<std::string>& arguments);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_DAEMON_H_
