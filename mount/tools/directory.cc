#include "mount/tools/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace pkramfs {

absl::Status Failed(const std::string& path, int error) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": ", std::strerror(error)));
}

absl::StatusOr<std::vector<std::string>> ListNames(int directory, const std::string& path) {
  const int again = fcntl(directory, F_DUPFD_CLOEXEC, 0);
  DIR* const listing = again < 0 ? nullptr : fdopendir(again);
  if (listing == nullptr) {
    const int error = errno;
    if (again >= 0) close(again);
    return Failed(path, error);
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* const entry = readdir(listing)) {
    const std::string_view found = entry->d_name;
    if (found != "." && found != "..") names.emplace_back(found);
  }
  const int error = errno;
  closedir(listing);
  if (error != 0) return Failed(path, error);
  return names;
}

absl::StatusOr<pkram::Descriptor> OpenEmptyDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Failed(path, errno);
  pkram::Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return Failed(path, errno);
  const absl::StatusOr<std::vector<std::string>> names = ListNames(directory.get(), path);
  if (!names.ok()) return names.status();
  if (!names->empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": not empty: choose a directory that is, or one to be made"));
  }
  return directory;
}

}  // namespace pkramfs
