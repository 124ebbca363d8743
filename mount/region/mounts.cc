#include "mount/region/mounts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string_view>
#include <utility>

#include "mount/region/memfd.h"
#include "mount/region/options.h"
#include "pkram/place.h"

namespace pkramfs {
namespace {

// mountinfo writes blanks and backslashes of a path as three octal digits.
std::string Unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// "rw,user_id=1000,group_id=1000,default_permissions", as FUSE says; nobody where it does not.
uid_t UserOf(const std::string& options) {
  constexpr std::string_view kUser = "user_id=";
  const size_t at = options.find(kUser);
  if (at == std::string::npos) return static_cast<uid_t>(-1);
  return static_cast<uid_t>(std::strtoul(options.c_str() + at + kUser.size(), nullptr, 10));
}

// One file, or nodes of one device.
bool IsAt(const struct stat& one, const std::string& path) {
  struct stat other;
  if (path.rfind('/', 0) != 0 || stat(path.c_str(), &other) != 0) return false;
  if (S_ISCHR(one.st_mode) && S_ISCHR(other.st_mode)) return one.st_rdev == other.st_rdev;
  return one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

}  // namespace

std::vector<MountEntry> AllMounts() {
  // "36 35 0:45 / /mnt rw,nosuid shared:1 - fuse.pkramfs /dev/shm/r rw"
  std::vector<MountEntry> mounts;
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point, flags, field, type, source;
    fields >> id >> parent >> device >> root >> point >> flags;
    while (fields >> field && field != "-") continue;
    std::string options;
    fields >> type >> source >> options;
    mounts.push_back({Unescape(source), Unescape(root), Unescape(point), device, id, type, flags,
                      options, UserOf(options)});
  }
  return mounts;
}

std::vector<MountEntry> PkramfsMounts() {
  std::vector<MountEntry> mounts = AllMounts();
  std::erase_if(mounts, [](const MountEntry& m) { return m.type != "fuse.pkramfs"; });
  return mounts;
}

std::vector<MountEntry> MountsOf(const std::string& region_path) {
  const auto opened = [](const std::string& path) {
    return IsMemfd(path) ? FindMemfd(path) : path;
  };
  const absl::StatusOr<pkram::Place> place = pkram::FindPlace(opened(region_path));
  if (!place.ok()) return {};
  const pkram::Descriptor region(pkram::OpenPlace(*place, O_PATH | O_CLOEXEC));
  struct stat st;
  const bool exists = region.get() >= 0 && fstat(region.get(), &st) == 0;
  std::vector<MountEntry> mounts;
  for (MountEntry& m : PkramfsMounts()) {
    if (m.uid != 0 && m.uid != geteuid() && !(exists && m.uid == st.st_uid)) continue;
    const std::string path = RegionPath(m.source);
    // Of other users' memfds, this word names none.
    if (IsMemfd(path) && m.uid != geteuid()) continue;
    if (path == region_path || (exists && IsAt(st, opened(path)))) mounts.push_back(std::move(m));
  }
  return mounts;
}

std::string Canonical(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr),
                                                         &std::free);
  return real == nullptr ? path : real.get();
}

}  // namespace pkramfs
