#include "mount/tools/target.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "mount/region/options.h"
#include "mount/serve/control.h"
#include "mount/tools/directory.h"
#include "mount/tools/live_mount.h"

namespace pkramfs {

namespace {

// Removes slashes that mean nothing.  INVALID_ARGUMENT for "..".
absl::StatusOr<std::string> Inside(const std::string& given, const std::string& path) {
  std::string inside;
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      return absl::InvalidArgumentError(absl::StrCat(given, ": a target has no .. in it"));
    }
    absl::StrAppend(&inside, "/", part);
  }
  return inside;
}

absl::StatusOr<Target> MountedTarget(const std::string& given, const std::string& path) {
  // The directory that it is in tells which mount.
  std::string directory = path;
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  const size_t slash = directory.rfind('/');
  const std::string last = slash == std::string::npos ? directory : directory.substr(slash + 1);
  std::string parent = slash == std::string::npos ? "." : directory.substr(0, slash + 1);
  std::string whole = Canonical(directory);
  if (access(directory.c_str(), F_OK) != 0) {
    if (access(parent.c_str(), F_OK) != 0) return Failed(parent, errno);
    parent = Canonical(parent);
    whole = absl::StrCat(parent, parent.ends_with('/') ? "" : "/", last);
  }
  std::optional<MountEntry> best;
  for (MountEntry& mount : AllMounts()) {
    const bool in = whole == mount.mount_point || mount.mount_point == "/" ||
                    whole.starts_with(mount.mount_point + "/");
    if (in && (!best || mount.mount_point.size() >= best->mount_point.size())) {
      best = std::move(mount);
    }
  }
  if (!best || best->type != "fuse.pkramfs") {
    return absl::NotFoundError(absl::StrCat(
        given,
        ": not on a pkramfs: name a path on one, or REGION:/PATH of one that is not mounted"));
  }
  // Anybody may say of a mount of their own that it is of this region.
  if (!IsOfItsRegion(*best)) {
    return absl::PermissionDeniedError(absl::StrCat(
        given, ": mounted by another user than root, the owner of its region and you"));
  }
  absl::StatusOr<std::string> inside = Inside(given, whole.substr(best->mount_point.size()));
  if (!inside.ok()) return inside.status();
  // A region that the daemon has by a descriptor has no path.
  const bool has_path = !best->source.starts_with("fd=");
  Target target{has_path ? RegionPath(best->source) : best->source, {}, *std::move(inside)};
  target.mount = std::move(best);
  return target;
}

}  // namespace

absl::StatusOr<Target> FindTarget(const std::string& given) {
  const size_t colon = given.find(":/");
  if (colon == std::string::npos || colon == 0) return MountedTarget(given, given);
  const std::string before = given.substr(0, colon), after = given.substr(colon + 1);
  struct stat st;
  if (stat(before.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
    return MountedTarget(given, absl::StrCat(before, "/", after));
  }
  Target target;
  target.region = RegionPath(before);
  absl::StatusOr<std::string> inside = Inside(given, after);
  if (!inside.ok()) return inside.status();
  target.path = *std::move(inside);
  if (absl::StatusOr<LiveMount> live = LiveMount::Of(target.region); live.ok()) {
    target.mount = live->entry();
  } else if (absl::IsPermissionDenied(live.status())) {
    return live.status();
  }
  return target;
}

absl::StatusOr<pkram::PageRun> MountLender::Lend(uint64_t want) {
  ControlLend lend{want, 0, 0, {}};
  if (ioctl(directory_, kControlLend, &lend) != 0) return Refused();
  lend.error[sizeof(lend.error) - 1] = 0;
  if (lend.error[0] != 0) return absl::ResourceExhaustedError(lend.error);
  return pkram::PageRun{pkram::Pfn(lend.first), lend.count};
}

absl::StatusOr<bool> MountLender::Keep(pkram::PageRun run) {
  ControlKeep keep{};
  keep.first = run.first.value();
  keep.count = run.count;
  if (ioctl(directory_, kControlKeep, &keep) != 0) return Refused();
  struct stat st {};
  if (fstat(region_, &st) != 0 || st.st_dev != keep.device || st.st_ino != keep.inode) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": the file that has its region's name is another one by now"));
  }
  return keep.kept != 0;
}

absl::Status MountLender::Refused() const {
  if (errno == EPERM) {
    return absl::PermissionDeniedError(
        absl::StrCat(name_, ": only root and who mounted it may do this"));
  }
  if (errno == ENOTTY) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": its daemon is too old for this: pkramctl upgrade"));
  }
  return Failed(name_, errno);
}

}  // namespace pkramfs
