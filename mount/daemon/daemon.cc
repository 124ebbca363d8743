#include "mount/daemon/daemon.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "mount/region/memory_limit.h"
#include "mount/region/mount_flags.h"
#include "mount/region/mount_point.h"
#include "mount/region/mounts.h"
#include "mount/region/privileges.h"
#include "mount/region/region_file.h"
#include "mount/daemon/remount.h"
#include "mount/serve/server.h"
#include "mount/daemon/session.h"
#include "mount/daemon/startup.h"
#include "mount/daemon/threads.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr int kReadAheadKiB = 1024;

// mount(8)'s, which passes on what its helpers end with.
constexpr int kMountFailure = 32;

void Say(const std::string& text) { std::fprintf(stderr, "pkramfs: %s\n", text.c_str()); }

void Warn(const std::string& text) { Say("warning: " + text); }

absl::Status CheckFuseDevice() {
  if (access("/dev/fuse", F_OK) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "no /dev/fuse: load the module (modprobe fuse), or give the container the device");
}

// What is short later, when there is a mount, would leave it to others to clear away.
absl::Status CheckDescriptors() {
  constexpr int kNeeded = 48;
  std::vector<Descriptor> all;
  for (int i = 0; i < kNeeded; ++i) {
    all.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (all.back().get() >= 0) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("cannot open files (", std::strerror(errno), "): a mount needs ", kNeeded,
                     " descriptors: raise the limit (ulimit -n)"));
  }
  return absl::OkStatus();
}

// The same of the first thread: fusermount3, which would unmount, is a process, too.
absl::Status CheckThreads() {
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, [](void* none) { return none; }, nullptr);
  if (error == 0) {
    pthread_join(thread, nullptr);
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot start a thread (", std::strerror(error),
                   "): end something of this user's, or raise the limit (ulimit -u)"));
}

// What mountinfo shows as the source: what the user typed, so that umount(8), findmnt(8) and
// fstab(5) know it; but what means something else to others is written out.
std::string SourceOf(const std::string& given, const std::string& path) {
  const bool is_name = given.find('/') == std::string::npos && given.rfind("fd=", 0) != 0;
  const bool is_absolute = given.rfind('/', 0) == 0 && given.rfind("/proc/", 0) != 0;
  return is_name || is_absolute ? given : path;
}

// Later options win, so the user's come last.
std::string FuseOptions(const MountOptions& options, const std::string& region) {
  // A comma or backslash of the path would end the option.
  const std::string source = absl::StrReplaceAll(SourceOf(options.region, region),
                                                 {{",", "\\,"}, {"\\", "\\\\"}});
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

// The kernel reads ahead 128 KiB of a FUSE file, and keeps 1 % of what it keeps for disks,
// unless it is told otherwise, which only root may do, and only once the kernel has set
// the mount up.  It must not touch the mount itself: an umount would find it busy.  (A
// region on a disk keeps the second limit: this daemon's writes wait for the disk's.)
void SetKernelLimits(const std::string& device, bool writeback, const pkram::Region& region,
                     const std::optional<MemoryLimit>& tight) {
  if (device.empty()) return;
  const std::string bdi = absl::StrCat("/sys/class/bdi/", device);
  std::ofstream(bdi + "/read_ahead_kb") << kReadAheadKiB;
  if (tight) {
    // What waits to be written takes room that writing it needs, too.
    std::ofstream(bdi + "/max_bytes") << tight->bytes / 32;
    return;
  }
  if (!writeback || !IsMemory(region)) return;
  std::ofstream(bdi + "/max_ratio") << 100;
  std::ofstream(bdi + "/strict_limit") << 0;
}

// The limit of the cgroup that this process is in, if the region's pages, which are charged to
// it whoever writes, may not fit.
std::optional<MemoryLimit> TightLimit(pkram::Region& region) {
  constexpr uint64_t kOwn = 64 << 20;  // of the daemon and of what waits to be written
  if (region.backing().device_pages() || !IsMemory(region)) return std::nullopt;
  std::optional<MemoryLimit> limit = LowestMemoryLimit();
  if (limit && limit->bytes >= region.space().counts().total * pkram::kPageSize + kOwn) limit.reset();
  return limit;
}

void WarnAbout(const MemoryLimit& limit, uint64_t size) {
  Warn(absl::StrCat(
      "this process may have ", Human(limit.bytes), " of memory (", limit.file, "), and the files ",
      Human(size), ": they are charged to it, whoever writes them, and beyond the limit they are ",
      "swapped out or this process is killed: raise the limit, or choose a smaller size="));
}

absl::Status ServeUntilUnmounted(MountOptions options, RegionFile* file, Filesystem* fs,
                                 Startup* startup) {
  const std::optional<MemoryLimit> tight = TightLimit(*file->region());
  if (tight) {
    WarnAbout(*tight, file->region()->space().counts().total * pkram::kPageSize);
    file->region()->mapping().LetGoOfUsed();
    if (tight->is_version_1) {
      // Who needs memory waits there for dirty pages to be written: so there are none.  (Without
      // the kernel's cache of writes it waits for those of mappings without an end.)
      options.writeback = true;
      options.flags.Apply("sync");
    }
  }
  Server server;
  server.fs = fs;
  server.region = file->region();
  server.node = options.node;
  server.export_handles = options.export_handles;
  server.writeback = options.writeback;
  server.lock_memory = options.lock_memory;
  server.max_read = options.max_read.value_or(0);
  server.auto_unmount = std::ranges::count(options.fuse, "auto_unmount") != 0;
  const bool by_itself = MayMount() && !server.auto_unmount;
  TakeEndSignals();
  absl::StatusOr<std::unique_ptr<Session>> mounted = Session::Mount(
      FuseOptions(options, file->path()), Flags(options), options.mount_point, by_itself, &server);
  if (!mounted.ok()) return mounted.status();
  Session* const session = mounted->get();
  fs->set_abandoned([session] { return session->ended(); });
  server.forget_attributes = [session](Ino ino) { session->ForgetAttributes(ino); };
  fs->set_privileges_dropped(server.forget_attributes);
  SetKernelLimits(session->device(), options.writeback, *file->region(), tight);
  SettleDown(options.lock_memory, !tight);
  if (absl::Status s = session->Start(); !s.ok()) return s;
  if (IsToldToEnd() || !startup->Ready()) return absl::CancelledError("the start was interrupted");
  file->Keep();
  session->WaitToEnd();
  return absl::OkStatus();
}

absl::Status Run(MountOptions options, Startup* startup) {
  if (absl::Status s = CheckFuseDevice(); !s.ok()) return s;
  if (absl::Status s = CheckDescriptors(); !s.ok()) return s;
  if (absl::Status s = CheckThreads(); !s.ok()) return s;
  // Before anything is changed; it is opened again to be mounted on, when what was handed over
  // (fd=N) is open, so as not to have the number of one that is not.
  {
    const absl::StatusOr<Descriptor> directory = OpenMountPoint(options.mount_point);
    if (!directory.ok()) return directory.status();
    const std::string name = NameOf(*directory);
    options.mount_point = name.empty() ? Canonical(options.mount_point) : name;
  }
  absl::StatusOr<std::unique_ptr<RegionFile>> file =
      RegionFile::Open(options, Existing::kUse, Warn);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<Filesystem>> fs = (*file)->OpenFilesystem(options);
  if (!fs.ok()) return fs.status();
  const absl::Status served = ServeUntilUnmounted(options, file->get(), fs->get(), startup);
  fs->reset();
  const absl::Status closed = (*file)->Close();
  return served.ok() ? closed : served;
}

}  // namespace

int Serve(const MountOptions& options) {
  if (options.remount) {
    const absl::Status changed = Remount(options);
    if (changed.ok()) return 0;
    Say(std::string(changed.message()));
    return kMountFailure;
  }
  Startup startup(options.foreground);
  const absl::Status s = Run(options, &startup);
  if (s.ok()) return 0;
  Say(std::string(s.message()));
  return kMountFailure;
}

}  // namespace pkramfs
