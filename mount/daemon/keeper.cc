#include "mount/daemon/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
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
#include "mount/daemon/service_manager.h"
#include "mount/daemon/startup.h"
#include "mount/daemon/threads.h"
#include "mount/region/holder.h"
#include "mount/region/memfd.h"
#include "mount/region/privileges.h"
#include "mount/serve/in_flight.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// The keeper gives up after so many servers in a row that have died and have answered nothing.  (A
// test that kills them on purpose may kill many before one answers.)
constexpr int kMostDeaths = 100;

// Gives up the estate, after which the mount is dead, and then writes a line.  In the other order
// the line might wait for a file of this mount.
int GiveUp(std::optional<Estate>* estate, const std::string& why) {
  const std::string where = (*estate)->mount_point;
  estate->reset();
  Log(LOG_ERR, absl::StrCat(where, ": ", why));
  return 1;
}

void Sleep(int milliseconds) { poll(nullptr, 0, milliseconds); }

// Says in words how the child has ended, and with which status this process ends because of that.
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

// When the keeper is told to end, it tells the server, and ends after it.
void PassOn(int number, pid_t child, const std::optional<Estate>& estate) {
  if (number == 0) return;
  if (child > 0) {
    kill(child, number);
  } else if (estate) {
    syscall(SYS_pidfd_send_signal, estate->server.get(), number, nullptr, 0);
  }
}

// Keeps a region in a memfd when its mount is over: its data ends with the last process that has it
// open.  A service manager that keeps the descriptor does that as well.
class Holding {
 public:
  explicit Holding(const MountOptions& options) : options_(options) {}
  void Note(const Estate& estate) {
    if (IsMemfd(options_.region)) {
      region_ = Descriptor(fcntl(estate.region.get(), F_DUPFD_CLOEXEC, 3));
    }
  }
  // The mount is over, or nobody will go on with it.
  void NoteEnd() { ended_ = true; }
  ~Holding() {
    const bool is_kept = options_.foreground && ServiceManagerKeepsRegions();
    if (ended_) LeaveServiceManager(IsMemfd(options_.region));
    if (region_.get() < 0) return;
    // Processes may be there again in a moment.
    for (int tries = 0; !is_kept; ++tries) {
      const absl::Status held = StartHolder(region_.get());
      if (held.ok()) break;
      if (tries == 0) {
        Log(LOG_ERR, absl::StrCat(options_.region, ": ", std::string(held.message())));
      }
      Sleep(100);
    }
    // The lock is that of the server, which has ended.  Whoever has it next finds the holder.  (A
    // manager that will start this service again has the same lock.)
    if (ended_ || !is_kept) flock(region_.get(), LOCK_UN);
  }

 private:
  const MountOptions& options_;
  Descriptor region_{-1};
  bool ended_ = false;
};

int NextSignal(int signals) {
  signalfd_siginfo info;
  return read(signals, &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo) : 0;
}

}  // namespace

int Keep(Program program, Link link, pid_t server, std::optional<Estate> estate,
         const MountOptions& options, Startup* startup) {
  const sigset_t end_signals = EndSignals();
  const Descriptor signals(signalfd(-1, &end_signals, SFD_CLOEXEC));
  std::optional<Program> wanted;  // to go on in the server's place when that ends
  std::optional<Program> tried;   // has been started so
  uint64_t progress = 0;
  int deaths = 0;
  Holding holding(options);
  if (estate) holding.Note(*estate);
  int told = 0;  // the signal to end with; for each server, as one may have died of something else
  for (;;) {
    pollfd events[] = {{link.fd(), POLLIN, 0}, {signals.get(), POLLIN, 0}};
    if (poll(events, 2, -1) < 0) continue;
    if (events[1].revents != 0) {
      told = NextSignal(signals.get());
      PassOn(told, server, estate);
    }
    if (events[0].revents == 0) continue;
    if (std::optional<Message> message = link.Receive()) {
      if (!message->estate) {
        wanted.emplace(std::move(message->program), program.arguments());
        continue;
      }
      if (!estate) {
        // Nobody waits any more: the start was interrupted.
        if (startup != nullptr && !startup->Ready()) PassOn(told = SIGTERM, server, estate);
        if (options.foreground) {
          TellServiceManager(*message->estate);
        } else {
          Detach();
        }
        SettleDown(!InFlight::IsTight(message->estate->in_flight.get()), true);
      }
      estate = std::move(message->estate);
      holding.Note(*estate);
      if (!tried) continue;
      program = *std::exchange(tried, std::nullopt);
      program.Become(link, *estate, server);
      continue;
    }
    Death death = Reap(server);
    if (!estate) {
      // A successor of two that died has refused the region: nobody will go on with the mount.
      if (death.status == kRefused) holding.NoteEnd();
      return death.status;
    }
    const int in_flight = estate->in_flight.get();
    if (InFlight::Ended(in_flight)) {
      holding.NoteEnd();
      return server > 0 ? death.status : 0;
    }
    if (tried) {
      tried.reset();
      InFlight::NoteUpgrade(in_flight, InFlight::Upgrade::kFailed);
      death.how = "made way for a program that could not go on";
    } else if (wanted) {
      tried = std::exchange(wanted, std::nullopt);
      InFlight::NoteUpgrade(in_flight, InFlight::Upgrade::kDone);
      death.how = "made way for another program";
    } else if (death.status == kRefused) {
      holding.NoteEnd();
      return kRefused;  // it has said why
    }
    const uint64_t answered = InFlight::Progress(in_flight);
    deaths = answered == progress ? deaths + 1 : 1;
    progress = answered;
    if (deaths > kMostDeaths) {
      return GiveUp(&estate,
                    absl::StrCat(kMostDeaths,
                                 " servers have died one after the other and answered nothing: "
                                 "giving up; unmount it (umount -l), check the region, and mount "
                                 "it again"));
    }
    InFlight::NoteDeath(in_flight, death.how);
    if (deaths > 1) Sleep(deaths);
    const auto start = [&] {
      return (tried ? *tried : program).StartHeir("--successor", *estate, &server);
    };
    absl::StatusOr<Link> to_heir = start();
    // Memory and processes may be there again in a moment.
    for (; !to_heir.ok() && deaths < kMostDeaths; ++deaths) {
      if (std::exchange(tried, std::nullopt)) {
        InFlight::NoteUpgrade(in_flight, InFlight::Upgrade::kFailed);
      }
      Sleep(100);
      to_heir = start();
    }
    if (!to_heir.ok()) {
      return GiveUp(&estate, absl::StrCat("the server ", death.how, ", and there is no other: ",
                                          std::string(to_heir.status().message()), ": giving up"));
    }
    link = *std::move(to_heir);
    PassOn(told, server, estate);
  }
}

}  // namespace pkramfs
