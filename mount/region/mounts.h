// What the kernel says about mounts of pkramfs.
#ifndef MOUNT_REGION_MOUNTS_H_
#define MOUNT_REGION_MOUNTS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace pkramfs {

struct MountEntry {
  std::string source;  // the region, as whoever mounted it called it (see RegionPath)
  std::string root;    // what of its filesystem it shows: "/"
  std::string mount_point;
  std::string device;  // MAJOR:MINOR
  std::string id;      // of this mount, whatever else is mounted
  std::string type;
  std::string flags;    // of this mount: "rw,nosuid,relatime"
  std::string options;  // of its filesystem: "rw,user_id=0,group_id=0,default_permissions"
  uid_t uid;            // of FUSE: who mounted it
};

// Every mount of this mount namespace.
std::vector<MountEntry> AllMounts();

// The pkramfs mounts of this mount namespace, alive or dead.
std::vector<MountEntry> PkramfsMounts();

// The mounts of one region that were made by root, by this user, or by the owner of the region's
// file. Mounts of other users do not count: any user can claim that a mount is of this region.  The
// path may lead there through links (see pkram/place.h).
std::vector<MountEntry> MountsOf(const std::string& region_path);

// The path as an absolute one without links if the file exists, or as it was given.
std::string Canonical(const std::string& path);

}  // namespace pkramfs

#endif  // MOUNT_REGION_MOUNTS_H_
