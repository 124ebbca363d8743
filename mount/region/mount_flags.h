// Flags of a mount: what mount(8) calls filesystem-independent options.
#ifndef MOUNT_REGION_MOUNT_FLAGS_H_
#define MOUNT_REGION_MOUNT_FLAGS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "mount/region/mount_point.h"
#include "mount/region/mounts.h"

namespace pkramfs {

// Which of mount(2)'s MS_ flags are wanted, and which are not; the others stay.
struct FlagChange {
  unsigned long set = 0, clear = 0;

  // A word as "noexec", over what earlier ones said.  False when it is no flag.
  bool Apply(std::string_view word);

  // The words of those to set that every libfuse and fusermount3 take.  (atime and nodiratime are
  // words that some read, and then do not know.)
  std::vector<std::string> FuseWords() const;
};

// All flags of a mount and its filesystem, those that it does not have as clear ones.
FlagChange FlagsOf(const MountEntry& mount);

// Gives a mount those flags, if it does not have them.  An ordinary user's has what fusermount3
// gave it: for those that make no difference to a FUSE filesystem that is all right.
// PERMISSION_DENIED, INTERNAL.
absl::Status ChangeFlags(const MountIdentity& mount, const FlagChange& change);

}  // namespace pkramfs

#endif  // MOUNT_REGION_MOUNT_FLAGS_H_
