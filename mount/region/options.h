// The options of a mount, as the command line gives them.
#ifndef MOUNT_REGION_OPTIONS_H_
#define MOUNT_REGION_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/region/mount_flags.h"

namespace pkramfs {

inline constexpr size_t kMaxImagePath = 1000;  // bytes

struct MountOptions {
  std::string region;       // as it was given
  std::string mount_point;  // absolute, once resolved
  bool foreground = false;
  bool sloppy = false;   // options that nobody knows are left out
  bool remount = false;  // what is mounted there is to be changed

  std::optional<uint64_t> size;  // bytes of contents
  std::optional<uint64_t> max_inodes;
  std::optional<uint32_t> mode, uid, gid;  // of the root of a new filesystem
  std::string node = "pkramfs";
  bool lock_memory = false;
  bool export_handles = true;        // file handles find what the kernel does not know any more
  std::optional<bool> takeover;      // another server goes on when one dies; as it is if not given
  bool writeback = false;            // the kernel keeps written pages until it is made to send them
  std::optional<uint32_t> max_read;  // bytes that the kernel asks for at once, at most
  std::string checkpoint;            // whole path of the image; "": there is none
  uint64_t checkpoint_every = 0;     // seconds; 0: only when asked for, and at the end
  bool checkpoint_at_exit = true;
  FlagChange flags;
  std::vector<std::string> fuse;  // options that the kernel and libfuse take

  bool takes_over() const { return takeover.value_or(true); }

  // Whether no options but size= and nr_inodes= are given.
  bool OnlySizes() const {
    return !mode && !uid && !gid && node == "pkramfs" && !lock_memory && export_handles &&
           !writeback && !takeover && checkpoint.empty() && !remount && fuse.empty() &&
           flags.set == 0 && flags.clear == 0;
  }
};

// Applies one comma-separated list, as -o takes it.  A percentage in size= is one of `memory`
// bytes. INVALID_ARGUMENT names the option.
absl::Status ApplyMountOptions(std::string_view list, uint64_t memory, MountOptions* options);

// Applies the lists that -o was given.  If one is wrong, says so in the name of `program`, and
// returns false.
bool ApplyLists(const std::string& program, const std::vector<std::string>& lists,
                MountOptions* options);

// "16k", "2G", "50%": bytes, k, m, g, t as tmpfs takes them.
absl::StatusOr<uint64_t> ParseSize(std::string_view text, uint64_t memory);

// The path of the region that a user's word stands for.  A name without a slash is a file in
// /dev/shm; fd=N is an open descriptor.  memfd:NAME has no path, and stays as it is (memfd.h).
std::string RegionPath(std::string_view name);

}  // namespace pkramfs

#endif  // MOUNT_REGION_OPTIONS_H_
