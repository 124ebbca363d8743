#include "mount/tools/live_mount.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/region/memfd.h"
#include "pkram/place.h"

namespace pkramfs {

namespace {

// The topmost mount on a directory, whatever it is.
std::optional<MountEntry> MountOn(const std::string& directory) {
  const std::string path = Canonical(directory);
  std::optional<MountEntry> last;
  for (MountEntry& mount : AllMounts()) {
    if (mount.mount_point == path) last = std::move(mount);
  }
  return last;
}

bool IsOurs(const std::optional<MountEntry>& mount) {
  return mount && mount->type == "fuse.pkramfs";
}

}  // namespace

bool IsOfItsRegion(const MountEntry& mount) {
  const std::vector<MountEntry> its = MountsOf(RegionPath(mount.source));
  return std::ranges::any_of(its, [&](const MountEntry& one) { return one.id == mount.id; });
}

std::string RegionOrMountPoint(const std::string& word) {
  if (IsMemfd(word)) return word;
  const std::string path = RegionPath(word);
  // A word without a slash is a file in /dev/shm, if there is one.
  const bool is_region =
      path != word && word != "." && word != ".." && access(path.c_str(), F_OK) == 0;
  return !is_region && IsOurs(MountOn(word)) ? Canonical(word) : path;
}

absl::StatusOr<std::string> RegionAt(const std::string& place) {
  const std::optional<MountEntry> mount = MountOn(place);
  if (!IsOurs(mount)) return place;
  if (!IsOfItsRegion(*mount)) {
    return absl::PermissionDeniedError(absl::StrCat(
        place, ": mounted by another user than root, the owner of its region and you"));
  }
  if (mount->source.starts_with("fd=")) {
    return absl::FailedPreconditionError(
        absl::StrCat(place, ": its region has no path by which it can be opened"));
  }
  return RegionPath(mount->source);
}

LiveMount::LiveMount(MountEntry entry)
    : entry_(std::move(entry)),
      directory_(open(entry_.mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      open_error_(directory_.get() < 0 ? errno : 0) {}

// A dead mount can be opened, but nobody answers.  False, and errno, if nobody does.
bool LiveMount::Answers() {
  if (open_error_ == 0) return ioctl(directory_.get(), kControlStatistics, &statistics_) == 0;
  errno = open_error_;
  return false;
}

absl::StatusOr<LiveMount> LiveMount::Of(const std::string& path) {
  if (IsOurs(MountOn(path))) return On(path);
  const absl::StatusOr<pkram::Place> place = pkram::FindPlace(path);
  if (absl::IsPermissionDenied(place.status())) return place.status();
  for (MountEntry& mount : MountsOf(path)) {
    LiveMount live(std::move(mount));
    if (live.Answers()) return live;
  }
  return absl::NotFoundError(
      absl::StrCat(path, ": not mounted here by root, by its owner or by you: mount it first"));
}

absl::StatusOr<LiveMount> LiveMount::On(const std::string& directory) {
  std::optional<MountEntry> mount = MountOn(directory);
  if (!IsOurs(mount)) {
    return absl::NotFoundError(
        absl::StrCat(directory, ": no pkramfs is mounted there: mount it first"));
  }
  LiveMount live(*std::move(mount));
  if (live.Answers()) return live;
  if (errno == EACCES || errno == EPERM) {
    return absl::PermissionDeniedError(
        absl::StrCat(directory, ": another user's mount: run this as that user"));
  }
  if (errno != ENOTCONN && errno != ECONNABORTED) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, ": does not answer as a pkramfs: ", std::strerror(errno)));
  }
  return absl::UnavailableError(absl::StrCat(directory,
                                             ": the daemon of this mount is gone: `umount -l ",
                                             directory, "`, and mount it again"));
}

std::string LiveMount::Statistics() const { return std::string(JsonOf(statistics_)); }

absl::Status LiveMount::Ask(const char* what, unsigned command, void* argument) const {
  if (ioctl(directory_.get(), command, argument) == 0) return absl::OkStatus();
  const std::string& mount_point = entry_.mount_point;
  if (command == kControlFreeze && errno == EBUSY) {
    return absl::FailedPreconditionError(
        absl::StrCat(mount_point, " is frozen already: thaw it first"));
  }
  if (command == kControlThaw && errno == EINVAL) {
    return absl::FailedPreconditionError(absl::StrCat(mount_point, " is not frozen"));
  }
  return absl::InternalError(absl::StrCat(what, " ", mount_point, ": ", std::strerror(errno)));
}

absl::Status LiveMount::Resize(const MountOptions& options,
                               const std::function<void(const std::string&)>& warn) const {
  ControlResize resize{
      options.size.value_or(kControlAsItIs), options.max_inodes.value_or(kControlAsItIs), {}};
  if (absl::Status s = Ask("cannot resize", kControlResize, &resize); !s.ok()) return s;
  resize.error[sizeof(resize.error) - 1] = 0;
  const std::string_view error = resize.error;
  if (error.empty()) return absl::OkStatus();
  if (!error.starts_with(kControlWarning)) return absl::OutOfRangeError(resize.error);
  warn(std::string(error.substr(std::strlen(kControlWarning))));
  return absl::OkStatus();
}

absl::Status LiveMount::LockMemory(bool locks) const {
  ControlLock lock{locks, {}};
  if (absl::Status s = Ask("cannot lock the memory of", kControlLock, &lock); !s.ok()) return s;
  lock.error[sizeof(lock.error) - 1] = 0;
  if (lock.error[0] == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(lock.error);
}

absl::Status LiveMount::Upgrade(const std::string& program) const {
  ControlUpgrade upgrade{};
  if (program.size() >= sizeof(upgrade.program)) {
    return absl::InvalidArgumentError(absl::StrCat(program, ": ", std::strerror(ENAMETOOLONG)));
  }
  program.copy(upgrade.program, program.size());
  if (absl::Status s = Ask("cannot upgrade", kControlUpgrade, &upgrade); !s.ok()) return s;
  upgrade.error[sizeof(upgrade.error) - 1] = 0;
  if (upgrade.error[0] == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(upgrade.error);
}

absl::StatusOr<ControlCheckpoint> LiveMount::Checkpoint(const std::string& file) const {
  ControlCheckpoint checkpoint{};
  if (file.size() >= sizeof(checkpoint.file)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::strerror(ENAMETOOLONG)));
  }
  file.copy(checkpoint.file, file.size());
  if (absl::Status s = Ask("no checkpoint of", kControlCheckpoint, &checkpoint); !s.ok()) return s;
  checkpoint.error[sizeof(checkpoint.error) - 1] = 0;
  if (checkpoint.error[0] != 0) return absl::FailedPreconditionError(checkpoint.error);
  return checkpoint;
}

absl::Status LiveMount::Sync() const {
  if (syncfs(directory_.get()) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("syncfs: ", std::strerror(errno)));
}

}  // namespace pkramfs
