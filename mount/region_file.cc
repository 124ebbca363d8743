#include "mount/region_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "mount/mounts.h"

namespace pkramfs {
namespace {

using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(10);

std::string Human(uint64_t bytes) {
  const char* const units[] = {"", " KiB", " MiB", " GiB", " TiB"};
  size_t unit = 0;
  while (unit < 4 && bytes >= 10240) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrCat(bytes, units[unit]);
}

// A daemon seals its region after its mount is gone; one whose mount is there
// will not let go.
absl::Status LockWithPatience(pkram::Backing* backing, const std::string& path) {
  const auto deadline = steady_clock::now() + kPatience;
  for (;;) {
    absl::Status locked = backing->Lock(true);
    if (!absl::IsUnavailable(locked)) return locked;
    const std::vector<MountEntry> mounts = MountsOf(path);
    if (!mounts.empty()) {
      return absl::UnavailableError(absl::StrCat(std::string(locked.message()), ", mounted on ",
                                                 mounts.front().mount_point,
                                                 ": unmount it first, or use another region"));
    }
    if (steady_clock::now() >= deadline) {
      return absl::UnavailableError(
          absl::StrCat(std::string(locked.message()), ": end it first, or use another region"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// Bytes that the region's filesystem has or can have for it; no limit is 0.
uint64_t RoomFor(const pkram::Backing& backing) {
  struct statvfs st;
  struct stat file;
  if (fstatvfs(backing.fd(), &st) != 0 || fstat(backing.fd(), &file) != 0) return 0;
  if (st.f_blocks == 0) return 0;  // a memfd
  return st.f_bavail * st.f_frsize + static_cast<uint64_t>(file.st_blocks) * 512;
}

// Half of the memory, or what its filesystem can hold.
uint64_t DefaultPages(const pkram::Backing& backing) {
  const uint64_t wanted = RegionPages(PhysicalMemory() / 2);
  const uint64_t room = RoomFor(backing) / pkram::kPageSize;
  return room == 0 ? wanted : std::clamp(room, pkram::format::kMinPages, wanted);
}

void WarnAboutSpace(const std::string& path, uint64_t size, const pkram::Backing& backing,
                    const std::function<void(const std::string&)>& warn) {
  const uint64_t room = RoomFor(backing);
  if (room == 0 || room >= size) return;
  warn(absl::StrCat("the filesystem of ", path, " has room for ", Human(room),
                    " of size=", Human(size),
                    ": writing will fail before df says full; enlarge it (for "
                    "/dev/shm: mount -o remount,size=...) or choose a smaller size="));
}

void WarnAboutLogout(const std::string& path, const std::function<void(const std::string&)>& warn) {
  if (getuid() == 0 || path.rfind("/dev/shm/", 0) != 0) return;
  if (access("/run/systemd/seats", F_OK) != 0) return;
  warn(absl::StrCat(path,
                    " will be deleted when you log out (logind's RemoveIPC): set RemoveIPC=no "
                    "in /etc/systemd/logind.conf, or keep the region elsewhere"));
}

}  // namespace

uint64_t RegionPages(uint64_t size) {
  const uint64_t contents = pkram::PagesFor(size);
  return contents + pkram::Region::Overhead(contents);
}

absl::StatusOr<std::unique_ptr<RegionFile>> RegionFile::Open(
    const MountOptions& options, const std::function<void(const std::string&)>& warn) {
  const std::string given = RegionPath(options.region);
  std::unique_ptr<RegionFile> file(new RegionFile);
  bool existed = false;
  std::unique_ptr<pkram::Backing> backing;
  for (bool same = false; !same;) {
    struct stat named, locked;
    existed = stat(given.c_str(), &named) == 0;
    absl::StatusOr<std::unique_ptr<pkram::Backing>> opened =
        pkram::OpenFileBacking(given, pkram::OpenFor::kCreating);
    if (!opened.ok()) return opened.status();
    backing = *std::move(opened);
    file->path_ = Canonical(given);
    if (absl::Status s = LockWithPatience(backing.get(), file->path_); !s.ok()) return s;
    // Whoever held the lock may have deleted the file that we waited for.
    same = stat(given.c_str(), &named) == 0 && fstat(backing->fd(), &locked) == 0 &&
           named.st_ino == locked.st_ino && named.st_dev == locked.st_dev;
  }
  // Our lock goes with this descriptor, too: it is held until what was made is unmade.
  file->lock_ = fcntl(backing->fd(), F_DUPFD_CLOEXEC, 3);

  const absl::StatusOr<uint64_t> bytes = backing->Size();
  if (!bytes.ok()) return bytes.status();
  pkram::Region::OpenOptions open;
  open.lock_memory = options.lock_memory;
  open.resizable = true;
  if (options.size) open.pages = RegionPages(*options.size);
  if (*bytes == 0) {
    const uint64_t pages = options.size ? open.pages : DefaultPages(*backing);
    file->made_ = true;
    file->created_ = !existed;
    if (absl::Status s = pkram::Region::Format(backing.get(), pages); !s.ok()) return s;
  }
  FsCheck check;
  open.client = &check;
  const pkram::Backing& kept = *backing;
  absl::StatusOr<std::unique_ptr<pkram::Region>> region =
      pkram::Region::Open(std::move(backing), open);
  if (!region.ok()) return region.status();
  file->region_ = *std::move(region);
  if (options.size) WarnAboutSpace(file->path_, *options.size, kept, warn);
  WarnAboutLogout(file->path_, warn);
  return file;
}

absl::Status RegionFile::Close() {
  FsCheck check;
  return region_->Close(&check);
}

RegionFile::~RegionFile() {
  region_.reset();
  if (created_) {
    unlink(path_.c_str());
  } else if (made_ && truncate(path_.c_str(), 0) != 0) {
    std::perror("pkramfs: truncate");  // it was empty before, and now is an empty region
  }
  if (lock_ >= 0) close(lock_);
}

}  // namespace pkramfs
