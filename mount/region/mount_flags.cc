#include "mount/region/mount_flags.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "mount/region/mounts.h"
#include "mount/region/privileges.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

#ifndef MS_NOSYMFOLLOW
constexpr unsigned long MS_NOSYMFOLLOW = 256;
#endif

constexpr unsigned long kAtime = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

struct Word {
  std::string_view name;
  unsigned long set, clear;
};

constexpr Word kWords[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
    {"noatime", MS_NOATIME, kAtime & ~MS_NOATIME},
    {"atime", 0, MS_NOATIME},
    {"relatime", MS_RELATIME, kAtime & ~MS_RELATIME},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, kAtime & ~MS_STRICTATIME},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"lazytime", MS_LAZYTIME, 0},
    {"nolazytime", 0, MS_LAZYTIME},
    {"nosymfollow", MS_NOSYMFOLLOW, 0},
    {"symfollow", 0, MS_NOSYMFOLLOW},
};

}  // namespace

bool FlagChange::Apply(std::string_view word) {
  const Word* const found = std::find_if(std::begin(kWords), std::end(kWords),
                                         [&](const Word& w) { return w.name == word; });
  if (found == std::end(kWords)) return false;
  set = (set & ~found->clear) | found->set;
  clear = (clear & ~found->set) | found->clear;
  return true;
}

std::vector<std::string> FlagChange::FuseWords() const {
  constexpr unsigned long kKnown =
      MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS | MS_DIRSYNC | MS_NOATIME;
  std::vector<std::string> words;
  for (const Word& word : kWords) {
    if ((word.set & set & kKnown) != 0) words.emplace_back(word.name);
  }
  return words;
}

FlagChange FlagsOf(const MountEntry& mount) {
  FlagChange flags;
  for (const std::string* list : {&mount.flags, &mount.options}) {
    for (const absl::string_view word : absl::StrSplit(*list, ',')) {
      // A mount's own "rw" takes nothing from a filesystem that is read-only, nor the reverse.
      if (word != "rw") flags.Apply({word.data(), word.size()});
    }
  }
  // There is no word for it: it is what is left.
  if ((flags.set & kAtime) == 0) flags.set |= MS_STRICTATIME;
  unsigned long all = 0;
  for (const Word& word : kWords) all |= word.set;
  flags.clear = all & ~flags.set;
  return flags;
}

absl::Status ChangeFlags(const MountIdentity& mount, const FlagChange& change) {
  for (const MountEntry& m : AllMounts()) {
    if (m.id != mount.id || m.device != mount.device) continue;
    const unsigned long is = FlagsOf(m).set;
    unsigned long wanted = (is & ~change.clear) | change.set;
    if ((wanted & kAtime) == 0) wanted |= MS_RELATIME;  // what the kernel does unless it is told
    if (wanted == is) return absl::OkStatus();
    if (!MayMount()) {
      constexpr unsigned long kMatters = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC |
                                         MS_NOSYMFOLLOW | MS_SYNCHRONOUS | MS_DIRSYNC;
      // dev and suid are asked for in vain.
      if ((wanted & ~is & kMatters) == 0) return absl::OkStatus();
      return absl::PermissionDeniedError(
          absl::StrCat("flags of the mount on ", m.mount_point,
                       ": only root may change them: leave them out, or mount it as root"));
    }
    const pkram::Descriptor top(
        open(m.mount_point.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (::mount(nullptr, PathOf(top).c_str(), nullptr, MS_REMOUNT | wanted, nullptr) == 0) {
      return absl::OkStatus();
    }
    return absl::InternalError(
        absl::StrCat("cannot change the flags of the mount on ", m.mount_point, ": ",
                     errno == EBUSY ? "files are open for writing" : std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace pkramfs
