// pkramctl info: what is in a region; of a mounted one, what its daemon says.
#ifndef MOUNT_CTL_INFO_H_
#define MOUNT_CTL_INFO_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mount/ctl/output.h"

namespace pkramfs {

// One line of the table for people: "used    1.20 GiB   60 % of the region".
struct Fact {
  enum class Unit { kNone, kBytes, kCount };

  std::string name;
  std::string text{};       // if it is no number
  Unit unit = Unit::kNone;  // of the number
  uint64_t number = 0;
  std::string note{};  // what else there is to say
};

// Of what `pkramctl info --json` prints of a mounted region.  `now`: seconds since 1970.
std::vector<Fact> FactsOfMount(const Json& json, int64_t now);
// And of one that is not.
std::vector<Fact> FactsOfRegion(const Json& json);

// A table.  With `before`, the facts of a while ago, a column shows by how much each number has
// changed.
std::string TableOf(const std::vector<Fact>& facts, const std::vector<Fact>* before = nullptr);

// `place`: a region, or a directory on which one is mounted (RegionOrMountPoint).  Returns the exit
// status.
int RunInfo(const std::string& place, bool as_json);
// Prints the table every `seconds`, with what has changed, until the mount is gone or the output.
int RunWatch(const std::string& place, double seconds);

}  // namespace pkramfs

#endif  // MOUNT_CTL_INFO_H_
