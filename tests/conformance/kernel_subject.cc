// System calls on a directory: of a tmpfs, or of a mount of pkramfs.
#include <dirent.h>
#include <grp.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "tests/conformance/subject.h"
#include "tests/mount_process.h"

namespace pkramfs {
namespace {

template <typename T>
T OrErrno(T result) {
  return result < 0 ? static_cast<T>(-errno) : result;
}

class KernelSubject : public Subject {
 public:
  ~KernelSubject() override { CloseAll(); }

  // The threads of a process have identities of their own below glibc, and only this
  // one's is to change.
  void Become(const User& user) override {
    syscall(SYS_setresuid, -1, 0, -1);
    syscall(SYS_setgroups, user.groups.size(), user.groups.data());
    syscall(SYS_setresgid, -1, user.gid, -1);
    syscall(SYS_setresuid, -1, user.uid, -1);
  }
  void Umask(mode_t mask) override { umask(mask); }

  int Open(const std::string& path, int flags, mode_t mode) override {
    const int fd = OrErrno(open(P(path).c_str(), flags | O_CLOEXEC, mode));
    if (fd >= 0) fds_.insert(fd);
    return fd;
  }
  int Close(int fd) override {
    fds_.erase(fd);
    return OrErrno(close(fd));
  }
  int Mkdir(const std::string& path, mode_t mode) override {
    return OrErrno(mkdir(P(path).c_str(), mode));
  }
  int Mknod(const std::string& path, mode_t mode, dev_t device) override {
    return OrErrno(mknod(P(path).c_str(), mode, device));
  }
  int Symlink(const std::string& target, const std::string& path) override {
    return OrErrno(symlink(target.c_str(), P(path).c_str()));
  }
  int Link(const std::string& from, const std::string& to) override {
    return OrErrno(link(P(from).c_str(), P(to).c_str()));
  }
  int Unlink(const std::string& path) override { return OrErrno(unlink(P(path).c_str())); }
  int Rmdir(const std::string& path) override { return OrErrno(rmdir(P(path).c_str())); }
  int Rename(const std::string& from, const std::string& to, unsigned flags) override {
    return OrErrno(renameat2(AT_FDCWD, P(from).c_str(), AT_FDCWD, P(to).c_str(), flags));
  }
  int Stat(const std::string& path, struct stat* st) override {
    return OrErrno(stat(P(path).c_str(), st));
  }
  int Lstat(const std::string& path, struct stat* st) override {
    return OrErrno(lstat(P(path).c_str(), st));
  }
  int Fstat(int fd, struct stat* st) override { return OrErrno(fstat(fd, st)); }
  int Chmod(const std::string& path, mode_t mode) override {
    return OrErrno(chmod(P(path).c_str(), mode));
  }
  int Chown(const std::string& path, uid_t uid, gid_t gid, bool follow) override {
    return OrErrno(fchownat(AT_FDCWD, P(path).c_str(), uid, gid, follow ? 0 : AT_SYMLINK_NOFOLLOW));
  }
  int Utimens(const std::string& path, const timespec times[2], bool follow) override {
    return OrErrno(utimensat(AT_FDCWD, P(path).c_str(), times, follow ? 0 : AT_SYMLINK_NOFOLLOW));
  }
  int Truncate(const std::string& path, off_t size) override {
    return OrErrno(truncate(P(path).c_str(), size));
  }
  int Ftruncate(int fd, off_t size) override { return OrErrno(ftruncate(fd, size)); }
  int Readlink(const std::string& path, std::string* target) override {
    target->resize(8192);
    const ssize_t n = OrErrno(readlink(P(path).c_str(), target->data(), target->size()));
    target->resize(n < 0 ? 0 : static_cast<size_t>(n));
    return n < 0 ? static_cast<int>(n) : 0;
  }
  ssize_t Read(int fd, std::string* bytes, size_t size, off_t offset) override {
    bytes->resize(size);
    const ssize_t n = OrErrno(pread(fd, bytes->data(), size, offset));
    bytes->resize(n < 0 ? 0 : static_cast<size_t>(n));
    return n;
  }
  ssize_t Write(int fd, const std::string& bytes, off_t offset) override {
    return OrErrno(pwrite(fd, bytes.data(), bytes.size(), offset));
  }
  ssize_t Append(int fd, const std::string& bytes) override {
    return OrErrno(write(fd, bytes.data(), bytes.size()));
  }
  int Fallocate(int fd, int mode, off_t offset, off_t length) override {
    return OrErrno(fallocate(fd, mode, offset, length));
  }
  off_t Seek(int fd, off_t offset, int whence) override {
    return OrErrno(lseek(fd, offset, whence));
  }
  ssize_t CopyRange(int from, off_t from_offset, int to, off_t to_offset, size_t size) override {
    return OrErrno(copy_file_range(from, &from_offset, to, &to_offset, size, 0));
  }
  int SetXattr(const std::string& path, const std::string& name, const std::string& value,
               int flags) override {
    return OrErrno(lsetxattr(P(path).c_str(), name.c_str(), value.data(), value.size(), flags));
  }
  int GetXattr(const std::string& path, const std::string& name, std::string* value) override {
    value->resize(65536);
    const ssize_t n =
        OrErrno(lgetxattr(P(path).c_str(), name.c_str(), value->data(), value->size()));
    value->resize(n < 0 ? 0 : static_cast<size_t>(n));
    return n < 0 ? static_cast<int>(n) : 0;
  }
  int ListXattrs(const std::string& path, std::set<std::string>* names) override {
    std::string list(65536, 0);
    const ssize_t n = OrErrno(llistxattr(P(path).c_str(), list.data(), list.size()));
    for (size_t at = 0; n > 0 && at < static_cast<size_t>(n); at = list.find('\0', at) + 1) {
      names->insert(list.c_str() + at);
    }
    return n < 0 ? static_cast<int>(n) : 0;
  }
  int RemoveXattr(const std::string& path, const std::string& name) override {
    return OrErrno(lremovexattr(P(path).c_str(), name.c_str()));
  }
  int List(const std::string& path, std::set<std::string>* names) override {
    DIR* const dir = opendir(P(path).c_str());
    if (dir == nullptr) return -errno;
    while (const dirent* e = readdir(dir)) names->insert(e->d_name);
    closedir(dir);
    return 0;
  }
  int StatFs(struct statvfs* st) override { return OrErrno(statvfs(base.c_str(), st)); }

 protected:
  void CloseAll() {
    for (const int fd : fds_) close(fd);
    fds_.clear();
  }
  // "" stays "", which is an error of its own.
  std::string P(const std::string& path) const { return path.empty() ? path : base + "/" + path; }

 private:
  std::set<int> fds_;
};

class TmpfsSubject final : public KernelSubject {
 public:
  TmpfsSubject() {
    char dir[] = "/tmp/pkramfs-tmpfs-XXXXXX";
    root_ = mkdtemp(dir);
    if (mount("tmpfs", root_.c_str(), "tmpfs", 0, "size=256m") != 0) {
      throw std::runtime_error(std::string("cannot mount a tmpfs: ") + std::strerror(errno));
    }
    chmod(root_.c_str(), 01777);
    base = root_;
  }
  ~TmpfsSubject() override {
    CloseAll();
    umount2(root_.c_str(), MNT_DETACH);
    rmdir(root_.c_str());
  }
  bool is_tmpfs() const override { return true; }
  void Remount(By) override { CloseAll(); }

 private:
  std::string root_;
};

class MountSubject final : public KernelSubject {
 public:
  explicit MountSubject(MountProcess::As as, const std::string& options = "size=256m")
      : options_(options), process_(as) {
    process_.Mount(options_);
    base = process_.mount_point();
  }
  ~MountSubject() override { CloseAll(); }
  bool writes_back() const override { return options_.find("writeback") != std::string::npos; }
  void Remount(By by) override {
    CloseAll();
    by == By::kKill ? process_.Kill() : process_.Unmount();
    process_.Mount(options_);
  }

 private:
  const std::string options_;
  MountProcess process_;
};

}  // namespace

std::unique_ptr<Subject> MakeTmpfsSubject() { return std::make_unique<TmpfsSubject>(); }
std::unique_ptr<Subject> MakeMountSubject() {
  return std::make_unique<MountSubject>(MountProcess::As::kRoot);
}
std::unique_ptr<Subject> MakeWritebackSubject() {
  return std::make_unique<MountSubject>(MountProcess::As::kRoot, "size=256m,writeback");
}
std::unique_ptr<Subject> MakeUserMountSubject() {
  return std::make_unique<MountSubject>(MountProcess::As::kUser);
}

}  // namespace pkramfs
