// A small process beside each server.  It holds what a server's successor needs, does nothing for
// requests, and starts the successor when the server ends without having been told to.
//
//   server  --- its descriptors, as soon as it serves --->  keeper
//   server  dies;  the keeper sees the link close, and starts the program again
//   keeper  --- the descriptors --->  successor, which serves, and hands over its own
//
// A server whose keeper dies starts another keeper.  For an upgrade, the server hands the new
// program to the keeper, and ends.  The keeper starts the new program as the successor, or the old
// one again if that fails.  After a success the keeper becomes the new program, too.
#ifndef MOUNT_DAEMON_KEEPER_H_
#define MOUNT_DAEMON_KEEPER_H_

#include <sys/types.h>

#include <optional>

#include "mount/daemon/link.h"
#include "mount/daemon/program.h"
#include "mount/daemon/startup.h"
#include "mount/region/options.h"

namespace pkramfs {

// The exit status of a successor that says: do not start another.  (It is mount(8)'s, too, which
// passes on the status of its helpers.)
inline constexpr int kRefused = 32;

// Runs the keeper until the mount is over.  `server` is the process at the other end of `link` if
// that is a child of this process, or else 0.  `estate` is what it keeps already, if anything.
// `startup` is told that the mount is there as soon as the keeper has something to keep, because
// from then on the mount survives the death of either process; it may be null.  Returns the exit
// status: the server's own, 0 when the mount has ended, 1 when no successor could be started.
int Keep(Program program, Link link, pid_t server, std::optional<Estate> estate,
         const MountOptions& options, Startup* startup);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_KEEPER_H_
