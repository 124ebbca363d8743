// How much memory this process may have in its cgroups.
#ifndef MOUNT_REGION_MEMORY_LIMIT_H_
#define MOUNT_REGION_MEMORY_LIMIT_H_

#include <cstdint>
#include <optional>
#include <string>

namespace pkramfs {

struct MemoryLimit {
  std::string file;  // that says so: "/sys/fs/cgroup/system.slice/x.service/memory.max"
  uint64_t bytes;
  bool is_version_1;
};

// The lowest limit of its cgroup and of those above, as far as this process sees them.  Nothing if
// there is no limit.
std::optional<MemoryLimit> LowestMemoryLimit();

// Moves this process to the topmost cgroups, which have no limit, and which no service manager
// ends. Only root can do this; for others nothing happens.
void LeaveCgroups();

// Bytes that this process may have: the machine's memory, or the lowest limit.
uint64_t MemorySize();

}  // namespace pkramfs

#endif  // MOUNT_REGION_MEMORY_LIMIT_H_
