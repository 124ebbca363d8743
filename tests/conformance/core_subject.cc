// The core without a kernel: path names, descriptors and what open(2) decides are done
// here, as the kernel would do them; permissions are not checked.
#include <dirent.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "tests/conformance/subject.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

constexpr uint64_t kPages = 65536;
constexpr int kMaxSymlinks = 40;

timespec ToTimespec(Timestamp t) { return {t.seconds, static_cast<long>(t.nanos)}; }

class CoreSubject final : public Subject {
 public:
  CoreSubject() {
    pkram::FormatRegion(&file_, kPages);
    mounted_ = std::make_unique<Mounted>(file_);
  }
  bool is_core() const override { return true; }
  void Remount(By by) override {
    fds_.clear();
    if (by == By::kUnmount) mounted_->Close();
    mounted_.reset();
    mounted_ = std::make_unique<Mounted>(file_);
  }
  void Become(const User& user) override { user_ = user; }
  void Umask(mode_t mask) override { umask_ = mask; }

  int Open(const std::string& path, int flags, mode_t mode) override {
    const bool create = (flags & O_CREAT) != 0;
    const bool exclusive = create && (flags & O_EXCL) != 0;
    const bool follow = !exclusive && (flags & O_NOFOLLOW) == 0;
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    Place place = Walk(path, follow);
    if (place.error == ENOENT && create && place.parent != 0) {
      const auto made = fs().MakeNode(Now(), place.parent, place.name, S_IFREG | (mode & 07777));
      if (!made.ok()) return -made.error();
      place.ino = (*made).ino;
      fs().Forget(place.ino, 1);
    } else if (place.error != 0) {
      return -place.error;
    } else {
      if (exclusive) return -EEXIST;
      const Attr attr = *fs().GetAttr(place.ino);
      if (S_ISLNK(attr.mode)) return (flags & O_DIRECTORY) != 0 ? -ENOTDIR : -ELOOP;
      if ((flags & O_DIRECTORY) != 0 && !S_ISDIR(attr.mode)) return -ENOTDIR;
      if (S_ISDIR(attr.mode) && (writes || create)) return -EISDIR;
      if ((flags & O_TRUNC) != 0 && S_ISREG(attr.mode)) {
        const int error = Resize(place.ino, 0, true);
        if (error != 0) return error;
      }
    }
    // As long as it is open, it is looked up.
    const auto held = fs().Lookup(place.ino, ".");
    if (!held.ok()) return -held.error();
    const int fd = next_fd_++;
    fds_[fd] = {place.ino, flags, 0};
    return fd;
  }
  int Close(int fd) override {
    const auto it = fds_.find(fd);
    if (it == fds_.end()) return -EBADF;
    fs().Forget(it->second.ino, 1);
    fds_.erase(it);
    return 0;
  }
  int Mkdir(const std::string& path, mode_t mode) override {
    return Make(path, [&](Ino parent, const std::string& name) {
      return fs().MakeDirectory(Now(), parent, name, mode & 01777);
    });
  }
  int Mknod(const std::string& path, mode_t mode, dev_t device) override {
    return Make(path, [&](Ino parent, const std::string& name) {
      return fs().MakeNode(Now(), parent, name, mode,
                           uint64_t{major(device)} << 32 | minor(device));
    });
  }
  int Symlink(const std::string& target, const std::string& path) override {
    return Make(path, [&](Ino parent, const std::string& name) {
      return fs().MakeSymlink(Now(), parent, name, target);
    });
  }
  int Link(const std::string& from, const std::string& to) override {
    const Place source = Walk(from, false);
    if (source.error != 0) return -source.error;
    return Make(to, [&](Ino parent, const std::string& name) {
      return fs().Link(Now(), source.ino, parent, name);
    });
  }
  int Unlink(const std::string& path) override {
    const Place place = Walk(path, false);
    if (place.parent == 0) return -place.error;
    return -fs().Unlink(Now(), place.parent, place.name).error();
  }
  int Rmdir(const std::string& path) override {
    const Place place = Walk(path, false);
    if (place.parent == 0) return -place.error;
    return -fs().RemoveDirectory(Now(), place.parent, place.name).error();
  }
  int Rename(const std::string& from, const std::string& to, unsigned flags) override {
    const Place source = Walk(from, false), target = Walk(to, false);
    if (source.parent == 0) return -source.error;
    if (target.parent == 0) return -target.error;
    return -fs().Rename(Now(), source.parent, source.name, target.parent, target.name, flags)
                .error();
  }
  int Stat(const std::string& path, struct stat* st) override {
    return StatPlace(Walk(path, true), st);
  }
  int Lstat(const std::string& path, struct stat* st) override {
    return StatPlace(Walk(path, false), st);
  }
  int Fstat(int fd, struct stat* st) override {
    const auto it = fds_.find(fd);
    return it == fds_.end() ? -EBADF : StatPlace({0, "", it->second.ino, 0}, st);
  }
  int Chmod(const std::string& path, mode_t mode) override {
    return Set(Walk(path, true), {.what = AttrChange::kSetMode, .mode = mode});
  }
  int Chown(const std::string& path, uid_t uid, gid_t gid, bool follow) override {
    AttrChange change;
    if (uid != ~uid_t{0}) change.what |= AttrChange::kSetUid;
    if (gid != ~gid_t{0}) change.what |= AttrChange::kSetGid;
    change.uid = uid;
    change.gid = gid;
    return Set(Walk(path, follow), change);
  }
  int Utimens(const std::string& path, const timespec times[2], bool follow) override {
    AttrChange change;
    const Context now = Now();
    const auto take = [&](const timespec* t, uint32_t bit, Timestamp* to) {
      if (t != nullptr && t->tv_nsec == UTIME_OMIT) return;
      change.what |= bit;
      *to = t == nullptr || t->tv_nsec == UTIME_NOW
                ? now.now
                : Timestamp{t->tv_sec, static_cast<uint32_t>(t->tv_nsec)};
    };
    take(times == nullptr ? nullptr : &times[0], AttrChange::kSetAtime, &change.atime);
    take(times == nullptr ? nullptr : &times[1], AttrChange::kSetMtime, &change.mtime);
    const Place place = Walk(path, follow);
    if (change.what == 0) return 0;
    return Set(place, change);
  }
  int Truncate(const std::string& path, off_t size) override {
    const Place place = Walk(path, true);
    if (place.error != 0) return -place.error;
    if (size < 0) return -EINVAL;
    return Resize(place.ino, size, false);
  }
  int Ftruncate(int fd, off_t size) override {
    const auto it = fds_.find(fd);
    if (it == fds_.end()) return -EBADF;
    if (size < 0 || (it->second.flags & O_ACCMODE) == O_RDONLY) return -EINVAL;
    return Resize(it->second.ino, size, true);
  }
  int Readlink(const std::string& path, std::string* target) override {
    const Place place = Walk(path, false);
    if (place.error != 0) return -place.error;
    const auto read = fs().ReadLink(place.ino);
    if (read.ok()) *target = *read;
    return -read.error();
  }
  ssize_t Read(int fd, std::string* bytes, size_t size, off_t offset) override {
    const auto it = fds_.find(fd);
    if (it == fds_.end() || (it->second.flags & O_ACCMODE) == O_WRONLY) return -EBADF;
    if (offset < 0) return -EINVAL;
    const auto answer = fs().Read(it->second.ino, static_cast<uint64_t>(offset), size);
    if (!answer.ok()) return -answer.error();
    *bytes = TextOf(*answer);
    return static_cast<ssize_t>(bytes->size());
  }
  ssize_t Write(int fd, const std::string& bytes, off_t offset) override {
    const auto it = fds_.find(fd);
    if (it == fds_.end() || (it->second.flags & O_ACCMODE) == O_RDONLY) return -EBADF;
    if (offset < 0) return -EINVAL;
    if ((it->second.flags & O_APPEND) != 0) offset = SizeOf(it->second.ino);
    const auto n = fs().Write(Now(), it->second.ino, static_cast<uint64_t>(offset), BytesOf(bytes));
    return n.ok() ? static_cast<ssize_t>(*n) : -n.error();
  }
  ssize_t Append(int fd, const std::string& bytes) override {
    const auto it = fds_.find(fd);
    if (it == fds_.end()) return -EBADF;
    if ((it->second.flags & O_APPEND) != 0) it->second.position = SizeOf(it->second.ino);
    const ssize_t n = Write(fd, bytes, it->second.position);
    if (n > 0) it->second.position += n;
    return n;
  }
  int Fallocate(int fd, int mode, off_t offset, off_t length) override {
    if (offset < 0 || length <= 0) return -EINVAL;
    const auto it = fds_.find(fd);
    if (it == fds_.end() || (it->second.flags & O_ACCMODE) == O_RDONLY) return -EBADF;
    return -fs().Fallocate(Now(), it->second.ino, static_cast<uint64_t>(offset),
                           static_cast<uint64_t>(length), mode)
                .error();
  }
  off_t Seek(int fd, off_t offset, int whence) override {
    const auto it = fds_.find(fd);
    if (it == fds_.end()) return -EBADF;
    if (offset < 0) return -ENXIO;
    const auto found = fs().Seek(it->second.ino, static_cast<uint64_t>(offset), whence);
    return found.ok() ? static_cast<off_t>(*found) : -found.error();
  }
  ssize_t CopyRange(int from, off_t from_offset, int to, off_t to_offset, size_t size) override {
    const auto a = fds_.find(from), b = fds_.find(to);
    if (a == fds_.end() || b == fds_.end()) return -EBADF;
    if ((a->second.flags & O_ACCMODE) == O_WRONLY || (b->second.flags & O_ACCMODE) == O_RDONLY ||
        (b->second.flags & O_APPEND) != 0) {
      return -EBADF;
    }
    const auto n = fs().CopyRange(Now(), a->second.ino, static_cast<uint64_t>(from_offset),
                                  b->second.ino, static_cast<uint64_t>(to_offset), size);
    return n.ok() ? static_cast<ssize_t>(*n) : -n.error();
  }
  int SetXattr(const std::string& path, const std::string& name, const std::string& value,
               int flags) override {
    const Place place = Walk(path, false);
    if (place.error != 0) return -place.error;
    return -fs().SetXattr(Now(), place.ino, name, value, flags).error();
  }
  int GetXattr(const std::string& path, const std::string& name, std::string* value) override {
    const Place place = Walk(path, false);
    if (place.error != 0) return -place.error;
    const auto got = fs().GetXattr(place.ino, name);
    if (got.ok()) *value = *got;
    return -got.error();
  }
  int ListXattrs(const std::string& path, std::set<std::string>* names) override {
    const Place place = Walk(path, false);
    if (place.error != 0) return -place.error;
    const auto list = fs().ListXattrs(Now(), place.ino);
    if (!list.ok()) return -list.error();
    for (size_t at = 0; at < (*list).size(); at = (*list).find('\0', at) + 1) {
      names->insert((*list).c_str() + at);
    }
    return 0;
  }
  int RemoveXattr(const std::string& path, const std::string& name) override {
    const Place place = Walk(path, false);
    if (place.error != 0) return -place.error;
    return -fs().RemoveXattr(Now(), place.ino, name).error();
  }
  int List(const std::string& path, std::set<std::string>* names) override {
    const Place place = Walk(path, true);
    if (place.error != 0) return -place.error;
    return -fs().ReadDirectory(place.ino, 0,
                               [&](const DirEntry& e) {
                                 names->insert(std::string(e.name));
                                 return true;
                               })
                .error();
  }
  int StatFs(struct statvfs* st) override {
    const FsStats stats = fs().StatFs();
    *st = {};
    st->f_bsize = st->f_frsize = 4096;
    st->f_blocks = stats.pages;
    st->f_bfree = st->f_bavail = stats.free_pages;
    st->f_files = stats.inodes;
    st->f_ffree = st->f_favail = stats.free_inodes;
    st->f_namemax = kMaxName;
    return 0;
  }

 private:
  struct Descriptor {
    Ino ino;
    int flags;
    off_t position;
  };
  // What a path leads to: an error with a parent is that of the last name.
  struct Place {
    Ino parent = 0;
    std::string name{};
    Ino ino = 0;
    int error = 0;
  };

  Filesystem& fs() { return *mounted_->fs(); }
  Context Now() {
    timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return {.uid = user_.uid,
            .gid = user_.gid,
            .now = {ts.tv_sec, static_cast<uint32_t>(ts.tv_nsec)},
            .umask = umask_,
            .has_group = [this](gid_t group) {
              return std::count(user_.groups.begin(), user_.groups.end(), group) > 0
                         ? Membership::kYes
                         : Membership::kNo;
            }};
  }

  Place Walk(const std::string& path, bool follow) {
    if (path.empty()) return {0, "", 0, ENOENT};
    return WalkFrom(kRootIno, base + "/" + path, follow, 0);
  }
  Place WalkFrom(Ino start, const std::string& path, bool follow, int symlinks) {
    Ino ino = start;
    for (size_t at = path.find_first_not_of('/'); at != std::string::npos;) {
      const size_t slash = std::min(path.find('/', at), path.size());
      const std::string name = path.substr(at, slash - at);
      const size_t next = path.find_first_not_of('/', slash);
      const bool last = next == std::string::npos;
      const auto found = fs().Lookup(ino, name);
      if (!found.ok()) {
        const bool named = last && found.error() == ENOENT;
        return {named ? ino : 0, name, 0, found.error()};
      }
      const Attr attr = *found;
      fs().Forget(attr.ino, 1);
      if (S_ISLNK(attr.mode) && (!last || follow)) {
        if (++symlinks > kMaxSymlinks) return {0, "", 0, ELOOP};
        const std::string target = *fs().ReadLink(attr.ino);
        const std::string rest = last ? "" : "/" + path.substr(next);
        return WalkFrom(target.front() == '/' ? kRootIno : ino, target + rest, follow, symlinks);
      }
      if (last) return {ino, name, attr.ino, 0};
      ino = attr.ino;
      at = next;
    }
    return {0, "", ino, 0};
  }

  template <typename Fn>
  int Make(const std::string& path, Fn make) {
    const Place place = Walk(path, false);
    if (place.parent == 0) return place.error == 0 ? -EEXIST : -place.error;
    const Result<Attr> made = make(place.parent, place.name);
    if (made.ok()) fs().Forget((*made).ino, 1);
    return -made.error();
  }
  int Set(const Place& place, const AttrChange& change) {
    if (place.error != 0) return -place.error;
    return -fs().SetAttr(Now(), place.ino, change).error();
  }
  // With a descriptor, the kernel says that the time is to be set, too.
  int Resize(Ino ino, off_t size, bool with_time) {
    const Context now = Now();
    AttrChange change{.what = AttrChange::kSetSize, .size = static_cast<uint64_t>(size)};
    if (with_time) {
      change.what |= AttrChange::kSetMtime;
      change.mtime = now.now;
    }
    return -fs().SetAttr(now, ino, change).error();
  }
  off_t SizeOf(Ino ino) { return static_cast<off_t>((*fs().GetAttr(ino)).size); }
  int StatPlace(const Place& place, struct stat* st) {
    if (place.error != 0) return -place.error;
    const auto attr = fs().GetAttr(place.ino);
    if (!attr.ok()) return -attr.error();
    *st = {};
    st->st_ino = (*attr).ino;
    st->st_mode = (*attr).mode;
    st->st_nlink = (*attr).nlink;
    st->st_uid = (*attr).uid;
    st->st_gid = (*attr).gid;
    st->st_rdev =
        makedev(static_cast<unsigned>((*attr).rdev >> 32), static_cast<unsigned>((*attr).rdev));
    st->st_size = static_cast<off_t>((*attr).size);
    st->st_blocks = static_cast<blkcnt_t>((*attr).blocks);
    st->st_atim = ToTimespec((*attr).atime);
    st->st_mtim = ToTimespec((*attr).mtime);
    st->st_ctim = ToTimespec((*attr).ctime);
    return 0;
  }

  pkram::MemoryFile file_;
  std::unique_ptr<Mounted> mounted_;
  User user_;
  mode_t umask_ = 022;
  int next_fd_ = 3;
  std::map<int, Descriptor> fds_;
};

}  // namespace

std::unique_ptr<Subject> MakeCoreSubject() { return std::make_unique<CoreSubject>(); }

}  // namespace pkramfs
