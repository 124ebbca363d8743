// A filesystem under test, behind system calls' names.  Three answer to them: this host's
// tmpfs and a mount of pkramfs through the kernel, and the core with nothing in between.
//
// Calls return what the system call does, or -errno.
#ifndef TESTS_CONFORMANCE_SUBJECT_H_
#define TESTS_CONFORMANCE_SUBJECT_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace pkramfs {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups{};
};

class Subject {
 public:
  virtual ~Subject() = default;

  // Whether there is no kernel above it: no permission checks, no locks, no mappings.
  virtual bool is_core() const { return false; }
  virtual bool is_tmpfs() const { return false; }
  // The kernel keeps what is written, and knows no holes.
  virtual bool writes_back() const { return false; }

  // The directory that the paths below start at; absolute for a subject in the kernel.
  std::string base;

  // Ends the process that serves it, and starts it anew.  Closes every descriptor.
  enum class By { kKill, kUnmount };
  virtual void Remount(By by = By::kKill) = 0;

  virtual void Become(const User& user) = 0;
  virtual void Umask(mode_t mask) = 0;

  virtual int Open(const std::string& path, int flags, mode_t mode = 0) = 0;
  virtual int Close(int fd) = 0;
  virtual int Mkdir(const std::string& path, mode_t mode) = 0;
  virtual int Mknod(const std::string& path, mode_t mode, dev_t device) = 0;
  virtual int Symlink(const std::string& target, const std::string& path) = 0;
  virtual int Link(const std::string& from, const std::string& to) = 0;
  virtual int Unlink(const std::string& path) = 0;
  virtual int Rmdir(const std::string& path) = 0;
  virtual int Rename(const std::string& from, const std::string& to, unsigned flags = 0) = 0;
  virtual int Stat(const std::string& path, struct stat* st) = 0;
  virtual int Lstat(const std::string& path, struct stat* st) = 0;
  virtual int Fstat(int fd, struct stat* st) = 0;
  virtual int Chmod(const std::string& path, mode_t mode) = 0;
  virtual int Chown(const std::string& path, uid_t uid, gid_t gid, bool follow = true) = 0;
  virtual int Utimens(const std::string& path, const timespec times[2], bool follow = true) = 0;
  virtual int Truncate(const std::string& path, off_t size) = 0;
  virtual int Ftruncate(int fd, off_t size) = 0;
  virtual int Readlink(const std::string& path, std::string* target) = 0;
  virtual ssize_t Read(int fd, std::string* bytes, size_t size, off_t offset) = 0;
  virtual ssize_t Write(int fd, const std::string& bytes, off_t offset) = 0;
  // At the descriptor's position, or the end for O_APPEND.
  virtual ssize_t Append(int fd, const std::string& bytes) = 0;
  virtual int Fallocate(int fd, int mode, off_t offset, off_t length) = 0;
  virtual off_t Seek(int fd, off_t offset, int whence) = 0;
  virtual ssize_t CopyRange(int from, off_t from_offset, int to, off_t to_offset, size_t size) = 0;
  virtual int SetXattr(const std::string& path, const std::string& name, const std::string& value,
                       int flags = 0) = 0;
  virtual int GetXattr(const std::string& path, const std::string& name, std::string* value) = 0;
  virtual int ListXattrs(const std::string& path, std::set<std::string>* names) = 0;
  virtual int RemoveXattr(const std::string& path, const std::string& name) = 0;
  virtual int List(const std::string& path, std::set<std::string>* names) = 0;
  virtual int StatFs(struct statvfs* st) = 0;
};

// The filesystem of a directory.
std::unique_ptr<Subject> MakeTmpfsSubject();
std::unique_ptr<Subject> MakeMountSubject();
std::unique_ptr<Subject> MakeWritebackSubject();
// A mount by an ordinary user; the calling process becomes that user's.
std::unique_ptr<Subject> MakeUserMountSubject();
std::unique_ptr<Subject> MakeCoreSubject();

}  // namespace pkramfs

#endif  // TESTS_CONFORMANCE_SUBJECT_H_
