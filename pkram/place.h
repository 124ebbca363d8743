// Resolves a path while others may rename parts of it.  A symbolic link is followed only if it
// belongs to this user or to root.  (Linux's protected_symlinks has the same rule for directories
// that everybody may write to.)  The file that was looked at is the file that is used, because each
// step starts at a directory that is held open.
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
  // The name in `directory`.  There may be nothing of that name.  It is no link, except where
  // `of_proc` is set.
  std::string name;
  // Whether it is a name in /proc that leads to a file which a process has open.  Only the kernel
  // can follow such a name.
  bool of_proc = false;
};

// NOT_FOUND, PERMISSION_DENIED (whose link it is) or FAILED_PRECONDITION with the path.
absl::StatusOr<Place> FindPlace(const std::string& path);

// Opens it by openat(2).  A link that has come there since is not followed.  Returns -1 and sets
// errno on errors.
int OpenPlace(const Place& place, int flags, mode_t mode = 0);

// PERMISSION_DENIED when others may write to a file.  They could change a region while it is in
// use, after it was proven sound.  That is a danger also to programs that only look into it.
absl::Status CheckOwner(const std::string& name, const struct stat& st);

// The message for an open of `path`, or a step towards it, that failed with `error`.
absl::Status OpenStatus(const std::string& path, int error);

}  // namespace pkram

#endif  // PKRAM_PLACE_H_
