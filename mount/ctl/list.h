// pkramctl list: every region that this user can see.
#ifndef MOUNT_CTL_LIST_H_
#define MOUNT_CTL_LIST_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mount/ctl/output.h"
#include "mount/region/mounts.h"

namespace pkramfs {

struct SeenRegion {
  std::string path;
  // mounted       a server answers
  // private       another user's mount, which this user may not ask
  // no answer     a server that does not answer within seconds
  // dead          a mount without a server
  // in use        not mounted here, but a process uses it
  // sealed, not sealed, half restored
  std::string state;
  std::optional<uint64_t> size, used;  // bytes; of a device, nobody knows what is used
  std::optional<MountEntry> mount;
  // Whether the mount is really of this region, as far as can be told (IsOfItsRegion).
  bool is_its = false;
  pid_t user = 0;                    // of a region in use: the process, or 0
  Json statistics = Json::object();  // of a mount that is asked and answers (StatisticsOf)
};

// The mounts of this mount namespace that can be seen, then the regions in /dev/shm and on dax
// devices that are not mounted.  Regions elsewhere, and regions that this user may not read, are
// not seen. Any user may have made any of the mounts: none of them can make this wait for more than
// seconds, and asking does not keep a mount busy.
std::vector<SeenRegion> SeenRegions();

// Prints them.  Returns the exit status.
int RunList(bool as_json);
// Prints only what a command takes for a region, one a line, without asking anybody: for
// completion.
int RunListNames();

}  // namespace pkramfs

#endif  // MOUNT_CTL_LIST_H_
