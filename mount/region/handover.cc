#include "mount/region/handover.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "mount/region/holder.h"
#include "mount/region/live_update.h"
#include "mount/region/memfd.h"
#include "mount/region/memory_limit.h"
#include "mount/region/units.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr std::string_view kBeforeName = "pkramfs:";
constexpr auto kPatienceWithOthers = std::chrono::seconds(10);
// Memory that the system keeps for itself when holes are filled.
constexpr uint64_t kMargin = 64 << 20;
constexpr int kSealExec = 0x20;  // F_SEAL_EXEC; see MakeMemfd
constexpr uint64_t kBarrierMicroseconds = 10'000'000;

absl::Status Of(const std::string& given, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(given, ": ", std::string(status.message())));
}

absl::Status Lost(const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(std::string(status.message()),
                                   ": its files are lost; the next mount makes a new region"));
}

// (Linux counts what is set aside for the next kernel as available, and preserves nothing there.)
uint64_t AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  std::string word;
  uint64_t available = std::numeric_limits<uint64_t>::max(), set_aside = 0;
  for (uint64_t kib = 0; file >> word;) {
    if (word == "MemAvailable:" && file >> kib) available = kib << 10;
    if (word == "CmaFree:" && file >> kib) set_aside = kib << 10;
  }
  return available - std::min(available, set_aside);
}

}  // namespace

absl::StatusOr<PreserveCost> CostOf(int memfd) {
  struct stat st;
  if (fstat(memfd, &st) != 0) return absl::InternalError("fstat of the memfd");
  const auto bytes = static_cast<uint64_t>(st.st_size);
  const uint64_t has = static_cast<uint64_t>(st.st_blocks) * 512;
  const uint64_t available = AvailableMemory();
  return PreserveCost{bytes, bytes - std::min(bytes, has),
                      available - std::min(available, kMargin)};
}

absl::StatusOr<std::string> SessionOf(std::string_view given) {
  if (absl::Status s = CheckMemfd(given); !s.ok()) return s;
  const std::string name = absl::StrCat(std::string(kBeforeName), std::string(NameOfMemfd(given)));
  if (name.size() <= kMostSessionBytes) return name;
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(given), ": a name of a region that crosses a kexec has at most ",
                   kMostSessionBytes - kBeforeName.size(), " characters"));
}

absl::StatusOr<Descriptor> PreserveRegion(const std::string& given, int memfd) {
  const absl::StatusOr<std::string> name = SessionOf(given);
  if (!name.ok()) return name.status();
  const absl::StatusOr<PreserveCost> cost = CostOf(memfd);
  if (!cost.ok()) return Of(given, cost.status());
  // Otherwise the kernel would kill processes for it.
  if (cost->holes > cost->room) {
    return absl::ResourceExhaustedError(
        absl::StrCat(given, ": preserving it takes ", Human(cost->holes), " for its holes, and ",
                     Human(cost->room),
                     " of memory can be had: free memory, or copy the files to a new region"));
  }
  if (const int seals = fcntl(memfd, F_GET_SEALS); seals >= 0 && (seals & kSealExec) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        given, ": its memory is sealed against being run, and would come back read-only: set ",
        "vm.memfd_noexec=0, and copy the files to a new region"));
  }
  absl::StatusOr<Descriptor> session = CreateSession(*name);
  if (absl::IsNotFound(session.status())) {
    return absl::FailedPreconditionError(absl::StrCat(given, ": this kernel hands nothing over (",
                                                      std::string(session.status().message()),
                                                      "): see pkramctl preserve --check"));
  }
  if (!session.ok()) return Of(given, session.status());
  if (absl::Status put = PutInto(*session, memfd); !put.ok()) return Of(given, put);
  return session;
}

absl::StatusOr<Descriptor> RetrieveFrom(const std::string& given, const Descriptor& session) {
  // Before the memory is this process's: it might not be found, and go.
  if (absl::Status can = CheckMemfdsCanBeNamed(); !can.ok()) return Of(given, can);
  absl::StatusOr<Descriptor> memfd = TakeOutOf(session, In::kChild);
  if (!memfd.ok()) return Of(given, memfd.status());
  if (absl::Status named = NameMemfd(memfd->get(), given); !named.ok()) return named;
  return memfd;
}

std::vector<std::string> HoldersOfSession(const std::string& name) {
  const std::string wanted = "anon_inode:[luo_session] " + name;
  std::vector<std::string> holders;
  for (const std::string& process : NumbersIn("/proc")) {
    const std::string directory = absl::StrCat("/proc/", process, "/fd/");
    for (const std::string& fd : NumbersIn(directory)) {
      char target[256];
      const ssize_t size = readlink((directory + fd).c_str(), target, sizeof(target));
      if (size <= 0 || std::string_view(target, static_cast<size_t>(size)) != wanted) continue;
      holders.push_back(process);
      break;
    }
  }
  return holders;
}

absl::Status RetrieveRegion(const std::string& given) {
  const absl::StatusOr<std::string> name = SessionOf(given);
  // (No session has such a name.)
  if (!name.ok()) return absl::NotFoundError("");
  const absl::Status has = CheckLiveUpdate();
  if (absl::IsNotFound(has) || (absl::IsPermissionDenied(has) && geteuid() != 0)) {
    return absl::NotFoundError("");
  }
  if (!has.ok()) return Of(given, has);
  if (absl::Status can = CheckMemfdsCanBeNamed(); !can.ok()) return Of(given, can);
  const auto take = [&]() -> absl::StatusOr<Held> {
    // What may refuse comes before the session is this process's: closing that frees the memory.
    if (absl::Status can = CheckLimits(); !can.ok()) return Of(given, can);
    const absl::StatusOr<Descriptor> session = FindSession(*name);
    if (absl::IsNotFound(session.status()) || absl::IsAborted(session.status())) {
      return session.status();
    }
    if (!session.ok()) return Of(given, session.status());
    absl::StatusOr<Descriptor> memfd = TakeOutOf(*session, In::kThisProcess);
    if (!memfd.ok()) return Lost(Of(given, memfd.status()));
    if (absl::Status named = NameMemfd(memfd->get(), given); !named.ok()) return Lost(named);
    const auto kept =
        std::make_shared<Descriptor>(fcntl(session->get(), F_DUPFD_CLOEXEC, Held::kFree));
    // Whoever does not find the session any more finds the memfd.
    return Held{*std::move(memfd), Descriptor(-1), [kept] { Finish(*kept); }};
  };
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    const absl::Status taken = StartHolderThatGets(take);
    if (taken.ok() && FindMemfd(given).empty()) {
      return absl::InternalError(
          absl::StrCat(given, ": a process has taken it back, and it is not found"));
    }
    if (absl::IsResourceExhausted(taken)) return Of(given, taken);
    if (!absl::IsAborted(taken)) return taken;
    // Another process takes it back, which may take long.  If that process dies, the session goes.
    if (!FindMemfd(given).empty()) return absl::OkStatus();
    const std::vector<std::string> holders = HoldersOfSession(*name);
    if (holders == std::vector<std::string>{"1"}) {
      return absl::UnavailableError(
          absl::StrCat(given, ": systemd has it for a unit: start that unit, or give it up with ",
                       "systemctl clean --what=fdstore"));
    }
    if (holders.empty() && std::chrono::steady_clock::now() - begin > kPatienceWithOthers) {
      return absl::UnavailableError(absl::StrCat(given, ": another process has taken its session"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

absl::Status GiveToServiceManager(const Descriptor& session) {
  const std::string said = absl::StrCat("FDSTORE=1\nFDNAME=", kKeptSession);
  const int fd = session.get();
  // The manager must have it when this process ends.
  if (sd_pid_notify_with_fds(0, 0, said.c_str(), &fd, 1) > 0 &&
      sd_notify_barrier(0, kBarrierMicroseconds) >= 0) {
    return absl::OkStatus();
  }
  return absl::UnavailableError("the service manager does not take the session");
}

}  // namespace pkramfs
