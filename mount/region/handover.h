// How a region in a memfd crosses a kexec: by a session of the kernel (live_update.h) that has the
// name of the region.  The session must be open in some process when the kernel is changed: in a
// holder of its own, or in systemd.
#ifndef MOUNT_REGION_HANDOVER_H_
#define MOUNT_REGION_HANDOVER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// What preserving a memfd takes.
struct PreserveCost {
  uint64_t bytes;  // that it will have
  uint64_t holes;  // of them, memory that is taken for it now
  uint64_t room;   // memory that can be had
};
absl::StatusOr<PreserveCost> CostOf(int memfd);

// The session that brings this region over a kexec.  INVALID_ARGUMENT for a name that is too long.
absl::StatusOr<std::string> SessionOf(std::string_view given);

// Preserves the region's memfd in a new session, and returns that.  Nothing is changed if it fails.
absl::StatusOr<pkram::Descriptor> PreserveRegion(const std::string& given, int memfd);

// Looks for what the kernel before has left of the region.  If there is something, a holder takes
// it back, and has it afterwards, under its name, so that FindMemfd finds it.  NOT_FOUND when there
// is nothing.  After another error there may be, and nobody must make a region of that name.
absl::Status RetrieveRegion(const std::string& given);

// The same from a session that systemd has, too: the memfd, under its name.  A child takes it out.
// The session is not finished yet.  Errors as TakeOutOf.
absl::StatusOr<pkram::Descriptor> RetrieveFrom(const std::string& given,
                                               const pkram::Descriptor& session);

// The processes that have the session of that name open; systemd's is "1".
std::vector<std::string> HoldersOfSession(const std::string& name);

// Has the service manager keep a session, under this name: systemd 261 and newer bring it over a
// kexec, and give it to the service at its next start.  UNAVAILABLE.
inline constexpr char kKeptSession[] = "pkramfs-session";
absl::Status GiveToServiceManager(const pkram::Descriptor& session);

}  // namespace pkramfs

#endif  // MOUNT_REGION_HANDOVER_H_
