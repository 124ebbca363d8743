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

// Which of mount(2)'s MS_ flags to set, and which to clear.  The others stay.
struct FlagChange {
  unsigned long set = 0, clear = 0;

  // Applies a word such as "noexec", over earlier ones.  False when it is no flag.
  bool Apply(std::string_view word);

  // The words for the flags to set, as far as every libfuse and fusermount3 takes them.  (Some
  // refuse atime and nodiratime.)
  std::vector<std::string> FuseWords() const;
};

// All flags of a mount and its filesystem.  Flags that it does not have are in `clear`.
FlagChange FlagsOf(const MountEntry& mount);

// Gives a mount those flags, if it does not have them.  An ordinary user cannot change what
// fusermount3 gave the mount.  That is no error for flags that make no difference to a FUSE
// filesystem.
// PERMISSION_DENIED, INTERNAL.
absl::Status ChangeFlags(const MountIdentity& mount, const FlagChange& change);

}  // namespace pkramfs

#endif  // MOUNT_REGION_MOUNT_FLAGS_H_
