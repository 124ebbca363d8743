// A small process beside each server.  It holds what a server's successor needs, does nothing for
// requests, and starts the successor when the server ends without having been told to.
//
//   server  --- its descriptors, as soon as it serves --->  keeper
//   server  dies;  the keeper sees the link close, and starts the program again
//   keeper  --- the descriptors --->  successor, which serves, and hands over its own
//
// The other way round a server whose keeper dies starts another.
#ifndef MOUNT_DAEMON_KEEPER_H_
#define MOUNT_DAEMON_KEEPER_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/daemon/link.h"
#include "mount/region/options.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// This program, as it was started.  It is held open: what is started again is the same file,
// whatever has its name by then.
class Program {
 public:
  // FAILED_PRECONDITION without /proc.
  static absl::StatusOr<Program> Self(std::vector<std::string> arguments);

  // Starts it as an heir, which has `estate` from its first moment: "--keeper" or "--successor" as
  // `role` says.  This end of the link between the two, and the process's id; RESOURCE_EXHAUSTED.
  absl::StatusOr<Link> StartHeir(const std::string& role, const Estate& estate, pid_t* pid) const;

 private:
  Program() = default;
  absl::StatusOr<pid_t> Start(const std::string& role, const Link& link) const;
  pkram::Descriptor file_{-1};
  std::vector<std::string> arguments_;
};

// The keeper's life: until the mount is over.  `server` is the process at the other end of `link`
// if it is a child of this one, else 0.  Returns what to end with: as the server, 0 when the mount
// ended, 1 when there was no successor to be had.
int Keep(const Program& program, Link link, pid_t server, const MountOptions& options);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_KEEPER_H_
