#include "mount/daemon/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/daemon/log.h"
#include "mount/daemon/startup.h"
#include "mount/daemon/threads.h"
#include "mount/region/privileges.h"
#include "mount/serve/in_flight.h"

extern char** environ;

namespace pkramfs {
namespace {

using pkram::Descriptor;

// Servers that die one after the other and have answered nothing.  (Whoever kills them on purpose
// may kill many before one gets so far.)
constexpr int kMostDeaths = 100;
// What a successor ends with when the next one would not do better (see daemon.cc).
constexpr int kRefused = 32;

void Sleep(int milliseconds) { poll(nullptr, 0, milliseconds); }

// How the child ended, in words, and what this process ends with because of it.
struct Death {
  std::string how = "ended";
  int status = 1;
};

Death Reap(pid_t child) {
  Death death;
  int status = 0;
  if (child <= 0 || waitpid(child, &status, 0) != child) return death;
  if (WIFSIGNALED(status)) {
    death.how =
        absl::StrCat("ended by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")");
    death.status = 128 + WTERMSIG(status);
  } else {
    death.status = WEXITSTATUS(status);
    death.how = absl::StrCat("ended with status ", death.status);
  }
  return death;
}

// A keeper is told to end when its server is: it tells the server, and ends after it.
void PassOn(int signals, pid_t child, const std::optional<Estate>& estate) {
  signalfd_siginfo info;
  if (read(signals, &info, sizeof(info)) != sizeof(info)) return;
  const int number = static_cast<int>(info.ssi_signo);
  if (child > 0) {
    kill(child, number);
  } else if (estate) {
    syscall(SYS_pidfd_send_signal, estate->server.get(), number, nullptr, 0);
  }
}

}  // namespace

absl::StatusOr<Program> Program::Self(std::vector<std::string> arguments) {
  Program program;
  program.file_ = Descriptor(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (program.file_.get() < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot open /proc/self/exe (", std::strerror(errno), "): mount /proc"));
  }
  program.arguments_ = std::move(arguments);
  return program;
}

absl::StatusOr<pid_t> Program::Start(const std::string& role, const Link& link) const {
  const std::string path = absl::StrCat("/proc/self/fd/", file_.get());
  const std::string what = absl::StrCat(role, "=", link.fd());
  std::vector<char*> argv = {const_cast<char*>("pkramfs"), const_cast<char*>(what.c_str())};
  for (const std::string& argument : arguments_)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // To itself: it is not closed then.
  posix_spawn_file_actions_adddup2(&actions, link.fd(), link.fd());
  pid_t pid = 0;
  const int error = posix_spawn(&pid, path.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return pid;
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot start the program again: ", std::strerror(error)));
}

absl::StatusOr<Link> Program::StartHeir(const std::string& role, const Estate& estate,
                                        pid_t* pid) const {
  absl::StatusOr<std::pair<Link, Link>> ends = Link::Make();
  if (!ends.ok()) return ends.status();
  // First, so that it has all that it needs from its first moment, whatever becomes of this
  // process.
  if (!ends->first.HandOver(estate)) return absl::InternalError("cannot hand over");
  const absl::StatusOr<pid_t> started = Start(role, ends->second);
  if (!started.ok()) return started.status();
  *pid = *started;
  return std::move(ends->first);
}

int Keep(const Program& program, Link link, pid_t server, const MountOptions& options) {
  const sigset_t end_signals = EndSignals();
  const Descriptor signals(signalfd(-1, &end_signals, SFD_CLOEXEC));
  std::optional<Estate> estate;
  uint64_t progress = 0;
  int deaths = 0;
  for (;;) {
    pollfd events[] = {{link.fd(), POLLIN, 0}, {signals.get(), POLLIN, 0}};
    if (poll(events, 2, -1) < 0) continue;
    if (events[1].revents != 0) PassOn(signals.get(), server, estate);
    if (events[0].revents == 0) continue;
    if (std::optional<Estate> now = link.Receive()) {
      if (!estate) {
        if (!options.foreground) Detach();
        SettleDown(options.lock_memory, true, true);
      }
      estate = std::move(now);
      continue;
    }
    const Death death = Reap(server);
    if (!estate) return death.status;
    if (InFlight::Ended(estate->in_flight.get())) return server > 0 ? death.status : 0;
    const uint64_t answered = InFlight::Progress(estate->in_flight.get());
    // It has said why.
    if (death.status == kRefused) return kRefused;
    deaths = answered == progress ? deaths + 1 : 1;
    progress = answered;
    if (deaths > kMostDeaths) {
      const std::string where = estate->mount_point;
      estate.reset();
      Log(LOG_ERR, absl::StrCat(where, ": ", kMostDeaths,
                                " servers have died one after the other and answered nothing: "
                                "giving up; unmount it (umount -l), check the region, and mount "
                                "it again"));
      return 1;
    }
    InFlight::NoteDeath(estate->in_flight.get(), death.how);
    if (deaths > 1) Sleep(deaths);
    absl::StatusOr<Link> to_heir = program.StartHeir("--successor", *estate, &server);
    // Memory and processes may be there again in a moment.
    for (; !to_heir.ok() && deaths < kMostDeaths; ++deaths) {
      Sleep(100);
      to_heir = program.StartHeir("--successor", *estate, &server);
    }
    if (!to_heir.ok()) {
      const std::string where = absl::StrCat(estate->mount_point, ": the server ", death.how);
      estate.reset();
      Log(LOG_ERR, absl::StrCat(where, ", and there is no other: ",
                                std::string(to_heir.status().message()), ": giving up"));
      return 1;
    }
    link = *std::move(to_heir);
  }
}

}  // namespace pkramfs
