#include "mount/ctl/preserve.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mount/ctl/output.h"
#include "mount/region/handover.h"
#include "mount/region/holder.h"
#include "mount/region/memfd.h"
#include "mount/region/mounts.h"
#include "mount/region/region_file.h"
#include "mount/tools/live_mount.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// The word of a region in a memfd, which may have been named by its mount.
absl::StatusOr<std::string> MemfdAt(const std::string& given) {
  absl::StatusOr<std::string> region = RegionAt(RegionOrMountPoint(given));
  if (!region.ok() || IsMemfd(*region)) return region;
  return absl::InvalidArgumentError(absl::StrCat(
      given, ": not memfd:NAME: a region on a device crosses a kexec by itself, and one in a file ",
      "on a disk, too; what is in /dev/shm does not"));
}

absl::Status Of(const std::string& region, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(region, ": ", std::string(status.message())));
}

absl::StatusOr<Descriptor> Open(const std::string& region) {
  auto backing = OpenRegionBacking(region, pkram::OpenFor::kWriting);
  if (!backing.ok()) return backing.status();
  return Descriptor(dup((*backing)->fd()));
}

// Whether root has it mounted in some mount namespace.
bool IsMountedAnywhere(const std::string& region) {
  if (!MountsOf(region).empty()) return true;
  const std::string wanted = absl::StrCat(" - fuse.pkramfs ", region, " ");
  for (const std::string& process : NumbersIn("/proc")) {
    std::ifstream mounts(absl::StrCat("/proc/", process, "/mountinfo"));
    for (std::string line; std::getline(mounts, line);) {
      if (line.find(wanted) != std::string::npos && line.find("user_id=0,") != std::string::npos) {
        return true;
      }
    }
  }
  return false;
}

// The daemon of a mount that is gone seals the region, and cuts it to what is used.  It may make a
// checkpoint first.
absl::Status AwaitSeal(const std::string& region, const Descriptor& memfd) {
  constexpr auto kPatience = std::chrono::minutes(10);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (flock(memfd.get(), LOCK_SH | LOCK_NB) != 0 && !IsMountedAnywhere(region)) {
    if (std::chrono::steady_clock::now() > deadline) {
      return absl::UnavailableError(absl::StrCat(region, ": in use by process ",
                                                 pkram::LockHolder(memfd.get()),
                                                 ", and not mounted: end it first"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  flock(memfd.get(), LOCK_UN);
  return absl::OkStatus();
}

// A server asks the kernel whether the region's size is held, when it is asked for the size.
void LetServersLook(const std::string& region) {
  for (const MountEntry& mount : MountsOf(region)) {
    struct statvfs st;
    std::ignore = statvfs(mount.mount_point.c_str(), &st);
  }
}

absl::Status Preserve(const std::string& given) {
  const absl::StatusOr<std::string> region = MemfdAt(given);
  if (!region.ok()) return region.status();
  if (geteuid() != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(*region, ": only root can have the kernel preserve memory"));
  }
  const absl::StatusOr<Descriptor> memfd = Open(*region);
  if (!memfd.ok()) return memfd.status();
  if (!HoldersOf(memfd->get(), Holds::kSession).empty()) {
    return absl::AlreadyExistsError(absl::StrCat(*region, ": is preserved already"));
  }
  if (absl::Status sealed = AwaitSeal(*region, *memfd); !sealed.ok()) return sealed;
  const absl::StatusOr<Descriptor> session = PreserveRegion(*region, memfd->get());
  if (!session.ok()) return session.status();
  if (absl::Status held = StartHolder(memfd->get(), session->get()); !held.ok()) {
    return Of(*region, held);
  }
  LetServersLook(*region);
  return absl::OkStatus();
}

absl::Status Unpreserve(const std::string& given) {
  const absl::StatusOr<std::string> region = MemfdAt(given);
  if (!region.ok()) return region.status();
  const absl::StatusOr<Descriptor> memfd = Open(*region);
  if (!memfd.ok()) return memfd.status();
  const std::vector<Descriptor> holders = HoldersOf(memfd->get(), Holds::kSession);
  if (holders.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(*region, ": is not preserved, or by systemd: that ends when the unit starts"));
  }
  // Both processes of a mount may have died, which has ended the region's own holder.
  const bool is_free = flock(memfd->get(), LOCK_SH | LOCK_NB) == 0;
  if ((is_free || MountsOf(*region).empty()) && HoldersOf(memfd->get()).empty()) {
    if (absl::Status held = StartHolder(memfd->get()); !held.ok()) return Of(*region, held);
  }
  flock(memfd->get(), LOCK_UN);
  for (const Descriptor& holder : holders) EndHolder(holder);
  LetServersLook(*region);
  return absl::OkStatus();
}

// What a command prints.  Nothing if it fails.
std::optional<std::string> OutputOf(const char* command) {
  std::string text;
  FILE* const out = popen(command, "re");
  if (out == nullptr) return std::nullopt;
  for (int c; (c = std::fgetc(out)) != EOF;) text += static_cast<char>(c);
  if (pclose(out) != 0) return std::nullopt;
  return text;
}

// If systemd does not say, files are not risked.
bool KexecIsComing() {
  const auto job = OutputOf("systemctl show --property=Job --value kexec.target");
  if (job) return job->find_first_of("123456789") != std::string::npos;
  std::string loaded;
  std::ifstream("/sys/kernel/kexec_loaded") >> loaded;
  return loaded == "1";
}

absl::Status CheckSystemd() {
  const std::optional<int> version = SystemdVersion();
  if (version && *version >= kSystemdSince) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("systemd ", version ? std::to_string(*version) : "(unknown)",
                   " brings nothing over a kexec, ", kSystemdSince,
                   " does: use pkramctl preserve and kexec -e"));
}

// Whether the service manager, if that is this machine's systemd, has what the descriptor has.
absl::Status CheckIsKept(const Descriptor& session) {
  const char* const socket = std::getenv("NOTIFY_SOCKET");
  if (socket == nullptr || std::string_view(socket).rfind("/run/systemd/", 0) != 0) {
    return absl::OkStatus();
  }
  std::error_code error;
  const auto file =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(session.get()), error);
  for (const std::string& fd : NumbersIn("/proc/1/fd/")) {
    if (std::filesystem::read_symlink("/proc/1/fd/" + fd, error) == file) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "systemd has not kept the session: see FileDescriptorStoreMax= of the unit");
}

absl::Status PreserveForService(const std::string& region) {
  const Descriptor memfd = OpenMemfd(region, O_RDWR);
  if (memfd.get() < 0) return absl::OkStatus();  // there is nothing to preserve
  if (absl::Status can = CheckSystemd(); !can.ok()) return Of(region, can);
  for (const Descriptor& holder : HoldersOf(memfd.get(), Holds::kSession)) EndHolder(holder);
  const absl::StatusOr<Descriptor> session = PreserveRegion(region, memfd.get());
  if (!session.ok()) return session.status();
  if (absl::Status given = GiveToServiceManager(*session); !given.ok()) return Of(region, given);
  return Of(region, CheckIsKept(*session));
}

}  // namespace

std::optional<int> SystemdVersion() {
  const auto version = OutputOf("systemctl show --property=Version --value 2>/dev/null");
  if (!version || std::atoi(version->c_str()) == 0) return std::nullopt;
  return std::atoi(version->c_str());
}

int RunPreserve(const std::string& given) {
  const absl::Status done = Preserve(given);
  return done.ok() ? 0 : Fail(done);
}

int RunPreserveIfKexec(const std::string& given) {
  if (!IsMemfd(given) || !KexecIsComing()) return 0;
  const absl::Status done = PreserveForService(given);
  if (done.ok()) return 0;
  // systemd drops every job of the shutdown, and starts what the machine starts at boot.
  OutputOf("systemctl cancel; systemctl --no-block isolate default.target");
  return Fail(absl::Status(
      done.code(), absl::StrCat(std::string(done.message()),
                                ": the kexec is called off, so that the files are not lost (to ",
                                "give them up, stop the unit first)")));
}

int RunUnpreserve(const std::string& given) {
  const absl::Status done = Unpreserve(given);
  return done.ok() ? 0 : Fail(done);
}

}  // namespace pkramfs
