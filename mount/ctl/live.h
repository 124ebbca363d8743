// Commands of pkramctl that the daemon of a mount carries out: freeze, thaw, resize, upgrade,
// checkpoint.
#ifndef MOUNT_CTL_LIVE_H_
#define MOUNT_CTL_LIVE_H_

#include <string>

#include "absl/status/statusor.h"
#include "mount/ctl/output.h"
#include "mount/tools/live_mount.h"

namespace pkramfs {

// What the daemon says of itself, and `mounted_on`.
absl::StatusOr<Json> StatisticsOf(const LiveMount& mount);

// `place`: a region, or a directory on which one is mounted (RegionOrMountPoint).  Each returns the
// exit status.
int RunFreeze(const std::string& place);
int RunThaw(const std::string& place);
// `sizes`: as a mount's options, "size=2G,nr_inodes=1m".
int RunResize(const std::string& place, const std::string& sizes);
// `program`: "" is the pkramfs beside this program.
int RunUpgrade(const std::string& place, const std::string& program);
// `file`: "" is the mount's own image (checkpoint=).
int RunCheckpoint(const std::string& place, const std::string& file, bool as_json);

}  // namespace pkramfs

#endif  // MOUNT_CTL_LIVE_H_
