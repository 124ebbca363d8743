#include "mount/daemon/daemon.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "mount/daemon/keeper.h"
#include "mount/daemon/link.h"
#include "mount/daemon/log.h"
#include "mount/daemon/program.h"
#include "mount/daemon/remount.h"
#include "mount/daemon/service.h"
#include "mount/daemon/service_manager.h"
#include "mount/daemon/startup.h"
#include "mount/daemon/succession.h"
#include "mount/daemon/threads.h"
#include "mount/region/memfd.h"
#include "mount/region/mount_point.h"
#include "mount/region/mounts.h"
#include "mount/region/region_file.h"
#include "mount/serve/in_flight.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr int kTryAgain = 1;

void Say(const std::string& text) { std::fprintf(stderr, "pkramfs: %s\n", text.c_str()); }

void Warn(const std::string& text) { Say("warning: " + text); }

absl::Status CheckFuseDevice() {
  if (access("/dev/fuse", F_OK) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "no /dev/fuse: load the module (modprobe fuse), or give the container the device");
}

// Checks before the mount for things whose lack would be noticed only when there is a mount, which
// somebody would then have to clear away.
absl::Status CheckDescriptors() {
  constexpr int kNeeded = 48;
  std::vector<Descriptor> all;
  for (int i = 0; i < kNeeded; ++i) {
    all.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (all.back().get() >= 0) continue;
    return absl::FailedPreconditionError(absl::StrCat("cannot open files (", std::strerror(errno),
                                                      "): a mount needs ", kNeeded,
                                                      " descriptors: raise the limit (ulimit -n)"));
  }
  return absl::OkStatus();
}

// The same for the first thread.  (fusermount3, which would unmount, is a process, too, and could
// fail for the same reason.)
absl::Status CheckThreads() {
  pthread_t thread;
  const int error = pthread_create(
      &thread, nullptr, [](void* none) { return none; }, nullptr);
  if (error == 0) {
    pthread_join(thread, nullptr);
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot start a thread (", std::strerror(error),
                   "): end something of this user's, or raise the limit (ulimit -u)"));
}

// `startup` is told that the mount is there.  It is null when the keeper tells that.
absl::Status ServeUntilUnmounted(const MountOptions& options, Startup* startup,
                                 const Program& program, std::optional<Link> link) {
  TakeEndSignals();
  absl::StatusOr<std::unique_ptr<Service>> service = Service::Mount(options, Warn);
  if (!service.ok()) return service.status();
  const std::string where = options.mount_point;
  Succession succession(*std::move(service), where, program, std::move(link));
  if (absl::Status s = succession.service().Start(); !s.ok()) return s;
  if (IsToldToEnd()) return absl::CancelledError("the start was interrupted");
  const bool is_handed_over = succession.HandOver();
  if (startup == nullptr ? !is_handed_over : !startup->Ready()) {
    succession.service().in_flight().set_ended();
    return absl::CancelledError("the start was interrupted");
  }
  if (startup == nullptr && !options.foreground) Detach();
  succession.service().Keep();
  Log(LOG_INFO, absl::StrCat(where, ": mounted ", options.region));
  absl::Status ended = succession.ServeToTheEnd();
  // In the foreground, standard error says it.
  if (!ended.ok() && !options.foreground) {
    Log(LOG_ERR, absl::StrCat(where, ": ", std::string(ended.message())));
  }
  return ended;
}

absl::Status Run(MountOptions options, Startup* startup, const Program& program,
                 std::optional<Link> link) {
  if (absl::Status s = CheckFuseDevice(); !s.ok()) return s;
  if (absl::Status s = CheckDescriptors(); !s.ok()) return s;
  if (absl::Status s = CheckThreads(); !s.ok()) return s;
  // Checks the mount point before anything is changed.  It is opened again for the mount, after the
  // descriptor that was handed over (fd=N) is open: otherwise the mount point might get the number
  // of a descriptor that is not open.
  {
    const absl::StatusOr<Descriptor> directory = OpenMountPoint(options.mount_point);
    if (!directory.ok()) return directory.status();
    const std::string name = NameOf(*directory);
    options.mount_point = name.empty() ? Canonical(options.mount_point) : name;
  }
  return ServeUntilUnmounted(options, startup, program, std::move(link));
}

// Goes on with a mount whose two processes have died, with what the service manager has kept.
int GoOnWhereBothDied(Estate estate, Program program, const MountOptions& options) {
  InFlight::NoteDeath(estate.in_flight.get(), "ended, and its keeper");
  pid_t server = 0;
  absl::StatusOr<Link> link = program.StartHeir("--successor", estate, &server);
  if (!link.ok()) {
    Say(std::string(link.status().message()));
    return kTryAgain;
  }
  return Keep(std::move(program), *std::move(link), server, std::nullopt, options, nullptr);
}

}  // namespace

int Serve(const MountOptions& options, const std::vector<std::string>& arguments) {
  const auto report = [](const absl::Status& s) {
    if (s.ok()) return 0;
    Say(std::string(s.message()));
    return kRefused;
  };
  if (options.remount) return report(Remount(options, Warn));
  std::optional<Estate> kept;
  if (options.foreground && options.takes_over()) {
    absl::StatusOr<std::optional<Estate>> found = KeptByServiceManager(options.region);
    if (!found.ok()) return report(found.status());
    kept = *std::move(found);
  }
  if (IsMemfd(options.region)) {
    if (absl::Status s = CheckMemfd(options.region); !s.ok()) return report(s);
    if (!options.takes_over()) {
      return report(absl::InvalidArgumentError(absl::StrCat(
          "option notakeover: the keeper holds ", options.region, ": leave the option out")));
    }
    // (Root's holder outlives the service.)
    if (options.foreground && geteuid() != 0 && HasServiceManager() &&
        !ServiceManagerKeepsRegions()) {
      Warn(absl::StrCat(options.region,
                        " will be lost when this service is stopped: it takes systemd 254, ",
                        "FileDescriptorStoreMax= and FileDescriptorStorePreserve=yes"));
    }
  }
  // To be done before this process opens descriptors of its own, of which one might get that
  // number.
  if (absl::Status s = CheckDescriptor(options.region); !s.ok()) return report(s);
  absl::StatusOr<Program> program = Program::Self(arguments);
  if (!program.ok()) return report(program.status());
  if (options.foreground) LogToStandardError();
  if (kept) {
    TakeEndSignals();
    prctl(PR_SET_NAME, "pkramfs-keeper");
    return GoOnWhereBothDied(*std::move(kept), *std::move(program), options);
  }
  Startup startup(options.foreground);
  if (!options.takes_over()) return report(Run(options, &startup, *program, std::nullopt));
  absl::StatusOr<std::pair<Link, Link>> ends = Link::Make();
  if (!ends.ok()) return report(ends.status());
  TakeEndSignals();
  // Each process has its name before anybody is told that there is a mount.
  prctl(PR_SET_NAME, "pkramfs-keeper");
  const pid_t server = fork();
  if (server < 0) {
    return report(absl::ResourceExhaustedError(
        absl::StrCat("cannot start a process (", std::strerror(errno),
                     "): end something of this user's, or raise the limit (ulimit -u)")));
  }
  if (server == 0) {
    prctl(PR_SET_NAME, "pkramfs");
    ends->first = Link(Descriptor(-1));
    startup.LeaveToAnother();
    return report(Run(options, nullptr, *program, std::move(ends->second)));
  }
  ends->second = Link(Descriptor(-1));
  return Keep(*std::move(program), std::move(ends->first), server, std::nullopt, options, &startup);
}

int ServeInPlaceOf(const Role& role, const MountOptions& options,
                   const std::vector<std::string>& arguments) {
  if (options.foreground) LogToStandardError();
  TakeEndSignals();
  Link link{Descriptor(role.link)};
  const absl::StatusOr<Program> program = Program::Self(arguments);
  std::optional<Estate> estate = link.ReceiveEstate();
  if (!program.ok() || !estate) return kTryAgain;
  const std::string where = estate->mount_point;
  const auto fail = [&](const absl::Status& s) {
    Log(LOG_ERR, absl::StrCat(where, ": cannot take over this mount: ", std::string(s.message())));
    const bool passes = absl::IsResourceExhausted(s) || absl::IsUnavailable(s);
    return passes ? kTryAgain : kRefused;
  };
  absl::StatusOr<std::unique_ptr<Service>> service = Service::TakeOver(options, *std::move(estate));
  if (!service.ok()) return fail(service.status());
  InFlight& in_flight = (*service)->in_flight();
  Succession succession(*std::move(service), where, *program, std::move(link));
  const size_t left = in_flight.left().size();
  // The mount stays for the next server, so nothing is ended here.
  if (absl::Status s = succession.service().Start(); !s.ok()) _exit(fail(s));
  const uint64_t pause = in_flight.NoteTakeover();
  succession.HandOver();
  Log(LOG_WARNING, absl::StrCat(where, ": the server ", in_flight.takeovers().reason,
                                ", and another took over: requests that were in flight: ", left,
                                "; nothing was served for ", (pause + 500) / 1000, " ms"));
  const absl::Status ended = succession.ServeToTheEnd();
  if (ended.ok()) return 0;
  Log(LOG_ERR, absl::StrCat(where, ": ", std::string(ended.message())));
  return kRefused;
}

int KeepFor(const Role& role, const MountOptions& options,
            const std::vector<std::string>& arguments) {
  if (options.foreground) LogToStandardError();
  TakeEndSignals();
  absl::StatusOr<Program> program = Program::Self(arguments);
  if (!program.ok()) return kTryAgain;
  std::optional<Estate> estate;
  if (role.estate >= 0) estate = Link{Descriptor(role.estate)}.ReceiveEstate();
  return Keep(*std::move(program), Link{Descriptor(role.link)}, role.server, std::move(estate),
              options, nullptr);
}

}  // namespace pkramfs
