// pkramctl list: every region that this user can see.
#ifndef MOUNT_CTL_LIST_H_
#define MOUNT_CTL_LIST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mount/ctl/output.h"
#include "mount/region/mounts.h"

namespace pkramfs {

struct SeenRegion {
  std::string path;
  std::string state;  // "mounted", "dead" (a mount without a server), "sealed", "not sealed"
  std::optional<uint64_t> size, used;  // bytes; of a device, nobody knows what is used
  std::optional<MountEntry> mount;
  Json statistics = Json::object();  // of a mount whose server answers (StatisticsOf)
};

// The mounts of this mount namespace, then the regions in /dev/shm and on dax devices that are not
// mounted.  Regions elsewhere, and regions that this user may not read, are not seen.
std::vector<SeenRegion> SeenRegions();

// Prints them.  Returns the exit status.
int RunList(bool as_json);

}  // namespace pkramfs

#endif  // MOUNT_CTL_LIST_H_
