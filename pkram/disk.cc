#include "pkram/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/descriptor.h"
#include "pkram/place.h"

namespace pkram {
namespace {

absl::Status Failed(const std::string& name, const char* what) {
  const int error = errno;
  const std::string message = absl::StrCat(name, ": ", what, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

class PlainFile final : public DiskFile {
 public:
  PlainFile(Descriptor fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

  absl::Status Write(uint64_t offset, absl::Span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Failed(name_, "write");
      bytes.remove_prefix(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return absl::OkStatus();
  }
  absl::Status Read(uint64_t offset, absl::Span<std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) errno = EIO;  // it ends here
      if (n <= 0) return Failed(name_, "read");
      bytes.remove_prefix(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    return fsync(fd_.get()) == 0 ? absl::OkStatus() : Failed(name_, "fsync");
  }
  // Some filesystems have no holes.
  void GiveBack(uint64_t offset, uint64_t bytes) override {
    fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
              static_cast<off_t>(bytes));
  }

 private:
  const Descriptor fd_;
  const std::string name_;
};

class PlainDisk final : public Disk {
 public:
  PlainDisk(Descriptor directory, std::string path, std::string name)
      : directory_(std::move(directory)), path_(std::move(path)), name_(std::move(name)) {}

  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& suffix) override {
    Remove(suffix);
    Descriptor fd(openat(directory_.get(), (name_ + suffix).c_str(),
                         O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd.get() < 0) return Failed(path_ + suffix, "create");
    return std::make_unique<PlainFile>(std::move(fd), path_ + suffix);
  }
  absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& suffix) override {
    Descriptor fd(
        openat(directory_.get(), (name_ + suffix).c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (fd.get() < 0) return Failed(path_ + suffix, "open");
    return std::make_unique<PlainFile>(std::move(fd), path_ + suffix);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    const std::string old_name = name_ + from, new_name = name_ + to;
    if (renameat(directory_.get(), old_name.c_str(), directory_.get(), new_name.c_str()) == 0) {
      return absl::OkStatus();
    }
    return Failed(path_ + from, "rename");
  }
  absl::Status SyncNames() override {
    return fsync(directory_.get()) == 0 ? absl::OkStatus()
                                        : Failed(path_, "fsync of its directory");
  }
  absl::Status RoomFor(uint64_t bytes) override {
    struct statvfs st;
    if (fstatvfs(directory_.get(), &st) != 0) return absl::OkStatus();  // writing will tell
    const uint64_t free = st.f_bavail * st.f_frsize;
    if (free >= bytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat(
        path_, ": it takes ", bytes >> 10, " KiB beside what is there, and the disk has ",
        free >> 10, " KiB: choose another, or make room"));
  }
  void Remove(const std::string& suffix) override {
    unlinkat(directory_.get(), (name_ + suffix).c_str(), 0);
  }

 private:
  const Descriptor directory_;
  const std::string path_, name_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Disk>> OpenDisk(const std::string& path) {
  absl::StatusOr<Place> place = FindPlace(path);
  if (!place.ok()) return place.status();
  // A descriptor of the directory that can be synced.
  Descriptor directory(openat(place->directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return OpenStatus(path, errno);
  return std::make_unique<PlainDisk>(std::move(directory), path, std::move(place->name));
}

}  // namespace pkram
