#include "mount/daemon/service.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "mount/daemon/log.h"
#include "mount/daemon/service_manager.h"
#include "mount/region/holder.h"
#include "mount/region/memfd.h"
#include "mount/region/privileges.h"
#include "mount/region/units.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr int kReadAheadKiB = 1024;

// The source that mountinfo shows.  It is what the user typed, so that umount(8), findmnt(8) and
// fstab(5) know it.  But a relative path, which would mean another file elsewhere, is written out.
std::string SourceOf(const std::string& given, const std::string& path) {
  const bool is_name = given.find('/') == std::string::npos && given.rfind("fd=", 0) != 0;
  const bool is_absolute = given.rfind('/', 0) == 0 && given.rfind("/proc/", 0) != 0;
  return is_name || is_absolute ? given : path;
}

// Later options win, so the user's come last.
std::string FuseOptions(const MountOptions& options, const std::string& region) {
  // A comma or backslash of the path would end the option.
  const std::string source =
      absl::StrReplaceAll(SourceOf(options.region, region), {{",", "\\,"}, {"\\", "\\\\"}});
  std::vector<std::string> list = {"subtype=pkramfs", absl::StrCat("fsname=", source),
                                   "default_permissions"};
  if (geteuid() == 0) list.insert(list.end(), {"allow_other", "dev", "suid"});
  if (options.max_read) list.push_back(absl::StrCat("max_read=", *options.max_read));
  for (const auto& more : {options.flags.FuseWords(), options.fuse}) {
    list.insert(list.end(), more.begin(), more.end());
  }
  return absl::StrJoin(list, ",");
}

// By default root's mount may hold devices and programs with set-id bits, whoever mounts it.
FlagChange Flags(const MountOptions& options) {
  FlagChange flags;
  if (geteuid() == 0) flags.clear = MS_NODEV | MS_NOSUID;
  flags.clear = (flags.clear & ~options.flags.set) | options.flags.clear;
  flags.set = options.flags.set;
  return flags;
}

// Whether writing to the region never waits for a disk.
bool IsMemory(const pkram::Region& region) {
  struct statfs st;
  return region.backing().device_pages() ||
         (fstatfs(region.backing().fd(), &st) == 0 && st.f_type == TMPFS_MAGIC);
}

uint64_t SizeOf(pkram::Region& region) { return region.space().counts().total * pkram::kPageSize; }

// The limit of this process's cgroup, to which the region's pages are charged, whoever writes.
// Nothing where they are charged to no cgroup.
std::optional<MemoryLimit> LimitOf(pkram::Region& region) {
  if (region.backing().device_pages() || !IsMemory(region)) return std::nullopt;
  return LowestMemoryLimit();
}

bool IsTight(const MemoryLimit& limit, pkram::Region& region) {
  constexpr uint64_t kOwn = 64 << 20;  // of the daemon and of what waits to be written
  return limit.bytes < SizeOf(region) + kOwn;
}

// The limit, if the region may not fit.
std::optional<MemoryLimit> TightLimit(pkram::Region& region) {
  std::optional<MemoryLimit> limit = LimitOf(region);
  if (limit && !IsTight(*limit, region)) limit.reset();
  return limit;
}

// Raises two limits of the kernel.  By default it reads ahead 128 KiB of a FUSE file, and lets it
// have 1 % of the dirty pages that it allows for disks.  Only root may change that, and only once
// the kernel has set the mount up.  This must not touch the mount itself, or an umount would find
// it busy.  (A region on a disk keeps the second limit, because this daemon's writes wait for those
// of the disk.)
void SetKernelLimits(const std::string& device, bool writeback, pkram::Region& region) {
  if (device.empty()) return;
  const std::string bdi = absl::StrCat("/sys/class/bdi/", device);
  std::ofstream(bdi + "/read_ahead_kb") << kReadAheadKiB;
  const std::optional<MemoryLimit> limit = LimitOf(region);
  // Dirty pages take memory that the daemon needs for writing them.
  if (limit && IsTight(*limit, region)) {
    std::ofstream(bdi + "/max_bytes") << limit->bytes / 32;
    return;
  }
  const bool may_be_much = writeback && IsMemory(region);
  if (may_be_much) std::ofstream(bdi + "/max_ratio") << 100;
  if (limit) {
    // As much as fits beside the region, if that is less than the kernel's own limit.
    const uint64_t most = (limit->bytes - SizeOf(region)) / 4;
    uint64_t now = 0;
    std::ifstream(bdi + "/max_bytes") >> now;
    if (most < now) std::ofstream(bdi + "/max_bytes") << most;
  } else if (may_be_much) {
    std::ofstream(bdi + "/strict_limit") << 0;
  }
}

std::string Warning(const MemoryLimit& limit, uint64_t size) {
  return absl::StrCat(
      "this process may have ", Human(limit.bytes), " of memory (", limit.file, "), and the files ",
      Human(size), ": they are charged to it, whoever writes them, and beyond the limit they are ",
      "swapped out or this process is killed: raise the limit, or choose a smaller size=");
}

// mode=, uid= and gid= apply to the root of a new filesystem.  The root of an existing one keeps
// what it has.
void WarnAboutRoot(const MountOptions& options, Filesystem& fs,
                   const std::function<void(const std::string&)>& warn) {
  const Result<Attr> root = fs.GetAttr(kRootIno);
  if (!root.ok()) return;
  std::vector<std::string> others;
  const uint32_t mode = (*root).mode & 07777;
  if (options.mode && *options.mode != mode) {
    others.push_back(absl::StrFormat("mode=%o (it is %o)", *options.mode, mode));
  }
  if (options.uid && *options.uid != (*root).uid) {
    others.push_back(absl::StrFormat("uid=%d (it is %d)", *options.uid, (*root).uid));
  }
  if (options.gid && *options.gid != (*root).gid) {
    others.push_back(absl::StrFormat("gid=%d (it is %d)", *options.gid, (*root).gid));
  }
  if (others.empty()) return;
  warn(absl::StrCat("the filesystem is there already, and its root keeps its owner and mode: ",
                    absl::StrJoin(others, ", "), " changes nothing: use chown and chmod on ",
                    options.mount_point));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Service>> Service::Mount(
    MountOptions options, const std::function<void(const std::string&)>& warn) {
  std::unique_ptr<Service> service(new Service(std::move(options)));
  MountOptions& wanted = service->options_;
  absl::StatusOr<std::unique_ptr<InFlight>> in_flight = InFlight::Make();
  if (!in_flight.ok()) return in_flight.status();
  service->in_flight_ = *std::move(in_flight);
  absl::StatusOr<std::unique_ptr<RegionFile>> file =
      RegionFile::Open(wanted, Existing::kUse, warn, service->checkpointer_.watch());
  if (!file.ok()) return file.status();
  service->file_ = *std::move(file);
  absl::StatusOr<std::unique_ptr<Filesystem>> fs = service->file_->OpenFilesystem(wanted);
  if (!fs.ok()) return fs.status();
  service->fs_ = *std::move(fs);
  service->is_open_ = true;
  if (absl::Status s = service->checkpointer_.Check(*service->file_->region()); !s.ok()) return s;
  WarnAboutRoot(wanted, *service->fs_, warn);
  pkram::Region& region = *service->file_->region();
  service->tight_ = TightLimit(region);
  if (const std::optional<MemoryLimit>& tight = service->tight_) {
    warn(absl::StrCat(Warning(*tight, SizeOf(region)),
                      tight->is_version_1 ? "; with cgroup version 1 it is mounted as with "
                                            "-o writeback,sync until then"
                                          : ""));
    if (tight->is_version_1) {
      // There, a thread that needs memory waits for dirty pages to be written.  So the mount has
      // none. (Without the kernel's cache of writes, the thread would wait for dirty pages of
      // mappings for ever.)
      wanted.writeback = true;
      wanted.flags.Apply("sync");
    }
  }
  service->in_flight_->set_shows_image(service->file_->shows_image());
  service->in_flight_->set_writeback(wanted.writeback);
  service->in_flight_->set_locks_memory(wanted.lock_memory);
  service->in_flight_->set_is_tight(service->tight_.has_value());
  service->Describe(wanted.writeback);
  const bool by_itself = MayMount() && !service->server_.auto_unmount;
  absl::StatusOr<std::unique_ptr<Session>> mounted =
      Session::Mount(FuseOptions(wanted, service->file_->path()), Flags(wanted), wanted.mount_point,
                     by_itself, &service->server_, service->in_flight_.get());
  if (!mounted.ok()) return mounted.status();
  service->session_ = *std::move(mounted);
  service->Attach();
  SetKernelLimits(service->session_->mount().device, wanted.writeback, region);
  return service;
}

absl::StatusOr<std::unique_ptr<Service>> Service::TakeOver(const MountOptions& options,
                                                           Estate estate) {
  std::unique_ptr<Service> service(new Service(options));
  absl::StatusOr<std::unique_ptr<InFlight>> in_flight =
      InFlight::Adopt(std::move(estate.in_flight));
  if (!in_flight.ok()) return in_flight.status();
  service->in_flight_ = *std::move(in_flight);
  // The whole path, and the file to which it leads now.
  service->options_.mount_point = estate.mount_point;
  service->options_.lock_memory |= service->in_flight_->locks_memory();
  service->in_flight_->set_locks_memory(service->options_.lock_memory);
  if (const auto inodes = service->in_flight_->max_inodes()) service->options_.max_inodes = inodes;
  std::vector<pkram::Receipt*> receipts;
  for (InFlight::Slot* const slot : service->in_flight_->left()) receipts.push_back(&slot->receipt);
  absl::StatusOr<std::unique_ptr<RegionFile>> file = RegionFile::TakeOver(
      service->options_, estate.region, std::move(receipts), service->checkpointer_.watch());
  if (!file.ok()) return file.status();
  service->file_ = *std::move(file);
  absl::StatusOr<std::unique_ptr<Filesystem>> fs =
      service->file_->OpenFilesystem(service->options_, service->in_flight_->frozen());
  if (!fs.ok()) return fs.status();
  service->fs_ = *std::move(fs);
  service->tight_ = TightLimit(*service->file_->region());
  service->Describe(service->in_flight_->writeback());
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Resume(std::move(estate), FuseOptions(options, service->file_->path()),
                      &service->server_, service->in_flight_.get());
  if (!session.ok()) return session.status();
  service->session_ = *std::move(session);
  service->Attach();
  service->is_open_ = true;
  return service;
}

Service::~Service() {
  if (is_open_) End().IgnoreError();
}

void Service::Describe(bool writeback) {
  server_.fs = fs_.get();
  server_.region = file_->region();
  server_.in_flight = in_flight_.get();
  server_.node = options_.node;
  server_.export_handles = options_.export_handles;
  server_.writeback = writeback;
  server_.checkpoint_file = options_.checkpoint;
  server_.checkpoint_every = options_.checkpoint_every;
  server_.checkpoint_at_exit = options_.checkpoint_at_exit;
  server_.max_read = options_.max_read.value_or(0);
  server_.takeover = options_.takes_over();
  server_.auto_unmount = std::ranges::count(options_.fuse, "auto_unmount") != 0;
}

void Service::Attach() {
  Session* const session = session_.get();
  fs_->set_abandoned([session] { return session->ended(); });
  server_.forget_attributes = [session](Ino ino) { session->ForgetAttributes(ino); };
  fs_->set_privileges_dropped(server_.forget_attributes);
  server_.resized = [this] { return LookAtLimit(); };
  server_.checkpoint =
      [this](const std::string& file,
             const pkram::Progress& progress) -> absl::StatusOr<pkram::Checkpoints::Made> {
    // A checkpoint never replaces the image that the mount shows.
    if (in_flight_->shows_image() && pkram::Image::Open(file).ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat(file, ": an image is there: choose another name"));
    }
    return checkpointer_.Make(file, progress);
  };
  server_.checkpoint_state = [this] { return checkpointer_.state(); };
  if (tight_) file_->region()->mapping().LetGoOfUsed();
}

// A limit of memory that was high enough at first may be too low after a resize.  Changes what can
// be changed now.  What was agreed on with the kernel stays.
std::string Service::LookAtLimit() {
  pkram::Region& region = *file_->region();
  if (!tight_) SetKernelLimits(session_->mount().device, server_.writeback, region);
  const std::optional<MemoryLimit> limit = TightLimit(region);
  if (!limit) return "";
  if (!tight_) region.mapping().LetGoOfUsed();
  return absl::StrCat(Warning(*limit, SizeOf(region)),
                      tight_ ? "" : "; unmount it, and mount it again, to have it served for that");
}

absl::Status Service::Start() {
  TakeFaults();
  SettleDown(!tight_, options_.takes_over());
  if (tight_) checkpointer_.set_most_aside(tight_->bytes / 32);
  checkpointer_.Start(fs_.get(), file_->region(), options_.mount_point, session_->mount().device);
  return session_->Start();
}

Estate Service::estate() const {
  const auto held = [](int fd) { return Descriptor(fcntl(fd, F_DUPFD_CLOEXEC, 3)); };
  return {held(session_->fusermount()),
          held(session_->connection()),
          held(file_->region()->backing().fd()),
          held(in_flight_->fd()),
          Descriptor(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0))),
          session_->mount().id,
          session_->mount().device,
          options_.mount_point};
}

absl::Status Service::MakeLastCheckpoint() {
  if (options_.checkpoint.empty() || !options_.checkpoint_at_exit || !checkpointer_.is_started()) {
    return absl::OkStatus();
  }
  const auto made = checkpointer_.Make("", [](uint64_t, uint64_t) { return true; });
  if (made.ok()) return absl::OkStatus();
  return absl::Status(made.status().code(), absl::StrCat("no checkpoint at the end: ",
                                                         std::string(made.status().message())));
}

void Service::HoldRegion() {
  if (!IsMemfd(options_.region) || (options_.foreground && ServiceManagerKeepsRegions())) return;
  const absl::Status held = StartHolder(file_->region()->backing().fd());
  if (!held.ok()) Log(LOG_ERR, absl::StrCat(options_.region, ": ", std::string(held.message())));
}

absl::Status Service::End() {
  is_open_ = false;
  in_flight_->set_ended();
  session_.reset();
  checkpointer_.Stop();
  const absl::Status kept = MakeLastCheckpoint();
  fs_.reset();
  const absl::Status closed = file_->Close();
  return closed.ok() ? kept : closed;
}

}  // namespace pkramfs
