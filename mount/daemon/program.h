// The program that serves, as a file and its arguments.  A successor is started from it.
#ifndef MOUNT_DAEMON_PROGRAM_H_
#define MOUNT_DAEMON_PROGRAM_H_

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/daemon/link.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// What a program is told when it is started for a mount that is there already.  On its command line
// that is the first argument: --successor=5 or --keeper=5,6,1234.
struct Role {
  int link = -1;     // descriptor: to the keeper, or to the server
  int estate = -1;   // a keeper's that was another program before: where its estate is
  pid_t server = 0;  // and its child
};

// The program's file is held open.  So the same file is started again, whatever has its name by
// then.
class Program {
 public:
  // This one, with the arguments that it was started with.  FAILED_PRECONDITION without /proc.
  static absl::StatusOr<Program> Self(std::vector<std::string> arguments);
  // A program that another process has handed over.
  Program(pkram::Descriptor file, std::vector<std::string> arguments)
      : file_(std::move(file)), arguments_(std::move(arguments)) {}

  // Another program, with the same arguments.  FAILED_PRECONDITION says why not: it cannot be run,
  // or it says that it cannot go on in this one's place, because its version is older or it does
  // not know an option.
  absl::StatusOr<Program> Other(const std::string& path) const;

  const pkram::Descriptor& file() const { return file_; }
  const std::vector<std::string>& arguments() const { return arguments_; }

  // Starts the program as a keeper or a successor ("--keeper" or "--successor", as `role` says),
  // which has `estate` from its first moment.  Returns this end of the link between the two, and
  // the new process's id.  RESOURCE_EXHAUSTED.
  absl::StatusOr<Link> StartHeir(const std::string& role, const Estate& estate, pid_t* pid) const;

  // Makes this process, a keeper, become the program.  Returns only when it cannot.
  void Become(const Link& link, const Estate& estate, pid_t server) const;

 private:
  absl::StatusOr<pid_t> Start(const std::string& first, const Link* link) const;
  std::vector<char*> Argv(const std::string& first) const;

  pkram::Descriptor file_;
  std::vector<std::string> arguments_;
};

// The version of everything that one program hands to another.  --can-take-over= asks for it.
std::string HandoverVersion();

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_PROGRAM_H_
