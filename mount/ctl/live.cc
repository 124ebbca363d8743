#include "mount/ctl/live.h"

#include <cstdio>
#include <stop_token>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mount/region/memory_limit.h"
#include "mount/region/mounts.h"
#include "mount/region/options.h"
#include "mount/region/progress_line.h"
#include "mount/region/units.h"
#include "mount/serve/control.h"
#include "mount/tools/command_line.h"
#include "mount/tools/progress.h"
#include "mount/tools/statistics.h"
#include "pkram/types.h"

namespace pkramfs {
namespace {

template <typename Fn>
int ThroughMount(const std::string& place, Fn fn) {
  const absl::StatusOr<LiveMount> mount = LiveMount::Of(place);
  if (!mount.ok()) return Fail(mount.status());
  const absl::Status done = fn(*mount);
  return done.ok() ? 0 : Fail(done);
}

// The daemon has another working directory than this process.  The directory's links are followed;
// the file need not exist.
std::string WholePath(const std::string& file) {
  if (file.empty()) return file;
  const size_t slash = file.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : file.substr(0, slash + 1);
  std::string path = Canonical(directory);
  if (path.back() != '/') path += '/';
  return path + file.substr(slash + 1);
}

// Asks the daemon how far its checkpoint has come, until `stop`.
void ShowCheckpoint(const LiveMount& mount, const std::stop_token& stop) {
  ProgressLine line("checkpoint", ProgressLine::Unit::kPages);
  RepeatUntil(stop, [&] {
    const auto live = LiveMount::On(mount.entry().mount_point);
    const absl::StatusOr<Json> json = live.ok() ? StatisticsOf(*live) : live.status();
    if (!json.ok() || !json->contains("/checkpoint/under_way"_json_pointer)) return;
    const Json& at = (*json)["checkpoint"]["under_way"];
    line.Show(at["done"], at["of"]);
  });
}

absl::Status Resize(const LiveMount& mount, const std::string& sizes) {
  MountOptions options;
  if (absl::Status s = ApplyMountOptions(sizes, MemorySize(), &options); !s.ok()) return s;
  if (!options.OnlySizes() || (!options.size && !options.max_inodes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", sizes, "': only size= and nr_inodes= can be changed, as size=2G"));
  }
  return mount.Resize(options, [](const std::string& text) {
    std::fprintf(stderr, "pkramctl: warning: %s\n", Printable(text).c_str());
  });
}

absl::Status Checkpoint(const LiveMount& mount, const std::string& file, bool as_json) {
  if (absl::Status s = mount.Sync(); !s.ok()) return s;
  absl::StatusOr<ControlCheckpoint> made;
  {
    std::jthread shows;
    if (ProgressLine::IsSeen()) {
      shows = std::jthread([&](const std::stop_token& stop) { ShowCheckpoint(mount, stop); });
    }
    made = mount.Checkpoint(WholePath(file));
  }
  if (!made.ok()) return made.status();
  const uint64_t bytes = made->pages * pkram::kPageSize;
  const uint64_t written = made->written * pkram::kPageSize;
  const double took_ms = static_cast<double>(made->took_us) / 1000;
  const double pause_ms = static_cast<double>(made->rest_us) / 1000;
  if (as_json) {
    Print(Json({{"pages", made->pages},
                {"bytes", bytes},
                {"bytes_written", written},
                {"pause_ms", pause_ms},
                {"took_ms", took_ms}}));
  } else {
    Print(absl::StrFormat("%s, %s of it written, in %.3g s; changes waited for %.2g ms\n",
                          Human(bytes), Human(written), took_ms / 1000, pause_ms));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> StatisticsOf(const LiveMount& mount) {
  absl::StatusOr<Json> json = ParseStatistics(mount.Statistics());
  if (!json.ok()) {
    return absl::InternalError(
        absl::StrCat(mount.entry().mount_point, ": ", std::string(json.status().message())));
  }
  (*json)["mounted_on"] = mount.entry().mount_point;
  return json;
}

int RunFreeze(const std::string& place) {
  return ThroughMount(place, [](const LiveMount& mount) {
    if (absl::Status s = mount.Sync(); !s.ok()) return s;
    return mount.Ask("cannot freeze", kControlFreeze);
  });
}

int RunThaw(const std::string& place) {
  return ThroughMount(
      place, [](const LiveMount& mount) { return mount.Ask("cannot thaw", kControlThaw); });
}

int RunResize(const std::string& place, const std::string& sizes) {
  return ThroughMount(place, [&](const LiveMount& mount) { return Resize(mount, sizes); });
}

int RunUpgrade(const std::string& place, const std::string& program) {
  std::string path = program;
  if (path.empty()) {
    const std::string self = Canonical("/proc/self/exe");
    path = self.substr(0, self.rfind('/')) + "/pkramfs";
  }
  return ThroughMount(place,
                      [&](const LiveMount& mount) { return mount.Upgrade(Canonical(path)); });
}

int RunCheckpoint(const std::string& place, const std::string& file, bool as_json) {
  return ThroughMount(place,
                      [&](const LiveMount& mount) { return Checkpoint(mount, file, as_json); });
}

}  // namespace pkramfs
