#include "mount/region/mount_point.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "mount/region/mounts.h"
#include "pkram/place.h"

namespace pkramfs {

using pkram::Descriptor;

std::string PathOf(const Descriptor& fd) { return absl::StrCat("/proc/self/fd/", fd.get()); }

std::string NameOf(const Descriptor& fd) {
  char path[PATH_MAX];
  const ssize_t n = readlink(PathOf(fd).c_str(), path, sizeof(path));
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : "";
}

absl::StatusOr<Descriptor> OpenMountPoint(const std::string& path) {
  // Behind a slash it would be a name on the way.
  std::string last = path;
  while (last.size() > 1 && last.back() == '/') last.pop_back();
  const absl::StatusOr<pkram::Place> place = pkram::FindPlace(last);
  if (!place.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("mount point ", std::string(place.status().message()),
                     absl::IsNotFound(place.status()) ? ": create it first" : ""));
  }
  Descriptor directory(pkram::OpenPlace(*place, O_PATH | O_CLOEXEC));
  struct stat st;
  struct statvfs stats;
  // The kernel may know a dead mount's attributes, but not its statistics.
  if (directory.get() < 0 || fstat(directory.get(), &st) != 0 ||
      fstatvfs(directory.get(), &stats) != 0) {
    const int error = errno;
    std::string what = absl::StrCat("mount point ", path, ": ", std::strerror(error));
    if (error == ENOENT) absl::StrAppend(&what, ": create it first");
    if (error == ENOTCONN) {
      absl::StrAppend(&what, ": a dead mount is there: `umount -l ", path, "` first");
    }
    return absl::FailedPreconditionError(what);
  }
  if (!S_ISDIR(st.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("mount point ", path, ": not a directory: choose a directory"));
  }
  const std::string name = NameOf(directory);
  for (const MountEntry& m : PkramfsMounts()) {
    if (m.mount_point == name) {
      return absl::FailedPreconditionError(absl::StrCat("mount point ", path, ": ", m.source,
                                                        " is mounted there: unmount it first"));
    }
  }
  return directory;
}

MountIdentity MountOn(const Descriptor& directory) {
  const std::string name = NameOf(directory);
  MountIdentity last;
  for (const MountEntry& m : AllMounts()) {
    if (!name.empty() && m.mount_point == name) last = {m.id, m.device};
  }
  return last;
}

namespace {

// Opens the mount, wherever it is.  Nothing when it is gone, or when something was mounted on top
// of it.
Descriptor RootOf(const MountIdentity& mount) {
  for (const MountEntry& m : AllMounts()) {
    if (m.id != mount.id || m.device != mount.device) continue;
    Descriptor top(open(m.mount_point.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    std::ifstream in(absl::StrCat("/proc/self/fdinfo/", top.get()));
    for (std::string field, value; in >> field >> value;) {
      if (field == "mnt_id:" && value == mount.id) return top;
    }
  }
  return Descriptor(-1);
}

}  // namespace

void DetachMount(const MountIdentity& mount) {
  const Descriptor root = RootOf(mount);
  if (root.get() >= 0) umount2(PathOf(root).c_str(), MNT_DETACH);
}

void DetachMountAsUser(const MountIdentity& mount) {
  const Descriptor root = RootOf(mount);
  if (root.get() < 0) return;
  const std::string path = NameOf(root);
  const char* argv[] = {"fusermount3", "-u", "-q", "-z", "--", path.c_str(), nullptr};
  // A thread that has just ended counts among the user's processes until the kernel is done with
  // it.
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    pid_t pid = 0;
    const int error =
        posix_spawnp(&pid, argv[0], nullptr, nullptr, const_cast<char**>(argv), environ);
    if (error == 0) waitpid(pid, nullptr, 0);
    if (error != EAGAIN) return;
    usleep(10000);
  }
}

}  // namespace pkramfs
