// A directory to mount on, and the mount that is made there: both are known by what they are, as
// the path to them may lead elsewhere by the time.
#ifndef MOUNT_REGION_MOUNT_POINT_H_
#define MOUNT_REGION_MOUNT_POINT_H_

#include <string>

#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// The path of what a descriptor holds, without links; or nothing.
std::string NameOf(const pkram::Descriptor& fd);

// /proc/self/fd/N
std::string PathOf(const pkram::Descriptor& fd);

// The directory, held.  FAILED_PRECONDITION says what to do about it.
absl::StatusOr<pkram::Descriptor> OpenMountPoint(const std::string& path);

// One mount among all that there are.  The kernel gives a number again when a mount is gone, but
// no device as long as its filesystem lives anywhere, so both together are one mount's for good.
struct MountIdentity {
  std::string id, device;  // mountinfo's
};

// What was mounted last on a directory that is held; nothing, if that cannot be known.
MountIdentity MountOn(const pkram::Descriptor& directory);

// Detaches that mount, wherever it is by now, and no other.
void DetachMount(const MountIdentity& mount);
// The same for who may not: fusermount3 does it, by its path.
void DetachMountAsUser(const MountIdentity& mount);

}  // namespace pkramfs

#endif  // MOUNT_REGION_MOUNT_POINT_H_
