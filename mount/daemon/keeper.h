// A small process beside each server.  It holds what a server's successor needs, does nothing for
// requests, and starts the successor when the server ends without having been told to.
//
//   server  --- its descriptors, as soon as it serves --->  keeper
//   server  dies;  the keeper sees the link close, and starts the program again
//   keeper  --- the descriptors --->  successor, which serves, and hands over its own
//
// The other way round a server whose keeper dies starts another.  And a server that is to be
// replaced by another program hands over that, and ends: the successor is that program, or, if it
// cannot, the old one again; then the keeper becomes it, too.
#ifndef MOUNT_DAEMON_KEEPER_H_
#define MOUNT_DAEMON_KEEPER_H_

#include <sys/types.h>

#include <optional>

#include "mount/daemon/link.h"
#include "mount/daemon/program.h"
#include "mount/daemon/startup.h"
#include "mount/region/options.h"

namespace pkramfs {

// What a successor ends with when there is no use in another.  (And mount(8)'s, which passes on
// what its helpers end with.)
inline constexpr int kRefused = 32;

// The keeper's life: until the mount is over.  `server` is the process at the other end of `link`
// if it is a child of this one, else 0.  `estate`: what it keeps already, if it does.  Returns what
// to end with: as the server, 0 when the mount ended, 1 when there was no successor to be had.
// `startup`: who waits for the mount, and hears of it as soon as there is what to keep: then it is
// there whoever dies.  Null when nobody does.
int Keep(Program program, Link link, pid_t server, std::optional<Estate> estate,
         const MountOptions& options, Startup* startup);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_KEEPER_H_
