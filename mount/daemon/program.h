// The program that serves, as a file and its arguments: what a successor is started from.
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

// What a program is told that is started for a mount that is there.  On its command line that is
// the first argument, as --successor=5 or --keeper=5,6,1234.
struct Role {
  int link = -1;     // descriptor: to the keeper, or to the server
  int estate = -1;   // a keeper's that was another program before: where its estate is
  pid_t server = 0;  // and its child
};

// It is held open: what is started again is the same file, whatever has its name by then.
class Program {
 public:
  // This one, with the arguments that it was started with.  FAILED_PRECONDITION without /proc.
  static absl::StatusOr<Program> Self(std::vector<std::string> arguments);
  // One that somebody has handed over.
  Program(pkram::Descriptor file, std::vector<std::string> arguments)
      : file_(std::move(file)), arguments_(std::move(arguments)) {}

  // Another one, with the same arguments.  FAILED_PRECONDITION, saying why, when it cannot be run,
  // or says that it cannot go on where this one is: it is of an older version, or does not know an
  // option.
  absl::StatusOr<Program> Other(const std::string& path) const;

  const pkram::Descriptor& file() const { return file_; }
  const std::vector<std::string>& arguments() const { return arguments_; }

  // Starts it as an heir, which has `estate` from its first moment: "--keeper" or "--successor" as
  // `role` says.  This end of the link between the two, and the process's id; RESOURCE_EXHAUSTED.
  absl::StatusOr<Link> StartHeir(const std::string& role, const Estate& estate, pid_t* pid) const;

  // This process, a keeper, becomes the program.  Returns when it cannot.
  void Become(const Link& link, const Estate& estate, pid_t server) const;

 private:
  absl::StatusOr<pid_t> Start(const std::string& first, const Link* link) const;
  std::vector<char*> Argv(const std::string& first) const;

  pkram::Descriptor file_;
  std::vector<std::string> arguments_;
};

// What --can-take-over= asks for: the version of all that one program hands to another.
std::string HandoverVersion();

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_PROGRAM_H_
