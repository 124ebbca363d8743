#include "mount/ctl/list.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "mount/ctl/live.h"
#include "mount/region/memfd.h"
#include "mount/region/options.h"
#include "mount/region/region_file.h"
#include "mount/region/units.h"
#include "mount/serve/control.h"
#include "mount/tools/command_line.h"
#include "mount/tools/live_mount.h"
#include "mount/tools/statistics.h"
#include "pkram/backing.h"
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
std::optional<SeenRegion> FileIn(const pkram::Descriptor& file, const std::string& path) {
  struct stat st;
  const auto super = std::make_unique<pkram::format::SuperBlock>();
  if (file.get() < 0 || fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode) ||
      pread(file.get(), super.get(), sizeof(*super), 0) != sizeof(*super)) {
    return std::nullopt;
  }
  std::optional<SeenRegion> region = Unmounted(path, pkram::Region::GlanceAt(*super));
  if (!region) return region;
  region->used = static_cast<uint64_t>(st.st_blocks) * 512;
  region->user = pkram::LockHolder(file.get());
  if (region->user != 0) region->state = "in use";
  return region;
}

std::optional<SeenRegion> FileAt(const std::string& path) {
  return FileIn(
      pkram::Descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)), path);
}

// By the word for it.
std::optional<SeenRegion> MemfdOf(const std::string& word) {
  return FileIn(OpenMemfd(word, O_RDONLY), word);
}

std::optional<SeenRegion> DeviceAt(const std::string& path) {
  const auto backing = OpenRegionBacking(path, pkram::OpenFor::kReading);
  if (!backing.ok()) return std::nullopt;
  const auto glance = pkram::Region::GlanceAt(backing->get());
  return glance.ok() ? Unmounted(path, *glance) : std::nullopt;
}

std::string PathOf(const MountEntry& mount) {
  return mount.source.starts_with("fd=") ? mount.source : RegionPath(mount.source);
}

// Opens the root of a mount through a copy of the mount, if this process may make one: so an
// unmount meanwhile does not find the mount busy.
pkram::Descriptor OpenRoot(const std::string& mount_point) {
  constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  const pkram::Descriptor copy(static_cast<int>(
      syscall(SYS_open_tree, AT_FDCWD, mount_point.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (copy.get() >= 0) return pkram::Descriptor(openat(copy.get(), ".", kDirectory));
  return pkram::Descriptor(open(mount_point.c_str(), kDirectory));
}

// What is known of a mount: {"error": errno} or {"its": bool, "text": what the daemon sends}.
Json Ask(const MountEntry& mount) {
  const pkram::Descriptor directory = OpenRoot(mount.mount_point);
  const auto reply = std::make_unique<ControlReply>();
  if (directory.get() < 0 || ioctl(directory.get(), kControlStatistics, reply.get()) != 0) {
    return {{"error", errno}};
  }
  return {{"its", IsOfItsRegion(mount)}, {"text", std::string(JsonOf(*reply))}};
}

// Runs Ask in a process of its own, which is left alone if it does not end in time: a daemon that
// does not answer holds only that.  Nothing if there is no answer.
std::optional<Json> AskInTime(const MountEntry& mount) {
  constexpr int kMost = 5000;  // ms
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  const pkram::Descriptor from(ends[0]);
  std::optional<pkram::Descriptor> to(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    const std::string text = Ask(mount).dump(-1, ' ', false, Json::error_handler_t::replace);
    // A pipe takes so much at once.
    const ssize_t written = write(to->get(), text.data(), text.size());
    _exit(written < 0 ? 1 : 0);
  }
  to.reset();
  std::string text;
  pollfd ready{from.get(), POLLIN, 0};
  while (child > 0 && poll(&ready, 1, kMost) > 0) {
    char buffer[4096];
    const ssize_t n = read(from.get(), buffer, sizeof(buffer));
    if (n > 0) {
      text.append(buffer, static_cast<size_t>(n));
      continue;
    }
    waitpid(child, nullptr, 0);
    Json answer = Json::parse(text, nullptr, false);
    if (!answer.is_object()) return std::nullopt;
    return answer;
  }
  if (child > 0) kill(child, SIGKILL);
  return std::nullopt;
}

SeenRegion MountedAt(const MountEntry& mount) {
  SeenRegion region;
  region.path = PathOf(mount);
  region.mount = mount;
  const std::optional<Json> answer = AskInTime(mount);
  region.state = "no answer";
  if (!answer) return region;
  if (answer->contains("error")) {
    const int error = (*answer)["error"];
    const bool is_dead = error == ENOTCONN || error == ECONNABORTED;
    if (is_dead) region.state = "dead";
    if (error == EACCES || error == EPERM) region.state = "private";
    return region;
  }
  absl::StatusOr<Json> statistics = ParseStatistics((*answer)["text"].get<std::string>());
  if (!statistics.ok()) return region;
  region.state = "mounted";
  region.is_its = (*answer)["its"];
  region.statistics = *std::move(statistics);
  const Json& pages = region.statistics["pages"];
  region.size = pages["total"].get<uint64_t>() * pkram::kPageSize;
  region.used =
      (pages["metadata"].get<uint64_t>() + pages["data"].get<uint64_t>()) * pkram::kPageSize;
  return region;
}

// Mounts without those that another mount on the same directory covers.
std::vector<MountEntry> UncoveredMounts() {
  std::map<std::string, MountEntry> last;
  for (MountEntry& mount : AllMounts()) last.insert_or_assign(mount.mount_point, mount);
  std::vector<MountEntry> mounts;
  for (MountEntry& mount : PkramfsMounts()) {
    if (last[mount.mount_point].id == mount.id) mounts.push_back(std::move(mount));
  }
  return mounts;
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

std::string PidOf(const SeenRegion& region) {
  if (region.user != 0) return std::to_string(region.user);
  if (!region.statistics.contains("pid")) return "-";
  return std::to_string(region.statistics["pid"].get<int64_t>());
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
          PidOf(region),
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
  for (const MountEntry& mount : UncoveredMounts()) {
    regions.push_back(MountedAt(mount));
    if (regions.back().is_its) mounted.insert(Canonical(regions.back().path));
  }
  const auto add = [&](const std::string& path, auto look) {
    if (mounted.contains(path)) return;
    if (std::optional<SeenRegion> region = look(path)) regions.push_back(*std::move(region));
  };
  for (const std::string& name : NamesIn(kMemory)) add(absl::StrCat(kMemory, "/", name), FileAt);
  for (const std::string& word : AllMemfds()) add(word, MemfdOf);
  for (const std::string& name : NamesIn(kDevices)) {
    if (name.starts_with("dax")) add(absl::StrCat(kDevices, "/", name), DeviceAt);
  }
  return regions;
}

int RunListNames() {
  std::set<std::string> names;
  for (const MountEntry& mount : PkramfsMounts()) {
    names.insert(mount.source);
    names.insert(mount.mount_point);
  }
  for (const std::string& name : NamesIn(kMemory)) {
    if (FileAt(absl::StrCat(kMemory, "/", name))) names.insert(name);
  }
  for (std::string& word : AllMemfds()) names.insert(std::move(word));
  std::string text;
  for (const std::string& name : names) {
    // A name that cannot be typed as it is shown is of no use here.
    if (Printable(name) == name) absl::StrAppend(&text, name, "\n");
  }
  return Print(text);
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
