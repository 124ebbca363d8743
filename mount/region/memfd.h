// Regions in a memfd: memory that has a name, and no path.  "memfd:NAME" is what a user calls one.
//
// Such a region lasts as long as some process has it open: the server and the keeper of a mount, a
// holder when there is no mount (mount/region/holder.h), or a service manager.  Nothing but /proc
// leads to it, so only its owner and root can open it.  Root's and each user's names are different
// ones.
//
// The kernel shows the name in /proc.  It does not for a memfd that has crossed a kexec: an
// extended attribute of that has the name.
#ifndef MOUNT_REGION_MEMFD_H_
#define MOUNT_REGION_MEMFD_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// Whether a user's word for a region is one for a memfd.
bool IsMemfd(std::string_view given);

// INVALID_ARGUMENT for a word for which there can be no memfd.
absl::Status CheckMemfd(std::string_view given);

// The name in a user's word.
std::string_view NameOfMemfd(std::string_view given);

// A path below /proc by which the memfd can be opened, as long as the process lives that has it
// open.  "" when no process has it that this user may look into.
std::string FindMemfd(std::string_view given);

// Opens it.  -1 when it cannot be found, or opened.
pkram::Descriptor OpenMemfd(std::string_view given, int flags);

// The words for all memfds of this user that can be found.
std::vector<std::string> AllMemfds();

// The numbers that are names in a directory of /proc.
std::vector<std::string> NumbersIn(const std::string& directory);

// Makes one, which is empty.  If another process makes one of the same name at the same time, one
// of them wins, and ALREADY_EXISTS is what the other gets.
absl::StatusOr<pkram::Descriptor> MakeMemfd(std::string_view given);

// Gives the name to a memfd that the kernel before has left, as MakeMemfd would have made it.  One
// that has a name keeps it.
absl::Status NameMemfd(int memfd, std::string_view given);

// Whether this kernel lets a memfd be named so.
absl::Status CheckMemfdsCanBeNamed();

}  // namespace pkramfs

#endif  // MOUNT_REGION_MEMFD_H_
