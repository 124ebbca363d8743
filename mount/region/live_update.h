// Linux's live update orchestrator (LUO): sessions that bring memfds over a kexec.
//
// A session has a name and is a descriptor.  A memfd that is put into it gets all of its pages, and
// keeps its size, until the last descriptor of the session is closed.  After a kexec (kexec -s) the
// next kernel has the session under that name, and gives the memfd back once.  That one has no name
// of its own any more.  A session that is closed then frees what was not taken out.
//
// Linux 7.0 has it, if it was built with CONFIG_LIVEUPDATE_MEMFD and booted with the words
// kho=on liveupdate=on.  See <linux/liveupdate.h>.  Only root may use it.
#ifndef MOUNT_REGION_LIVE_UPDATE_H_
#define MOUNT_REGION_LIVE_UPDATE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

inline constexpr char kLiveUpdateDevice[] = "/dev/liveupdate";
inline constexpr size_t kMostSessionBytes = 63;  // of a session's name

// Makes a session.  NOT_FOUND where the kernel has no LUO; PERMISSION_DENIED; ALREADY_EXISTS;
// UNAVAILABLE when another program has used the device for ten seconds.
absl::StatusOr<pkram::Descriptor> CreateSession(const std::string& name);

// Puts a memfd into a session.  ALREADY_EXISTS when it is in one already; RESOURCE_EXHAUSTED.
// Neither this nor TakeOutOf makes the cgroup of this process pay for the memory, where that can be
// helped: a limit that is too low would kill the process.
absl::Status PutInto(const pkram::Descriptor& session, int memfd);

// Whether this kernel has LUO.  Errors as CreateSession.
absl::Status CheckLiveUpdate();

// The session of that name that the kernel before has left.  NOT_FOUND when there is none, or no
// LUO; ABORTED when somebody has taken it already; UNAVAILABLE as above.  When the session is
// closed what is in it is lost.
absl::StatusOr<pkram::Descriptor> FindSession(const std::string& name);

// A session's name.  "" if the kernel does not say (before 7.1).
std::string NameOfSession(const pkram::Descriptor& session);

// Whether the kernel before has left this session.
bool IsOfKernelBefore(const pkram::Descriptor& session);

// PERMISSION_DENIED when this process has a limit of memory, which taking out may exceed.
absl::Status CheckLimits();

// Takes the memfd out of a session of the kernel before: in this process, which is charged for it,
// or in a child that has left all limits.  FAILED_PRECONDITION when the session is of this kernel;
// PERMISSION_DENIED when the child has a limit, and nothing was done; NOT_FOUND when the memfd was
// taken out before, and the session is finished.
enum class In { kThisProcess, kChild };
absl::StatusOr<pkram::Descriptor> TakeOutOf(const pkram::Descriptor& session, In where);

// Says that all was taken out.  Until then FindSession is ABORTED for others.
void Finish(const pkram::Descriptor& session);

}  // namespace pkramfs

#endif  // MOUNT_REGION_LIVE_UPDATE_H_
