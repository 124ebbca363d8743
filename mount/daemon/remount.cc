#include "mount/daemon/remount.h"

#include <sys/mount.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "mount/region/mount_flags.h"
#include "mount/tools/live_mount.h"
#include "mount/tools/statistics.h"

namespace pkramfs {
namespace {

absl::Status CannotChange(const std::string& option) {
  return absl::InvalidArgumentError(absl::StrCat(
      "option ", option, ": cannot change while it is mounted: unmount it, and mount it with it"));
}

// The options, as the daemon reports them.
nlohmann::ordered_json OptionsOf(const nlohmann::ordered_json& statistics) {
  return statistics.value("options", nlohmann::ordered_json::object());
}

nlohmann::ordered_json StatisticsOf(const LiveMount& mount) {
  return ParseStatistics(mount.Statistics()).value_or(nlohmann::ordered_json::object());
}

// Checks that each option which a remount cannot change is what it was.
absl::Status CheckTheOthers(const MountOptions& options, const LiveMount& mount) {
  const auto json = StatisticsOf(mount);
  const auto is = OptionsOf(json);
  if (options.writeback && !is.value("writeback", false)) return CannotChange("writeback");
  if (!options.export_handles && is.value("export", true)) return CannotChange("noexport");
  if (options.takeover && *options.takeover != is.value("takeover", false)) {
    return CannotChange(*options.takeover ? "takeover" : "notakeover");
  }
  if (options.node != "pkramfs" && options.node != json.value("node", "")) {
    return CannotChange(absl::StrCat("pkram=", options.node));
  }
  if (options.max_read && *options.max_read != is.value("max_read", uint32_t{0})) {
    return CannotChange(absl::StrCat("max_read=", *options.max_read));
  }
  if (!options.checkpoint.empty() && options.checkpoint != is.value("checkpoint", "")) {
    return CannotChange(absl::StrCat("checkpoint=", options.checkpoint));
  }
  if (options.checkpoint_every != 0 &&
      options.checkpoint_every != is.value("checkpoint_every", uint64_t{0})) {
    return CannotChange("checkpoint_every");
  }
  if (!options.checkpoint_at_exit && is.value("checkpoint_at_exit", true)) {
    return CannotChange("checkpoint_at_exit=no");
  }
  if ((options.flags.clear & MS_RDONLY) != 0 && is.value("shows_image", false)) {
    return absl::InvalidArgumentError(
        "option rw: an image is mounted there, which does not change: unmount it, and mount it "
        "without ro, to use it as a region");
  }
  const std::vector<std::string> has = absl::StrSplit(mount.entry().options, ',');
  for (const std::string& option : options.fuse) {
    if (option == "debug") continue;
    const bool is_name = option.rfind("fsname=", 0) == 0 || option.rfind("subtype=", 0) == 0;
    if (!is_name && std::ranges::count(has, option) == 0) return CannotChange(option);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Remount(const MountOptions& options,
                     const std::function<void(const std::string&)>& warn) {
  const absl::StatusOr<LiveMount> mount = LiveMount::On(options.mount_point);
  if (!mount.ok()) return mount.status();
  if (absl::Status s = CheckTheOthers(options, *mount); !s.ok()) return s;
  const MountIdentity identity{mount->entry().id, mount->entry().device};
  const FlagChange before = FlagsOf(mount->entry());
  if (absl::Status s = ChangeFlags(identity, options.flags); !s.ok()) return s;
  const auto is = OptionsOf(StatisticsOf(*mount));
  const bool locks = options.lock_memory && !is.value("mlock", false);
  absl::Status done;
  if (locks) done = mount->LockMemory(true);
  if (done.ok() && (options.size || options.max_inodes)) {
    done = mount->Resize(options, warn);
    if (!done.ok() && locks) mount->LockMemory(false).IgnoreError();
  }
  if (!done.ok()) ChangeFlags(identity, before).IgnoreError();
  return done;
}

}  // namespace pkramfs
