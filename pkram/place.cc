#include "pkram/place.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkram {
namespace {

constexpr int kStep = O_PATH | O_CLOEXEC;
constexpr int kMostLinks = 40;  // Linux's

bool IsProc(const Descriptor& directory) {
  struct statfs st;
  return fstatfs(directory.get(), &st) == 0 && st.f_type == PROC_SUPER_MAGIC;
}

// Whether somebody else may have made a link, to lead us astray.  (In a user namespace that does
// not know the host's root, the owner of "/" counts as root.)
absl::Status CheckLink(const std::string& path, const std::string& name, const struct stat& st) {
  struct stat root;
  if (st.st_uid == 0 || st.st_uid == geteuid() ||
      (stat("/", &root) == 0 && st.st_uid == root.st_uid)) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat(path, ": ", name, " is a symbolic link that belongs to user ", st.st_uid,
                   ": give the path that it leads to, if it is right"));
}

// If more steps follow, this one must go into a directory.  Asking for a directory makes the kernel
// mount what is to be mounted there on demand.  A link is no directory.
Descriptor StepTo(const Descriptor& at, const std::string& name, bool last) {
  int fd = last ? -1 : openat(at.get(), name.c_str(), kStep | O_NOFOLLOW | O_DIRECTORY);
  if (fd < 0 && (last || errno == ENOTDIR)) {
    fd = openat(at.get(), name.c_str(), kStep | O_NOFOLLOW);
  }
  return Descriptor(fd);
}

}  // namespace

absl::StatusOr<Place> FindPlace(const std::string& path) {
  if (path.empty()) return OpenStatus(path, ENOENT);
  Descriptor at(-1);
  std::string rest = path;
  int links = 0;
  for (;;) {
    if (at.get() < 0) {
      at = Descriptor(open(rest.rfind('/', 0) == 0 ? "/" : ".", kStep | O_DIRECTORY));
      if (at.get() < 0) return OpenStatus(path, errno);
    }
    const size_t begin = rest.find_first_not_of('/');
    if (begin == std::string::npos) return Place{std::move(at), "."};
    const size_t end = rest.find('/', begin);
    const std::string name = rest.substr(begin, end - begin);
    const bool last = end == std::string::npos;
    rest = last ? "" : rest.substr(end);
    Descriptor step = StepTo(at, name, last);
    struct stat st;
    if (step.get() < 0 || fstat(step.get(), &st) != 0) {
      // The open that follows reports what is wrong, for example a dead mount.
      if (last && (errno == ENOENT || step.get() >= 0)) return Place{std::move(at), name};
      return OpenStatus(path, errno);
    }
    if (S_ISLNK(st.st_mode)) {
      if (absl::Status s = CheckLink(path, name, st); !s.ok()) return s;
      if (!IsProc(at)) {
        char target[PATH_MAX];
        const ssize_t n = readlinkat(step.get(), "", target, sizeof(target));
        if (n <= 0 || ++links > kMostLinks) return OpenStatus(path, n < 0 ? errno : ELOOP);
        rest.insert(0, target, static_cast<size_t>(n));
        if (rest.front() == '/') at = Descriptor(-1);
        continue;
      }
      if (last) return Place{std::move(at), name, /*of_proc=*/true};
      step = Descriptor(openat(at.get(), name.c_str(), kStep));
      if (step.get() < 0) return OpenStatus(path, errno);
    } else if (last) {
      return Place{std::move(at), name};
    }
    at = std::move(step);
  }
}

int OpenPlace(const Place& place, int flags, mode_t mode) {
  return openat(place.directory.get(), place.name.c_str(), flags | (place.of_proc ? 0 : O_NOFOLLOW),
                mode);
}

absl::Status CheckOwner(const std::string& name, const struct stat& st) {
  if (st.st_uid != 0 && st.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        absl::StrCat(name, ": belongs to user ", st.st_uid,
                     ", who could change it while it is in use: chown it, or be that user"));
  }
  // (A memfd has no name, so a process has it only if it was given it.)
  if ((st.st_mode & 022) != 0 && st.st_nlink > 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(name, ": others may write to it: take that away (chmod go-w)"));
  }
  return absl::OkStatus();
}

absl::Status OpenStatus(const std::string& path, int error) {
  const std::string message = absl::StrCat(path, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    default:
      return absl::FailedPreconditionError(message);
  }
}

}  // namespace pkram
