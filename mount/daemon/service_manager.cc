#include "mount/daemon/service_manager.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "mount/region/handover.h"
#include "mount/region/live_update.h"
#include "mount/region/memfd.h"
#include "mount/serve/in_flight.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr char kRegion[] = "pkramfs-region";
constexpr std::pair<const char*, Descriptor Estate::*> kNames[] = {
    {"pkramfs-fusermount", &Estate::fusermount},
    {"pkramfs-connection", &Estate::connection},
    {kRegion, &Estate::region},
    {"pkramfs-in-flight", &Estate::in_flight}};
constexpr char kMount[] = "pkramfs-mount";
constexpr size_t kMaxWords = 8192;  // one of them is a path
constexpr uint64_t kBarrierMicroseconds = 10'000'000;

void Store(const std::string& name, int fd) {
  sd_pid_notify_with_fds(0, 0, absl::StrCat("FDSTORE=1\nFDNAME=", name).c_str(), &fd, 1);
}

void Remove(const std::string& name) {
  sd_notify(0, absl::StrCat("FDSTOREREMOVE=1\nFDNAME=", name).c_str());
}

void RemoveAllBut(const std::string& kept) {
  Remove(kMount);
  Remove(kKeptSession);
  for (const auto& [name, member] : kNames) {
    if (name != kept) Remove(name);
  }
}

// A file that holds these words.
Descriptor FileOfWords(const Estate& estate) {
  const std::string words = WordsOf(estate);
  Descriptor file(memfd_create("pkramfs mount", MFD_CLOEXEC));
  if (pwrite(file.get(), words.data(), words.size(), 0) != static_cast<ssize_t>(words.size())) {
    return Descriptor(-1);
  }
  return file;
}

bool ReadFileOfWords(const Descriptor& file, Estate* estate) {
  char bytes[kMaxWords];
  const ssize_t size = pread(file.get(), bytes, sizeof(bytes), 0);
  return size > 0 && ReadWords(std::string(bytes, static_cast<size_t>(size)), estate);
}

bool IsMounted(const Estate& estate) {
  pollfd state{estate.connection.get(), 0, 0};
  return poll(&state, 1, 0) == 0 && !InFlight::Ended(estate.in_flight.get());
}

}  // namespace

bool HasServiceManager() { return std::getenv("NOTIFY_SOCKET") != nullptr; }

bool ServiceManagerKeepsRegions() {
  return HasServiceManager() && std::getenv("FDSTORE") != nullptr;
}

void TellServiceManager(const Estate& estate) {
  if (!HasServiceManager()) return;
  // The manager ignores descriptors that it has already.  The words may be another file with the
  // same text.
  // It may also have the region of an earlier mount, by another open file.
  Remove(kMount);
  Remove(kRegion);
  if (const Descriptor words = FileOfWords(estate); words.get() >= 0) {
    Store(kMount, words.get());
    for (const auto& [name, member] : kNames) {
      if (const int fd = (estate.*member).get(); fd >= 0) Store(name, fd);
    }
  }
  sd_notify(
      0, absl::StrCat("READY=1\nMAINPID=", getpid(), "\nSTATUS=", estate.mount_point, " is mounted")
             .c_str());
}

void LeaveServiceManager(bool keeps_region) {
  if (HasServiceManager()) RemoveAllBut(keeps_region ? kRegion : "");
}

absl::StatusOr<std::optional<Estate>> KeptByServiceManager(const std::string& region) {
  const bool keeps_region = IsMemfd(region);
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(1, &names);
  const absl::Cleanup free_names = [names] {
    for (char** name = names; name != nullptr && *name != nullptr; ++name) std::free(*name);
    std::free(names);
  };
  if (count <= 0) return std::nullopt;
  Estate estate;
  Descriptor words(-1), session(-1);
  bool is_ours = false;
  for (int i = 0; i < count; ++i) {
    const int fd = SD_LISTEN_FDS_START + i;
    for (const auto& [name, member] : kNames) {
      if (std::strcmp(names[i], name) == 0) estate.*member = Descriptor(fd);
    }
    if (std::strcmp(names[i], kMount) == 0) words = Descriptor(fd);
    if (std::strcmp(names[i], kKeptSession) == 0) session = Descriptor(fd);
    is_ours |= std::strncmp(names[i], "pkramfs-", 8) == 0;
  }
  if (!is_ours) return std::nullopt;
  estate.server = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (estate.connection.get() >= 0 && estate.region.get() >= 0 && estate.in_flight.get() >= 0 &&
      ReadFileOfWords(words, &estate) && IsMounted(estate)) {
    // There was no kexec.
    Remove(kKeptSession);
    return estate;
  }
  if (!keeps_region && session.get() >= 0 && IsOfKernelBefore(session)) {
    return absl::FailedPreconditionError(absl::StrCat(
        region,
        ": systemd has a region in a memfd for this unit: set REGION= to that again, or give ",
        "it up with systemctl clean --what=fdstore"));
  }
  if (keeps_region && session.get() >= 0) {
    const std::string name = NameOfSession(session);
    if (!name.empty() && name != SessionOf(region).value_or("")) {
      return absl::FailedPreconditionError(
          absl::StrCat(region, ": systemd has the region of the session ", name,
                       " for this unit: set REGION= to ",
                       "that again, or give it up with systemctl clean --what=fdstore"));
    }
    absl::StatusOr<Descriptor> memfd = RetrieveFrom(region, session);
    if (memfd.ok()) {
      estate.region = *std::move(memfd);
      Remove(kRegion);
      Store(kRegion, estate.region.get());
      sd_notify_barrier(0, kBarrierMicroseconds);
      Finish(session);
    } else if (!absl::IsFailedPrecondition(memfd.status()) &&
               !(absl::IsNotFound(memfd.status()) && estate.region.get() >= 0)) {
      return absl::Status(
          memfd.status().code(),
          absl::StrCat(std::string(memfd.status().message()),
                       ": if that stays so, give it up with systemctl clean --what=fdstore"));
    }
    // (One of this kernel ends with its last descriptor: there was no kexec.)
    session = Descriptor(-1);
  }
  if (keeps_region && estate.region.get() >= 0) {
    if (absl::Status named = NameMemfd(estate.region.get(), region); !named.ok()) return named;
  }
  // The region must be free when this returns.
  RemoveAllBut(keeps_region ? kRegion : "");
  if (keeps_region && estate.region.get() >= 0) {
    // Whoever had this lock has ended.  The descriptor stays open, so that a mount finds it.
    static Descriptor held(-1);
    held = std::move(estate.region);
    flock(held.get(), LOCK_UN);
  }
  sd_notify_barrier(0, kBarrierMicroseconds);
  return std::nullopt;
}

}  // namespace pkramfs
