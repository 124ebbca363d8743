#include "mount/region/memory_limit.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "mount/region/mounts.h"

namespace pkramfs {
namespace {

bool Has(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// "4:memory:/user.slice" of version 1, "0::/user.slice" of version 2.
std::optional<std::string> GroupIn(bool is_version_1) {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_version_1 ? Has(controllers, "memory") : controllers.empty()) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

// The limit in a file.  Nothing if the file says "max", or is not there.
std::optional<uint64_t> Number(const std::string& file) {
  std::ifstream in(file);
  std::string text;
  uint64_t bytes = 0;
  if (!(in >> text) || !absl::SimpleAtoi(text, &bytes)) return std::nullopt;
  return bytes;
}

void Lower(const std::string& file, bool is_version_1, std::optional<MemoryLimit>* lowest) {
  // In version 1, the largest number of whole pages means "no limit".
  constexpr uint64_t kNone = std::numeric_limits<int64_t>::max() / 65536 * 65536;
  const std::optional<uint64_t> bytes = Number(file);
  if (!bytes || *bytes >= kNone || (*lowest && (*lowest)->bytes <= *bytes)) return;
  *lowest = MemoryLimit{file, *bytes, is_version_1};
}

}  // namespace

std::optional<MemoryLimit> LowestMemoryLimit() {
  std::optional<MemoryLimit> lowest;
  for (const MountEntry& mount : AllMounts()) {
    const bool is_version_1 = mount.type == "cgroup";
    if (is_version_1 ? !Has(mount.options, "memory") : mount.type != "cgroup2") continue;
    const std::optional<std::string> group = GroupIn(is_version_1);
    if (!group) continue;
    // A container may see a part of the hierarchy, as its mount's root.
    std::string rest(absl::StripPrefix(*group, mount.root == "/" ? "" : mount.root));
    for (;;) {
      const std::string directory = mount.mount_point + (rest == "/" ? "" : rest);
      if (is_version_1) {
        Lower(directory + "/memory.limit_in_bytes", true, &lowest);
      } else {
        Lower(directory + "/memory.max", false, &lowest);
        Lower(directory + "/memory.high", false, &lowest);
      }
      const size_t slash = rest.rfind('/');
      if (slash == std::string::npos) break;
      rest.resize(slash);
    }
  }
  return lowest;
}

uint64_t MemorySize() {
  const uint64_t machine =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const std::optional<MemoryLimit> limit = LowestMemoryLimit();
  return limit ? std::min(machine, limit->bytes) : machine;
}

void LeaveCgroups() {
  // Version 2, and the hierarchies of version 1.
  for (const char* const procs :
       {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs",
        "/sys/fs/cgroup/systemd/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"}) {
    const int file = open(procs, O_WRONLY | O_CLOEXEC);
    if (file < 0) continue;
    std::ignore = write(file, "0", 1);
    close(file);
  }
}

}  // namespace pkramfs
