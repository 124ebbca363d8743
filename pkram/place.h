// Where a path leads to, when others may change what it leads through.  A symbolic link is
// followed only if it belongs to this user or to root (as Linux's protected_symlinks has it
// for directories that everybody may write to, where that is on), and what was looked at is
// what is used: each step starts at a directory that is held open.
#ifndef PKRAM_PLACE_H_
#define PKRAM_PLACE_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkram {

struct Place {
  Descriptor directory;
  // In it; there may be nothing of that name.  No link, but where `of_proc`.
  std::string name;
  // A name in /proc that leads to what a process has open, as only the kernel can follow it.
  bool of_proc = false;
};

// NOT_FOUND, PERMISSION_DENIED (whose link it is) or FAILED_PRECONDITION with the path.
absl::StatusOr<Place> FindPlace(const std::string& path);

// openat(2) of it: a link that has come there since is not followed.  -1 and errno.
int OpenPlace(const Place& place, int flags, mode_t mode = 0);

// PERMISSION_DENIED when others may write to a file.  Whoever may can change a region while it is
// in use, and after it was proven sound: a danger to whoever only looks into it, too.
absl::Status CheckOwner(const std::string& name, const struct stat& st);

// What an open or a step towards it that failed with `error` says of `path`.
absl::Status OpenStatus(const std::string& path, int error);

}  // namespace pkram

#endif  // PKRAM_PLACE_H_
