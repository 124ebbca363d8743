// A directory to mount on, and the mount that is made there.  Both are identified by what they are,
// because the path to them may lead elsewhere by then.
#ifndef MOUNT_REGION_MOUNT_POINT_H_
#define MOUNT_REGION_MOUNT_POINT_H_

#include <string>

#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// The path of the file that a descriptor has open, without links; or nothing.
std::string NameOf(const pkram::Descriptor& fd);

// /proc/self/fd/N
std::string PathOf(const pkram::Descriptor& fd);

// Opens the directory to mount on.  FAILED_PRECONDITION says what is wrong and what to do.
absl::StatusOr<pkram::Descriptor> OpenMountPoint(const std::string& path);

// Identifies one mount among all.  The kernel uses the number of a mount again when the mount is
// gone. But it uses no device again as long as the filesystem lives anywhere.  So both together
// belong to one mount for ever.
struct MountIdentity {
  std::string id, device;  // mountinfo's
};

// The mount that was made last on an open directory; nothing if that cannot be known.
MountIdentity MountOn(const pkram::Descriptor& directory);

// Detaches exactly that mount, wherever it is by now.
void DetachMount(const MountIdentity& mount);
// The same for a user who may not unmount: fusermount3 does it, by the path.
void DetachMountAsUser(const MountIdentity& mount);

}  // namespace pkramfs

#endif  // MOUNT_REGION_MOUNT_POINT_H_
