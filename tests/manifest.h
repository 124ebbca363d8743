// All that can be seen of a tree on any filesystem, one line per entry.
#ifndef TESTS_MANIFEST_H_
#define TESTS_MANIFEST_H_

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "pkram/checksum.h"

namespace pkramfs {

struct ManifestOptions {
  bool inode_numbers = true;  // and ctime, atime: what a copy does not keep
  bool blocks = true;
  bool all_times = true;  // or those that somebody has set to before 2001
};

using Manifest = std::map<std::string, std::string>;

// A digest of all bytes that are not zero, and of their places.  So holes cost nothing.
inline uint32_t DigestOf(int fd, off_t size) {
  uint32_t crc = 0;
  static thread_local std::vector<char> buffer(1 << 20);
  static const char kZeros[4096] = {};
  for (off_t at = 0; at < size && (at = lseek(fd, at, SEEK_DATA)) >= 0;) {
    const off_t hole = lseek(fd, at, SEEK_HOLE);
    while (at < hole) {
      const off_t want = std::min<off_t>(hole - at, static_cast<off_t>(buffer.size()) - at % 4096);
      const ssize_t n = pread(fd, buffer.data(), static_cast<size_t>(want), at);
      if (n <= 0) return ~crc;  // it says that there is data, so there is
      for (ssize_t done = 0; done < n;) {
        const off_t where = at + done;
        const auto piece = static_cast<size_t>(std::min<off_t>(n - done, 4096 - where % 4096));
        if (std::memcmp(buffer.data() + done, kZeros, piece) != 0) {
          crc = pkram::Crc32c(&where, sizeof(where), crc);
          crc = pkram::Crc32c(buffer.data() + done, piece, crc);
        }
        done += static_cast<ssize_t>(piece);
      }
      at += n;
    }
  }
  return crc;
}

inline std::string DescribeEntry(const std::string& path, const struct stat& st,
                                 const ManifestOptions& options,
                                 std::map<ino_t, std::string>* first_names) {
  const auto time = [&](const timespec& t) {
    if (!options.all_times && t.tv_sec > 1000000000) return std::string("now");
    return std::to_string(t.tv_sec) + "." + std::to_string(t.tv_nsec);
  };
  std::string text = "mode=" + std::to_string(st.st_mode) + " uid=" + std::to_string(st.st_uid) +
                     " gid=" + std::to_string(st.st_gid) + " rdev=" + std::to_string(st.st_rdev) +
                     " mtime=" + time(st.st_mtim);
  if (!S_ISDIR(st.st_mode)) text += " size=" + std::to_string(st.st_size);
  if (!S_ISDIR(st.st_mode) || options.inode_numbers)
    text += " nlink=" + std::to_string(st.st_nlink);
  if (options.inode_numbers) {
    text += " ino=" + std::to_string(st.st_ino) + " ctime=" + time(st.st_ctim) +
            " atime=" + time(st.st_atim);
  }
  if (options.blocks) text += " blocks=" + std::to_string(st.st_blocks);
  if (st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
    text += " same-as=" + first_names->emplace(st.st_ino, path).first->second;
  }
  char buffer[70000];
  if (S_ISLNK(st.st_mode)) {
    const ssize_t n = readlink(path.c_str(), buffer, sizeof(buffer));
    text += " target=" + std::string(buffer, n < 0 ? 0 : static_cast<size_t>(n));
  }
  if (S_ISREG(st.st_mode)) {
    const int fd = open(path.c_str(), O_RDONLY);
    text += " crc=" + std::to_string(DigestOf(fd, st.st_size));
    close(fd);
  }
  char names[65536];
  const ssize_t n = llistxattr(path.c_str(), names, sizeof(names));
  std::map<std::string, std::string> xattrs;
  for (ssize_t at = 0; at < n; at += static_cast<ssize_t>(std::string(names + at).size()) + 1) {
    const ssize_t size = lgetxattr(path.c_str(), names + at, buffer, sizeof(buffer));
    xattrs[names + at] = std::string(buffer, size < 0 ? 0 : static_cast<size_t>(size));
  }
  for (const auto& [name, value] : xattrs) text += " " + name + "=" + value;
  return text;
}

inline void AddToManifest(const std::string& root, const std::string& below,
                          const ManifestOptions& options, std::map<ino_t, std::string>* first_names,
                          Manifest* manifest) {
  const std::string path = root + below;
  struct stat st;
  if (lstat(path.c_str(), &st) != 0) {
    (*manifest)[below] = "cannot stat";
    return;
  }
  std::string text = DescribeEntry(path, st, options, first_names);
  // Names of hard links without the root, so that two trees compare.
  for (size_t at; (at = text.find(" same-as=" + root)) != std::string::npos;) {
    text.erase(at + 9, root.size());
  }
  (*manifest)[below.empty() ? "/" : below] = text;
  if (!S_ISDIR(st.st_mode)) return;
  std::vector<std::string> names;
  DIR* const dir = opendir(path.c_str());
  if (dir == nullptr) return;
  while (const dirent* e = readdir(dir)) {
    const std::string name = e->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    AddToManifest(root, below + "/" + name, options, first_names, manifest);
  }
}

inline Manifest ManifestOf(const std::string& root, const ManifestOptions& options = {}) {
  Manifest manifest;
  std::map<ino_t, std::string> first_names;
  AddToManifest(root, "", options, &first_names, &manifest);
  return manifest;
}

inline std::string FirstDifference(const Manifest& a, const Manifest& b) {
  for (const auto& [path, text] : a) {
    const auto it = b.find(path);
    if (it == b.end()) return path + " is missing";
    if (it->second != text) {
      return path + "\n  " + text.substr(0, 400) + "\n  " + it->second.substr(0, 400);
    }
  }
  for (const auto& [path, text] : b) {
    if (!a.contains(path)) return path + " is new";
  }
  return "";
}

}  // namespace pkramfs

#endif  // TESTS_MANIFEST_H_
