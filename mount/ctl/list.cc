#include "mount/ctl/list.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "mount/ctl/live.h"
#include "mount/region/options.h"
#include "mount/region/region_file.h"
#include "mount/region/units.h"
#include "mount/tools/command_line.h"
#include "mount/tools/live_mount.h"
#include "pkram/descriptor.h"
#include "pkram/region.h"

namespace pkramfs {
namespace {

constexpr char kMemory[] = "/dev/shm";
constexpr char kDevices[] = "/dev";

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; it != end;
       it.increment(error)) {
    names.push_back(it->path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<SeenRegion> Unmounted(const std::string& path, const pkram::Region::Glance& glance) {
  using Holds = pkram::Region::Holds;
  if (glance.holds != Holds::kRegion && glance.holds != Holds::kRestoring) return std::nullopt;
  SeenRegion region;
  region.path = path;
  region.state = glance.holds == Holds::kRestoring ? "half restored"
                 : glance.sealed                   ? "sealed"
                                                   : "not sealed";
  if (glance.pages != 0) region.size = glance.pages * pkram::kPageSize;
  return region;
}

// A file is read and never mapped: its owner may cut it at any moment.
std::optional<SeenRegion> FileAt(const std::string& path) {
  const pkram::Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat st;
  const auto super = std::make_unique<pkram::format::SuperBlock>();
  if (file.get() < 0 || fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode) ||
      pread(file.get(), super.get(), sizeof(*super), 0) != sizeof(*super)) {
    return std::nullopt;
  }
  std::optional<SeenRegion> region = Unmounted(path, pkram::Region::GlanceAt(*super));
  if (region) region->used = static_cast<uint64_t>(st.st_blocks) * 512;
  return region;
}

std::optional<SeenRegion> DeviceAt(const std::string& path) {
  const auto backing = OpenRegionBacking(path, pkram::OpenFor::kReading);
  if (!backing.ok()) return std::nullopt;
  const auto glance = pkram::Region::GlanceAt(backing->get());
  return glance.ok() ? Unmounted(path, *glance) : std::nullopt;
}

SeenRegion MountedAt(const MountEntry& mount) {
  SeenRegion region;
  region.path = mount.source.starts_with("fd=") ? mount.source : RegionPath(mount.source);
  region.state = "dead";
  region.mount = mount;
  const absl::StatusOr<LiveMount> live = LiveMount::On(mount.mount_point);
  if (!live.ok()) return region;
  const absl::StatusOr<Json> statistics = StatisticsOf(*live);
  if (!statistics.ok()) return region;
  region.state = "mounted";
  region.statistics = *statistics;
  const Json& pages = region.statistics["pages"];
  region.size = pages["total"].get<uint64_t>() * pkram::kPageSize;
  region.used =
      (pages["metadata"].get<uint64_t>() + pages["data"].get<uint64_t>()) * pkram::kPageSize;
  return region;
}

std::string NameOf(uid_t uid) {
  const passwd* const user = getpwuid(uid);
  return user == nullptr ? std::to_string(uid) : user->pw_name;
}

// When the last checkpoint was made, in seconds since 1970.
std::optional<int64_t> CheckpointOf(const SeenRegion& region) {
  const auto at = "/checkpoint/last/seconds"_json_pointer;
  if (!region.statistics.contains(at)) return std::nullopt;
  return region.statistics[at].get<int64_t>();
}

Json ToJson(const SeenRegion& region) {
  Json json = {{"region", region.path}, {"state", region.state}};
  if (region.size) json["size"] = *region.size;
  if (region.used) json["used"] = *region.used;
  if (region.mount) {
    json["mounted_on"] = region.mount->mount_point;
    json["user"] = NameOf(region.mount->uid);
  }
  for (const char* const key : {"pid", "keeper", "version", "node"}) {
    if (region.statistics.contains(key)) json[key] = region.statistics[key];
  }
  if (const auto made = CheckpointOf(region)) json["checkpoint_seconds"] = *made;
  return json;
}

using Row = std::array<std::string, 8>;

Row RowOf(const SeenRegion& region) {
  const auto size = [](const std::optional<uint64_t>& bytes) {
    return bytes ? Rounded(*bytes) : "-";
  };
  const auto made = CheckpointOf(region);
  const int64_t age = made ? std::max<int64_t>(0, time(nullptr) - *made) : 0;
  return {Printable(region.path),
          region.state,
          size(region.size),
          size(region.used),
          region.mount ? Printable(region.mount->mount_point) : "-",
          region.mount ? NameOf(region.mount->uid) : "-",
          region.statistics.contains("pid")
              ? std::to_string(region.statistics["pid"].get<int64_t>())
              : "-",
          made ? Duration(static_cast<uint64_t>(age)) + " ago" : "-"};
}

std::string Table(const std::vector<Row>& rows) {
  std::array<size_t, std::tuple_size_v<Row>> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    table += line + "\n";
  }
  return table;
}

}  // namespace

std::vector<SeenRegion> SeenRegions() {
  std::vector<SeenRegion> regions;
  std::set<std::string> mounted;
  for (const MountEntry& mount : PkramfsMounts()) {
    regions.push_back(MountedAt(mount));
    mounted.insert(Canonical(regions.back().path));
  }
  const auto add = [&](const std::string& path, auto look) {
    if (mounted.contains(path)) return;
    if (std::optional<SeenRegion> region = look(path)) regions.push_back(*std::move(region));
  };
  for (const std::string& name : NamesIn(kMemory)) add(absl::StrCat(kMemory, "/", name), FileAt);
  for (const std::string& name : NamesIn(kDevices)) {
    if (name.starts_with("dax")) add(absl::StrCat(kDevices, "/", name), DeviceAt);
  }
  return regions;
}

int RunList(bool as_json) {
  const std::vector<SeenRegion> regions = SeenRegions();
  if (as_json) {
    Json json = Json::array();
    for (const SeenRegion& region : regions) json.push_back(ToJson(region));
    return Print(json);
  }
  std::vector<Row> rows = {
      {"REGION", "STATE", "SIZE", "USED", "MOUNTED ON", "USER", "PID", "CHECKPOINT"}};
  for (const SeenRegion& region : regions) rows.push_back(RowOf(region));
  return Print(Table(rows));
}

}  // namespace pkramfs
