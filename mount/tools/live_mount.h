// A mount that is alive, and what can be asked of its daemon through it.
#ifndef MOUNT_TOOLS_LIVE_MOUNT_H_
#define MOUNT_TOOLS_LIVE_MOUNT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/region/mounts.h"
#include "mount/region/options.h"
#include "mount/serve/control.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// What a user's word for a region stands for: the directory on which a pkramfs is mounted, if the
// word names one; or else the path of a region (see RegionPath).
std::string RegionOrMountPoint(const std::string& word);

// Whether root, the owner of the region's file or this user has made the mount.  Any user can claim
// that a mount is of a region.
bool IsOfItsRegion(const MountEntry& mount);

// The path of the region that is mounted on `place`, or `place` if that is no mount point.
// FAILED_PRECONDITION if the region has no path (fd=N); PERMISSION_DENIED if it is a mount of
// another user (IsOfItsRegion).
absl::StatusOr<std::string> RegionAt(const std::string& place);

class LiveMount {
 public:
  // The mount of the region at a path (see RegionPath), or the mount on a directory.  NOT_FOUND
  // when the region is not mounted here.
  static absl::StatusOr<LiveMount> Of(const std::string& path);
  // The mount on a directory.  NOT_FOUND when no pkramfs is mounted on it, UNAVAILABLE when it is
  // dead.
  static absl::StatusOr<LiveMount> On(const std::string& directory);

  const MountEntry& entry() const { return entry_; }
  // What the daemon says of itself: a JSON document.
  std::string Statistics() const;

  // kControlFreeze or kControlThaw.
  absl::Status Ask(const char* what, unsigned command, void* argument = nullptr) const;
  // Applies size= and nr_inodes= of the options, and ignores the others.  `warn` gets a sentence
  // about what will go wrong later.
  absl::Status Resize(const MountOptions& options,
                      const std::function<void(const std::string&)>& warn) const;
  // Keeps the region from being swapped out, or no longer.  PERMISSION_DENIED.
  absl::Status LockMemory(bool locks) const;
  // When this returns OK, the other program serves.  FAILED_PRECONDITION says why it does not.
  absl::Status Upgrade(const std::string& program) const;
  // Has an image made of the region as it is in a moment.  `file` is a path as the daemon sees it;
  // "" is the mount's own image.
  absl::StatusOr<ControlCheckpoint> Checkpoint(const std::string& file) const;
  // Has the kernel send what it keeps, also what programs have stored through shared mappings.
  absl::Status Sync() const;

 private:
  explicit LiveMount(MountEntry entry);
  bool Answers();

  MountEntry entry_;
  pkram::Descriptor directory_;
  int open_error_ = 0;
  ControlReply statistics_{};
};

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_LIVE_MOUNT_H_
