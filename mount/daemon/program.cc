#include "mount/daemon/program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace pkramfs {

using pkram::Descriptor;

// The version of the handover.  Raise it when the messages of Link, the arguments of Role, or the
// version of InFlight change.
std::string HandoverVersion() { return "2"; }

absl::StatusOr<Program> Program::Self(std::vector<std::string> arguments) {
  Descriptor file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (file.get() >= 0) return Program(std::move(file), std::move(arguments));
  return absl::FailedPreconditionError(
      absl::StrCat("cannot open /proc/self/exe (", std::strerror(errno), "): mount /proc"));
}

absl::StatusOr<Program> Program::Other(const std::string& path) const {
  const auto refused = [&](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", why));
  };
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return refused(std::strerror(errno));
  Program other(std::move(file), arguments_);
  const absl::StatusOr<pid_t> asked =
      other.Start(absl::StrCat("--can-take-over=", HandoverVersion()), nullptr);
  if (!asked.ok()) return refused(std::string(asked.status().message()));
  int status = 0;
  if (waitpid(*asked, &status, 0) == *asked && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    return other;
  }
  return refused(
      "cannot go on where this server is: it is of another version, or does not take the options "
      "of this mount: unmount it, and mount it with the other program");
}

std::vector<char*> Program::Argv(const std::string& first) const {
  std::vector<char*> argv = {const_cast<char*>("pkramfs"), const_cast<char*>(first.c_str())};
  for (const std::string& argument : arguments_)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  return argv;
}

absl::StatusOr<pid_t> Program::Start(const std::string& first, const Link* link) const {
  const std::string path = absl::StrCat("/proc/self/fd/", file_.get());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // A dup2 to itself says that the new program gets the descriptor.
  if (link != nullptr) posix_spawn_file_actions_adddup2(&actions, link->fd(), link->fd());
  pid_t pid = 0;
  const int error = posix_spawn(&pid, path.c_str(), &actions, nullptr, Argv(first).data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return pid;
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot start the program: ", std::strerror(error)));
}

absl::StatusOr<Link> Program::StartHeir(const std::string& role, const Estate& estate,
                                        pid_t* pid) const {
  absl::StatusOr<std::pair<Link, Link>> ends = Link::Make();
  if (!ends.ok()) return ends.status();
  // The estate is sent first.  So the new process has everything from its first moment, even if
  // this process dies.
  if (!ends->first.HandOver(estate)) return absl::InternalError("cannot hand over");
  const absl::StatusOr<pid_t> started =
      Start(absl::StrCat(role, "=", ends->second.fd()), &ends->second);
  if (!started.ok()) return started.status();
  *pid = *started;
  return std::move(ends->first);
}

void Program::Become(const Link& link, const Estate& estate, pid_t server) const {
  absl::StatusOr<std::pair<Link, Link>> ends = Link::Make();
  if (!ends.ok() || !ends->first.HandOver(estate)) return;
  const std::string role =
      absl::StrCat("--keeper=", link.fd(), ",", ends->second.fd(), ",", server);
  const int kept[] = {link.fd(), ends->second.fd()};
  for (const int fd : kept) fcntl(fd, F_SETFD, 0);
  execve(absl::StrCat("/proc/self/fd/", file_.get()).c_str(), Argv(role).data(), environ);
  for (const int fd : kept) fcntl(fd, F_SETFD, FD_CLOEXEC);
}

}  // namespace pkramfs
