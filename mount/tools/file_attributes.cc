#include "mount/tools/file_attributes.h"

#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cerrno>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "fs/acl.h"
#include "fs/xattrs.h"
#include "mount/tools/directory.h"

namespace pkramfs {
namespace {

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

Timestamp TimeOf(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec)};
}

ssize_t List(int fd, char* names, size_t size) { return flistxattr(fd, names, size); }
ssize_t List(const std::string& file, char* names, size_t size) {
  return llistxattr(file.c_str(), names, size);
}
ssize_t Get(int fd, const char* name, char* value, size_t size) {
  return fgetxattr(fd, name, value, size);
}
ssize_t Get(const std::string& file, const char* name, char* value, size_t size) {
  return lgetxattr(file.c_str(), name, value, size);
}
template <typename File>
absl::Status ReadXattrsOf(const File& file, const std::string& path, uint32_t mode,
                          std::string* blob) {
  std::string names;
  for (;;) {
    const ssize_t size = List(file, nullptr, 0);
    if (size == 0 || (size < 0 && errno == ENOTSUP)) return absl::OkStatus();
    if (size < 0) return Failed(path, errno);
    names.resize(static_cast<size_t>(size));
    const ssize_t got = List(file, names.data(), names.size());
    if (got < 0 && errno == ERANGE) continue;
    if (got < 0) return Failed(path, errno);
    names.resize(static_cast<size_t>(got));
    break;
  }
  for (size_t at = 0; at < names.size(); at = names.find('\0', at) + 1) {
    const char* const name = names.c_str() + at;
    if (Xattrs::CheckName(name) != 0) continue;
    std::string value(65536, '\0');
    const ssize_t size = Get(file, name, value.data(), value.size());
    if (size < 0 && errno == ENODATA) continue;
    if (size < 0) return Failed(path, errno);
    Xattrs::Append(blob, name, std::string_view(value).substr(0, static_cast<size_t>(size)));
  }
  if (!Xattrs::Sound(*blob, mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": its extended attributes or ACLs cannot be kept"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsSame(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mode == b.st_mode && SameTime(a.st_mtim, b.st_mtim) && SameTime(a.st_ctim, b.st_ctim);
}

TreeBuilder::Attributes AttributesOf(const struct stat& st) {
  TreeBuilder::Attributes a;
  a.mode = st.st_mode;
  a.uid = st.st_uid;
  a.gid = st.st_gid;
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
    a.rdev = uint64_t{major(st.st_rdev)} << 32 | minor(st.st_rdev);
  }
  a.atime = TimeOf(st.st_atim);
  a.mtime = TimeOf(st.st_mtim);
  a.ctime = TimeOf(st.st_ctim);
  a.btime = a.mtime;
  return a;
}

absl::Status ReadXattrs(int fd, const std::string& path, uint32_t mode, std::string* blob) {
  return ReadXattrsOf(fd, path, mode, blob);
}

absl::Status ReadXattrs(const std::string& file, const std::string& path, uint32_t mode,
                        std::string* blob) {
  return ReadXattrsOf(file, path, mode, blob);
}

absl::Status CopyXattrs(int from, int to, uint32_t mode, const std::string& path) {
  std::string blob;
  if (absl::Status read = ReadXattrs(from, path, mode, &blob); !read.ok()) return read;
  std::set<std::string, std::less<>> missing{std::string(kAccessAcl), std::string(kDefaultAcl)};
  absl::Status result;
  Xattrs::ForEachOf(blob, [&](std::string_view name, std::string_view value) {
    const std::string its_name(name);
    missing.erase(its_name);
    if (fsetxattr(to, its_name.c_str(), value.data(), value.size(), 0) != 0) {
      result.Update(Failed(path, errno));
    }
  });
  for (const std::string& acl : missing) {
    if (fremovexattr(to, acl.c_str()) != 0 && errno != ENODATA) result.Update(Failed(path, errno));
  }
  return result;
}

}  // namespace pkramfs
