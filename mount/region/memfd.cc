#include "mount/region/memfd.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <functional>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"

namespace pkramfs {
namespace {

constexpr std::string_view kWord = "memfd:";
constexpr size_t kMostBytes = 200;  // of a name; the kernel takes 249 with what is before it

// What the kernel calls a memfd: "/memfd:pkramfs:NAME (deleted)".
constexpr std::string_view kBefore = "/memfd:pkramfs:", kBehind = " (deleted)";

// What it calls one that has crossed a kexec (Linux 7.3), or one that was made without a name.  An
// attribute then has the name, which only root may set.
constexpr std::string_view kNameless[] = {"/ (deleted)", "/memfd: (deleted)"};
constexpr char kAttribute[] = "trusted.pkramfs.name";

// The region's name, if that path below /proc leads to the memfd of one.
std::optional<std::string> NameAt(const std::string& path) {
  char target[NAME_MAX + 64];
  const ssize_t size = readlink(path.c_str(), target, sizeof(target));
  std::string_view file(target, static_cast<size_t>(std::max<ssize_t>(size, 0)));
  if (std::ranges::count(kNameless, file) != 0) {
    char name[kMostBytes];
    const ssize_t bytes = getxattr(path.c_str(), kAttribute, name, sizeof(name));
    if (bytes <= 0) return std::nullopt;
    return std::string(name, static_cast<size_t>(bytes));
  }
  if (!file.starts_with(kBefore) || !file.ends_with(kBehind)) return std::nullopt;
  file.remove_prefix(kBefore.size());
  file.remove_suffix(kBehind.size());
  return std::string(file);
}

// A region's memfd has this mode.  With another one, its maker may still give it up.
constexpr mode_t kModeOfMade = 0600;
bool IsMade(const struct stat& st) { return (st.st_mode & 07777) == kModeOfMade; }

// Calls fn(path, name) for each descriptor of a region's memfd that this user owns, until it
// returns false.  Begins with this process.  Those of processes that may not be looked into are
// left out.
enum class Which { kMade, kAll };
void ForEach(Which which,
             const std::function<bool(const std::string& path, std::string_view name)>& fn) {
  std::vector<std::string> processes = NumbersIn("/proc");
  processes.insert(processes.begin(), "self");
  for (const std::string& process : processes) {
    const std::string directory = absl::StrCat("/proc/", process, "/fd/");
    for (const std::string& fd : NumbersIn(directory)) {
      const std::string path = directory + fd;
      const std::optional<std::string> file = NameAt(path);
      if (!file) continue;
      struct stat st;
      // (Another user may have called a memfd so.  And a file may be called so, but has a name.)
      if (stat(path.c_str(), &st) != 0 || st.st_uid != geteuid() || st.st_nlink != 0) continue;
      if (which == Which::kMade && !IsMade(st)) continue;
      if (!fn(path, *file)) return;
    }
  }
}

}  // namespace

std::string_view NameOfMemfd(std::string_view given) { return given.substr(kWord.size()); }

std::vector<std::string> NumbersIn(const std::string& directory) {
  std::vector<std::string> numbers;
  DIR* const open = opendir(directory.c_str());
  if (open == nullptr) return numbers;
  while (const dirent* const entry = readdir(open)) {
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') numbers.emplace_back(entry->d_name);
  }
  closedir(open);
  return numbers;
}

bool IsMemfd(std::string_view given) { return given.starts_with(kWord); }

absl::Status CheckMemfd(std::string_view given) {
  const std::string_view name = NameOfMemfd(given);
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kMostBytes && std::ranges::all_of(name, is_plain)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(given), ": a name is of 1 to ", kMostBytes,
                   " letters, digits, '.', '_' and '-', as memfd:cache"));
}

std::string FindMemfd(std::string_view given) {
  std::string found;
  ForEach(Which::kMade, [&](const std::string& path, std::string_view name) {
    if (name == NameOfMemfd(given)) found = path;
    return found.empty();
  });
  return found;
}

std::vector<std::string> AllMemfds() {
  std::set<std::string> all;
  ForEach(Which::kMade, [&](const std::string&, std::string_view name) {
    all.insert(absl::StrCat(std::string(kWord), std::string(name)));
    return true;
  });
  return {all.begin(), all.end()};
}

pkram::Descriptor OpenMemfd(std::string_view given, int flags) {
  // Twice: it may go from one process to another just now.
  for (int tries = 0; tries < 2; ++tries) {
    const std::string path = FindMemfd(given);
    if (path.empty()) continue;
    pkram::Descriptor memfd(open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY));
    // The number may be another file's by now.
    struct stat st;
    if (memfd.get() >= 0 && fstat(memfd.get(), &st) == 0 && st.st_uid == geteuid() && IsMade(st) &&
        NameAt(absl::StrCat("/proc/self/fd/", memfd.get())) == NameOfMemfd(given)) {
      return memfd;
    }
  }
  return pkram::Descriptor(-1);
}

absl::StatusOr<pkram::Descriptor> MakeMemfd(std::string_view given) {
  if (absl::Status s = CheckMemfd(given); !s.ok()) return s;
  const std::string called = absl::StrCat("pkramfs:", std::string(NameOfMemfd(given)));
  // One that is sealed against being run (MFD_NOEXEC_SEAL) comes out of a kexec sealed against
  // writing (Linux 7.3).  Its mode does not let it be run either.  Kernels before 6.3 do not know
  // the flag, and with vm.memfd_noexec=2 there are sealed ones only.
#ifndef MFD_EXEC
  constexpr unsigned MFD_EXEC = 16;
#endif
  pkram::Descriptor made(memfd_create(called.c_str(), MFD_CLOEXEC | MFD_EXEC));
  if (made.get() < 0) made = pkram::Descriptor(memfd_create(called.c_str(), MFD_CLOEXEC));
  struct stat st;
  const auto failed = [&] {
    return absl::FailedPreconditionError(
        absl::StrCat(std::string(given), ": cannot be made: ", std::strerror(errno)));
  };
  if (made.get() < 0 || fstat(made.get(), &st) != 0) return failed();
  bool is_alone = true, sees_itself = false;
  ForEach(Which::kAll, [&](const std::string& path, std::string_view name) {
    struct stat other;
    if (name != NameOfMemfd(given) || stat(path.c_str(), &other) != 0) return true;
    other.st_ino == st.st_ino ? sees_itself = true : is_alone = false;
    return is_alone;
  });
  if (is_alone && !sees_itself) {
    return absl::FailedPreconditionError(
        absl::StrCat(std::string(given), ": a memfd is found by /proc, which is not mounted here"));
  }
  if (is_alone && fchmod(made.get(), kModeOfMade) != 0) return failed();
  if (is_alone) return made;
  return absl::AlreadyExistsError(absl::StrCat(std::string(given), " exists"));
}

absl::Status NameMemfd(int memfd, std::string_view given) {
  const std::string_view name = NameOfMemfd(given);
  if (NameAt(absl::StrCat("/proc/self/fd/", memfd))) return absl::OkStatus();
  if (fchmod(memfd, kModeOfMade) == 0 &&
      fsetxattr(memfd, kAttribute, name.data(), name.size(), 0) == 0) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat(std::string(given), ": a memfd cannot be named: ", std::strerror(errno)));
}

absl::Status CheckMemfdsCanBeNamed() {
  const pkram::Descriptor trial(memfd_create("", MFD_CLOEXEC));
  return NameMemfd(trial.get(), "memfd:?");
}

}  // namespace pkramfs
