// Makes a tree with every kind of file, name and attribute that /usr/include does not have.
#ifndef TESTS_ODD_TREE_H_
#define TESTS_ODD_TREE_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>

namespace pkramfs {

inline void Must(int64_t result, int64_t wanted) {
  if (result != wanted) throw std::runtime_error(std::string("odd tree: ") + std::strerror(errno));
}

inline void SpillInto(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  Must(out.good(), true);
}

// `many` files in one directory, a third of them deleted again.
inline void MakeOddTree(const std::string& root, int many = 3000) {
  const auto at = [&](const std::string& name) { return root + "/" + name; };
  Must(mkdir(root.c_str(), 0750), 0);
  SpillInto(at("empty"), "");
  SpillInto(at("small"), "small");
  SpillInto(at("name with\nnewline \\ and \x7f\x01"), "x");
  SpillInto(at(std::string(255, 'L')), "x");
  SpillInto(at("\xff\xfe not utf-8"), "x");
  SpillInto(at("-rf"), "x");
  SpillInto(at("medium"), std::string(5000, 'm'));
  SpillInto(at("large"), std::string(3 << 20, 'l') + "end");
  Must(truncate(at("large").c_str(), (3 << 20) - 5), 0);
  SpillInto(at("sparse"), "begin");
  Must(truncate(at("sparse").c_str(), off_t{1} << 40), 0);
  const int fd = open(at("sparse").c_str(), O_WRONLY);
  Must(pwrite(fd, "middle", 6, off_t{1} << 30), 6);
  close(fd);
  Must(truncate(at("sparse").c_str(), (off_t{1} << 30) + 100000), 0);
  Must(link(at("small").c_str(), at("hard1").c_str()), 0);
  Must(link(at("small").c_str(), at("hard2").c_str()), 0);
  Must(symlink("nowhere", at("dangling").c_str()), 0);
  Must(symlink(std::string(4095, 't').c_str(), at("longlink").c_str()), 0);
  Must(mkfifo(at("fifo").c_str(), 0600), 0);
  Must(mknod(at("chr").c_str(), S_IFCHR | 0600, makedev(1, 3)), 0);
  Must(mknod(at("blk").c_str(), S_IFBLK | 0600, makedev(300, 70000)), 0);
  Must(mknod(at("sock").c_str(), S_IFSOCK | 0600, 0), 0);
  Must(setxattr(at("small").c_str(), "user.one", "1", 1, 0), 0);
  Must(setxattr(at("small").c_str(), "trusted.big", std::string(60000, 'v').data(), 60000, 0), 0);
  Must(lsetxattr(at("dangling").c_str(), "trusted.l", "", 0, 0), 0);
  Must(setxattr(root.c_str(), "security.s", "dir", 3, 0), 0);
  // cap_net_raw=ep (include/uapi/linux/capability.h), and rwx for user 1234
  // (include/uapi/linux/posix_acl_xattr.h).
  const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  Must(setxattr(at("hard1").c_str(), "security.capability", capability.data(), 20, 0), 0);
  const auto entry = [](int tag, int may, uint32_t id) {
    std::string bytes{static_cast<char>(tag), 0, static_cast<char>(may), 0};
    for (int i = 0; i < 32; i += 8) bytes += static_cast<char>(id >> i);
    return bytes;
  };
  const std::string acl = std::string("\2\0\0\0", 4) + entry(1, 7, ~0u) + entry(2, 7, 1234) +
                          entry(4, 5, ~0u) + entry(0x10, 7, ~0u) + entry(0x20, 0, ~0u);
  for (const char* const kind : {"system.posix_acl_access", "system.posix_acl_default"}) {
    Must(setxattr(root.c_str(), kind, acl.data(), acl.size(), 0), 0);
  }
  Must(chown(at("medium").c_str(), 1234, 4321), 0);
  Must(chmod(at("medium").c_str(), 06711), 0);
  Must(lchown(at("dangling").c_str(), 99, 98), 0);
  Must(mkdir(at("sticky").c_str(), 0), 0);
  Must(chmod(at("sticky").c_str(), 03777), 0);
  std::string deep = at("deep");
  for (int i = 0; i < 40; ++i) {
    Must(mkdir(deep.c_str(), 0755), 0);
    deep += "/d";
  }
  Must(mkdir(at("many").c_str(), 0755), 0);
  for (int i = 0; i < many; ++i)
    SpillInto(at("many/" + std::to_string(i)), std::string(static_cast<size_t>(i), 'x'));
  for (int i = 0; i < many; i += 3) Must(unlink(at("many/" + std::to_string(i)).c_str()), 0);
  const timespec times[2] = {{-100, 999999999}, {4000000000, 123456789}};
  Must(utimensat(AT_FDCWD, at("empty").c_str(), times, 0), 0);
  Must(utimensat(AT_FDCWD, at("dangling").c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
}

}  // namespace pkramfs

#endif  // TESTS_ODD_TREE_H_
