#include "mount/region/region_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string_view>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "mount/region/file_clock.h"
#include "mount/region/handover.h"
#include "mount/region/holder.h"
#include "mount/region/memfd.h"
#include "mount/region/memory_limit.h"
#include "mount/region/mounts.h"
#include "mount/region/progress_line.h"
#include "mount/region/units.h"
#include "pkram/checkpoints.h"
#include "pkram/place.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(10);
constexpr std::chrono::seconds kPatienceWithImage = std::chrono::minutes(10);

// How long to wait for a daemon that seals its region after its mount is gone.  A daemon whose
// mount is still there will not end.
absl::Status LockWithPatience(pkram::Backing* backing, const std::string& path,
                              std::chrono::seconds patience) {
  const auto deadline = steady_clock::now() + patience;
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

// How many bytes the filesystem under the region has or can have for it.  0 means no limit.
uint64_t RoomFor(const pkram::Backing& backing) {
  if (backing.device_pages()) return *backing.device_pages() * pkram::kPageSize;
  struct statvfs st;
  struct stat file;
  if (fstatvfs(backing.fd(), &st) != 0 || fstat(backing.fd(), &file) != 0) return 0;
  if (st.f_blocks == 0) return 0;  // a memfd
  return st.f_bavail * st.f_frsize + static_cast<uint64_t>(file.st_blocks) * 512;
}

// The default size: half of the memory, or what the filesystem under the region can hold; the whole
// of a device.
uint64_t DefaultPages(const pkram::Backing& backing) {
  if (backing.device_pages()) return *backing.device_pages();
  const uint64_t wanted = RegionPages(MemorySize() / 2);
  const uint64_t room = RoomFor(backing) / pkram::kPageSize;
  return room == 0 ? wanted : std::clamp(room, pkram::format::kMinPages, wanted);
}

void WarnAboutSpace(const std::string& path, uint64_t size, const pkram::Backing& backing,
                    const std::function<void(const std::string&)>& warn) {
  const uint64_t room = RoomFor(backing);
  if (room == 0 || room >= size) return;
  const bool is_close = Human(room) == Human(size);
  const auto text = [is_close](uint64_t n) {
    return is_close ? absl::StrCat(n, " bytes") : Human(n);
  };
  warn(absl::StrCat("the filesystem of ", path, " has room for ", text(room),
                    " of size=", text(size),
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

constexpr std::string_view kDescriptors = "/proc/self/fd/";

bool IsDescriptor(const std::string& path) { return path.rfind(kDescriptors, 0) == 0; }

// A device that is not there must not become a file beside the others, in memory that
// nobody preserves.
absl::Status CheckDevice(const std::string& path) {
  struct stat st, dev, above;
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  if (stat(path.c_str(), &st) == 0 || path.rfind("/dev/shm/", 0) == 0 ||
      stat(directory.c_str(), &above) != 0 || stat("/dev", &dev) != 0 ||
      dev.st_dev != above.st_dev || path.rfind("/dev/", 0) != 0) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat(
      path, ": no such device: see which there are (ndctl list), and that their driver is loaded ",
      "(modprobe device_dax)"));
}

absl::Status CheckFilesystem(const std::string& path) {
  struct statfs st;
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  if (statfs(directory.c_str(), &st) != 0 || st.f_type != HUGETLBFS_MAGIC) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": on hugetlbfs, whose files cannot be written to: choose a path on tmpfs"));
}

// Adds the region's name to an error of fs/, which does not know the name.
absl::Status Of(const std::string& name, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(name, ": ", std::string(status.message())));
}

std::string Unsuited(const std::string& path, const char* what, const char* do_this) {
  return absl::StrCat(path, ": ", what, " (left as it is): ", do_this);
}

// Whether it is a region that mkfs.pkramfs has made and that nobody has used.
absl::StatusOr<bool> IsUnused(pkram::Backing* backing) {
  if (!pkram::Region::IsNew(backing)) return false;
  FsCheck check;
  const auto report = pkram::Region::Check(backing, &check);
  if (absl::Status s = backing->Lock(true); !s.ok()) return s;  // it had the lock of a reader
  return report.ok() && report->problems.empty() && report->sealed &&
         std::ranges::all_of(report->nodes, [](const pkram::NodeCounts& node) {
           return node.state == pkram::format::kLive && node.objects <= 1 && node.data_pages == 0 &&
                  node.byte_pages == 0;
         });
}

pkram::Progress ShownAs(const std::string& what) {
  return [line = std::make_shared<ProgressLine>(what, ProgressLine::Unit::kPages)](uint64_t done,
                                                                                   uint64_t of) {
    line->Show(done, of);
    return true;
  };
}

// An image that is mounted for writing becomes a region.  Refuses an image of which a part is in a
// delta.
absl::Status CheckIsWhole(const std::string& path) {
  const auto image = pkram::Image::Open(path);
  if (!image.ok() || !(*image)->has_delta()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": an image of which a part is in ", path,
                   ".delta: restore it (pkramctl restore), and mount what comes of it"));
}

}  // namespace

std::string RegionName(const std::string& given) {
  const std::string path = RegionPath(given);
  // The name of the descriptor's file may lead to another file by now.
  return IsDescriptor(path) ? path : Canonical(path);
}

absl::Status CheckDescriptor(const std::string& given) {
  const std::string path = RegionPath(given);
  int fd;
  if (!IsDescriptor(path) || !absl::SimpleAtoi(path.substr(kDescriptors.size()), &fd) ||
      fcntl(fd, F_GETFD) >= 0) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("fd=", fd, ": not an open descriptor"));
}

absl::StatusOr<std::unique_ptr<pkram::Backing>> OpenRegionBacking(const std::string& path,
                                                                  pkram::OpenFor mode) {
  if (IsMemfd(path)) {
    if (absl::Status s = CheckMemfd(path); !s.ok()) return s;
    const auto open = [&] {
      return OpenMemfd(path, mode == pkram::OpenFor::kReading ? O_RDONLY : O_RDWR);
    };
    Descriptor memfd = open();
    if (memfd.get() < 0) {
      // The kernel before may have left it, and another process may take it back just now.
      const absl::Status retrieved = RetrieveRegion(path);
      if (!retrieved.ok() && !absl::IsNotFound(retrieved)) return retrieved;
      memfd = open();
    }
    if (memfd.get() >= 0) return pkram::OpenFdBacking(memfd.get(), mode, path);
    return absl::NotFoundError(
        absl::StrCat(path, ": there is none: no process of this user holds one of that name"));
  }
  if (IsDescriptor(path)) {
    const std::string number = path.substr(kDescriptors.size());
    int fd;
    if (absl::SimpleAtoi(number, &fd)) return pkram::OpenFdBacking(fd, mode);
    return absl::InvalidArgumentError(
        absl::StrCat("fd=", number, ": not the number of an open descriptor, as fd=3"));
  }
  if (absl::Status s = CheckFilesystem(path); !s.ok()) return s;
  if (absl::Status s = CheckDevice(path); !s.ok()) return s;
  return pkram::OpenBacking(path, mode);
}

absl::StatusOr<pkram::Region::Report> InspectRegion(const std::string& path) {
  const auto backing = OpenRegionBacking(path, pkram::OpenFor::kReading);
  if (!backing.ok()) return backing.status();
  FsCheck check;
  return pkram::Region::Check(backing->get(), &check);
}

uint64_t RegionPages(uint64_t size) {
  const uint64_t contents = pkram::PagesFor(size);
  return contents + pkram::Region::Overhead(contents);
}

// Opens the memfd, or makes it.
absl::StatusOr<std::unique_ptr<pkram::Backing>> RegionFile::OpenAndLockMemfd(
    const MountOptions& options, std::chrono::seconds patience) {
  const auto deadline = steady_clock::now() + patience;
  for (;;) {
    bool is_new = FindMemfd(options.region).empty();
    if (is_new) {
      // The kernel before may have left it.
      const absl::Status retrieved = RetrieveRegion(options.region);
      if (!retrieved.ok() && !absl::IsNotFound(retrieved)) return retrieved;
      is_new = !retrieved.ok();
    }
    absl::StatusOr<Descriptor> memfd =
        is_new ? MakeMemfd(options.region) : OpenMemfd(options.region, O_RDWR);
    // Somebody makes one, too; or whoever held it has ended.
    const bool passes = absl::IsAlreadyExists(memfd.status()) || (memfd.ok() && memfd->get() < 0);
    if (passes && steady_clock::now() < deadline) {
      memfd = Descriptor(-1);
      std::this_thread::sleep_for(std::chrono::milliseconds(1 + getpid() % 20));
      continue;
    }
    if (!memfd.ok()) return memfd.status();
    if (memfd->get() < 0) {
      return absl::UnavailableError(absl::StrCat(options.region, ": cannot be opened"));
    }
    absl::StatusOr<std::unique_ptr<pkram::Backing>> backing =
        pkram::OpenFdBacking(memfd->get(), pkram::OpenFor::kWriting, options.region);
    if (!backing.ok()) return backing.status();
    if (absl::Status s = LockWithPatience(backing->get(), options.region, patience); !s.ok()) {
      return s;
    }
    NamePath(std::string(kDescriptors), **backing);
    is_memfd_ = true;
    return backing;
  }
}

absl::StatusOr<std::unique_ptr<pkram::Backing>> RegionFile::OpenAndLock(
    const MountOptions& options) {
  const std::string& region = options.region;
  const std::string given = RegionPath(region);
  const auto patience = options.checkpoint.empty() ? kPatience : kPatienceWithImage;
  if (IsMemfd(region)) return OpenAndLockMemfd(options, patience);
  for (;;) {
    struct stat named, locked;
    const bool existed = stat(given.c_str(), &named) == 0;
    absl::StatusOr<std::unique_ptr<pkram::Backing>> backing =
        OpenRegionBacking(given, pkram::OpenFor::kCreating);
    if (!backing.ok()) return backing.status();
    const std::string opened = Canonical(absl::StrCat("/proc/self/fd/", (*backing)->fd()));
    path_ = IsDescriptor(given) || IsDescriptor(opened) ? RegionName(region) : opened;
    if (absl::Status s = LockWithPatience(backing->get(), path_, patience); !s.ok()) return s;
    // The process that held the lock may have deleted the file that we waited for.
    const bool is_there = stat(given.c_str(), &named) == 0;
    if (!is_there && errno != ENOENT) return pkram::OpenStatus(given, errno);
    if (!is_there || fstat((*backing)->fd(), &locked) != 0 || named.st_ino != locked.st_ino ||
        named.st_dev != locked.st_dev) {
      continue;
    }
    created_ = !existed;
    NamePath(path_, **backing);
    return backing;
  }
}

void RegionFile::NamePath(const std::string& path, const pkram::Backing& backing) {
  // The lock ends with this descriptor, too.  It must be held until what was made is deleted.
  lock_ = fcntl(backing.fd(), F_DUPFD_CLOEXEC, 3);
  path_ = IsDescriptor(path) ? absl::StrCat("/proc/", getpid(), "/fd/", lock_) : path;
}

absl::Status RegionFile::Format(const MountOptions& options, Existing existing,
                                pkram::Backing* backing) {
  const absl::StatusOr<pkram::Region::Holds> holds = pkram::Region::Look(backing);
  const bool empty = holds.ok() && *holds == pkram::Region::Holds::kNothing;
  // Somebody may have made it and filled it before we had the lock.
  created_ = created_ && empty;
  if (!holds.ok()) return holds.status();
  if (existing == Existing::kUse && !empty) return absl::OkStatus();
  if (existing == Existing::kKeep && *holds == pkram::Region::Holds::kRegion) {
    return absl::AlreadyExistsError(Unsuited(backing->name(), "a pkramfs region is there already",
                                             "mount it, or give -f to delete all that it holds"));
  }
  // A device's memory may hold anything, if nobody has used it yet.
  if (existing == Existing::kKeep && !empty && !backing->device_pages()) {
    return absl::FailedPreconditionError(
        Unsuited(backing->name(), "not empty",
                 "choose another path, or give -f to delete all that it holds"));
  }
  const absl::Status made = pkram::Region::Format(
      backing, options.size ? RegionPages(*options.size) : DefaultPages(*backing),
      empty ? pkram::Region::Contents::kKeep : pkram::Region::Contents::kGiveUp);
  const absl::StatusOr<pkram::Region::Holds> now = pkram::Region::Look(backing);
  lost_ = !empty && (made.ok() || !now.ok() || *now != *holds);
  made_ = !backing->device_pages() && (empty || lost_);
  return made;
}

// Restores the region from its image, if only the image is there: after a power loss, for example.
absl::Status RegionFile::RestoreImage(const MountOptions& options, pkram::Backing* backing) {
  const absl::StatusOr<pkram::Region::Holds> holds = pkram::Region::Look(backing);
  if (!holds.ok()) return holds.status();
  if (*holds != pkram::Region::Holds::kNothing && *holds != pkram::Region::Holds::kRestoring) {
    // (A device has been made one by mkfs.pkramfs.)
    const absl::StatusOr<bool> unused = IsUnused(backing);
    if (!unused.ok() || !*unused) return unused.status();
  }
  const absl::StatusOr<std::unique_ptr<pkram::Image>> image =
      pkram::Image::Open(options.checkpoint);
  if (absl::IsNotFound(image.status())) return absl::OkStatus();
  if (!image.ok()) return image.status();
  made_ = !backing->device_pages();
  return pkram::Restore(**image, backing, ShownAs("restoring " + options.checkpoint));
}

// The copy of an image that a read-only mount shows.  Null when the region is no image, or the
// mount may change it.
absl::StatusOr<std::unique_ptr<pkram::Backing>> RegionFile::CopyImage(const MountOptions& options) {
  if ((options.flags.set & MS_RDONLY) == 0) return nullptr;
  // A delta lies beside its image, also if a descriptor of the image was given.
  const std::string given = RegionPath(options.region);
  std::string path = IsDescriptor(given) ? Canonical(given) : given;
  absl::StatusOr<std::unique_ptr<pkram::Image>> image = pkram::Image::Open(path);
  if (absl::IsNotFound(image.status()) && path != given) {
    path = given;
    image = pkram::Image::Open(path);
  }
  const absl::Status& s = image.status();
  if (absl::IsNotFound(s) || absl::IsFailedPrecondition(s)) return nullptr;
  if (!s.ok()) return s;
  if (!options.checkpoint.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "option checkpoint=: ", options.region,
        " is an image, which does not change while it is mounted with ro: leave one of them out"));
  }
  shows_image_ = true;
  absl::StatusOr<std::unique_ptr<pkram::Backing>> copy =
      pkram::RestoreToMemory(**image, ShownAs("reading " + options.region));
  if (copy.ok()) NamePath(RegionName(path), **copy);
  return copy;
}

absl::Status RegionFile::Prepare(const MountOptions& options, Existing existing,
                                 const std::function<void(const std::string&)>& warn,
                                 pkram::Watch* watch) {
  absl::StatusOr<std::unique_ptr<pkram::Backing>> backing = CopyImage(options);
  if (backing.ok() && *backing == nullptr) backing = OpenAndLock(options);
  if (!backing.ok()) return backing.status();
  if (!shows_image_) {
    if (absl::Status s = CheckIsWhole(path_); !s.ok()) return s;
  }
  if (!options.checkpoint.empty()) {
    if (absl::Status s = RestoreImage(options, backing->get()); !s.ok()) return s;
  }
  if (absl::Status s = Format(options, existing, backing->get()); !s.ok()) return s;
  pkram::Region::OpenOptions open;
  open.watch = watch;
  open.lock_memory = options.lock_memory;
  open.resizable = true;
  if (options.size) open.pages = RegionPages(*options.size);
  FsCheck check;
  open.client = &check;
  const pkram::Backing& kept = **backing;
  open.inspect = [&](const pkram::PageView& pages, const pkram::Walk& walk) {
    return Of(kept.name(), Filesystem::CheckNode(pages, walk, options.node));
  };
  absl::StatusOr<std::unique_ptr<pkram::Region>> region =
      pkram::Region::Open(*std::move(backing), open);
  if (!region.ok()) return region.status();
  region_ = *std::move(region);
  if (options.size) WarnAboutSpace(kept.name(), *options.size, kept, warn);
  WarnAboutLogout(path_, warn);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RegionFile>> RegionFile::Open(
    const MountOptions& options, Existing existing,
    const std::function<void(const std::string&)>& warn, pkram::Watch* watch) {
  std::unique_ptr<RegionFile> file(new RegionFile);
  const absl::Status prepared = file->Prepare(options, existing, warn, watch);
  if (!prepared.ok()) return file->WithLoss(prepared);
  return file;
}

absl::StatusOr<std::unique_ptr<RegionFile>> RegionFile::TakeOver(
    const MountOptions& options, const Descriptor& region, std::vector<pkram::Receipt*> receipts,
    pkram::Watch* watch) {
  std::unique_ptr<RegionFile> file(new RegionFile);
  absl::StatusOr<std::unique_ptr<pkram::Backing>> backing =
      pkram::OpenFdBacking(region.get(), pkram::OpenFor::kTakingOver);
  if (!backing.ok()) return backing.status();
  file->path_ = Canonical(absl::StrCat("/proc/self/fd/", region.get()));
  pkram::Region::OpenOptions open;
  open.lock_memory = options.lock_memory;
  open.resizable = true;
  open.takes_over = true;
  open.watch = watch;
  open.receipts = std::move(receipts);
  FsCheck check;
  open.client = &check;
  absl::StatusOr<std::unique_ptr<pkram::Region>> opened =
      pkram::Region::Open(*std::move(backing), open);
  if (!opened.ok()) return opened.status();
  file->region_ = *std::move(opened);
  return file;
}

absl::Status RegionFile::WithLoss(const absl::Status& status) const {
  if (!lost_) return status;
  return absl::Status(status.code(), absl::StrCat(std::string(status.message()),
                                                  "; what was there before is lost"));
}

absl::StatusOr<std::unique_ptr<Filesystem>> RegionFile::OpenFilesystem(const MountOptions& options,
                                                                       bool frozen) {
  Filesystem::Options fs_options;
  fs_options.frozen = frozen;
  fs_options.node = options.node;
  fs_options.max_inodes = options.max_inodes.value_or(0);
  fs_options.root_mode = options.mode.value_or(01777);
  fs_options.root_uid = options.uid.value_or(geteuid());
  fs_options.root_gid = options.gid.value_or(getegid());
  absl::StatusOr<std::unique_ptr<Filesystem>> fs =
      Filesystem::Open(region_.get(), fs_options, FileTime());
  if (fs.ok()) return fs;
  return WithLoss(Of(path_, fs.status()));
}

absl::Status RegionFile::Keep(For what) {
  if (is_memfd_) {
    const std::vector<Descriptor> holders = HoldersOf(lock_);
    if (what == For::kMount) {
      for (const Descriptor& holder : holders) EndHolder(holder);
    } else if (holders.empty()) {
      if (absl::Status s = StartHolder(lock_); !s.ok()) return s;
    }
  }
  is_memfd_ = false;
  made_ = created_ = false;
  return absl::OkStatus();
}

absl::Status RegionFile::Close() {
  FsCheck check;
  return region_->Close(&check);
}

RegionFile::~RegionFile() {
  region_.reset();
  // Another file may have the name by now.
  const absl::StatusOr<pkram::Place> place = pkram::FindPlace(path_);
  struct stat named, ours;
  if (created_ && place.ok() && fstat(lock_, &ours) == 0 &&
      fstatat(place->directory.get(), place->name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
      named.st_ino == ours.st_ino && named.st_dev == ours.st_dev) {
    unlinkat(place->directory.get(), place->name.c_str(), 0);
  } else if (made_ && ftruncate(lock_, 0) != 0) {
    std::perror("pkramfs: ftruncate");  // it was empty before, and now is an empty region
  }
  if (lock_ >= 0) close(lock_);
}

}  // namespace pkramfs
