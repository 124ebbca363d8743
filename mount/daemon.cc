#include "mount/daemon.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "mount/mounts.h"
#include "mount/privileges.h"
#include "mount/region_file.h"
#include "mount/server.h"
#include "mount/startup.h"
#include "pkram/descriptor.h"
#include "pkram/place.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr int kReadAheadKiB = 1024;
constexpr unsigned kMaxThreads = 10000;
constexpr unsigned kIdleThreads = 16;

// mount(8)'s, which passes on what its helpers end with.
constexpr int kMountFailure = 32;

void Say(const std::string& text) { std::fprintf(stderr, "pkramfs: %s\n", text.c_str()); }

void Warn(const std::string& text) { Say("warning: " + text); }

// What libfuse has to say about a failure is part of our one sentence.
std::string& FuseMessage() {
  static std::string message;
  return message;
}

void TakeFuseMessage(fuse_log_level level, const char* format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof(text), format, arguments);
  if (level <= FUSE_LOG_ERR) {
    std::string& message = FuseMessage();
    if (message.empty()) message = text;
    while (!message.empty() && message.back() == '\n') message.pop_back();
  }
}

std::string PathOf(const Descriptor& fd) { return absl::StrCat("/proc/self/fd/", fd.get()); }

// The path of what is held, without links; or nothing.
std::string NameOf(const Descriptor& fd) {
  char path[PATH_MAX];
  const ssize_t n = readlink(PathOf(fd).c_str(), path, sizeof(path));
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : "";
}

// The directory to mount on, held; the error says what to do about it.
absl::StatusOr<Descriptor> OpenMountPoint(const std::string& path) {
  // Behind a slash it would be a name on the way.
  std::string last = path;
  while (last.size() > 1 && last.back() == '/') last.pop_back();
  const absl::StatusOr<pkram::Place> place = pkram::FindPlace(last);
  if (!place.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("mount point ", std::string(place.status().message()),
                     absl::IsNotFound(place.status()) ? ": create it first" : ""));
  }
  Descriptor directory(pkram::OpenPlace(*place, O_PATH | O_CLOEXEC));
  struct stat st;
  struct statvfs stats;
  // The kernel may know a dead mount's attributes, but not its statistics.
  if (directory.get() < 0 || fstat(directory.get(), &st) != 0 ||
      fstatvfs(directory.get(), &stats) != 0) {
    const int error = errno;
    std::string what = absl::StrCat("mount point ", path, ": ", std::strerror(error));
    if (error == ENOENT) absl::StrAppend(&what, ": create it first");
    if (error == ENOTCONN) {
      absl::StrAppend(&what, ": a dead mount is there: `umount -l ", path, "` first");
    }
    return absl::FailedPreconditionError(what);
  }
  if (!S_ISDIR(st.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("mount point ", path, ": not a directory: choose a directory"));
  }
  const std::string name = NameOf(directory);
  for (const MountEntry& m : PkramfsMounts()) {
    if (m.mount_point == name) {
      return absl::FailedPreconditionError(absl::StrCat("mount point ", path, ": ", m.source,
                                                        " is mounted there: unmount it first"));
    }
  }
  return directory;
}

absl::Status CheckFuseDevice() {
  if (access("/dev/fuse", F_OK) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "no /dev/fuse: load the module (modprobe fuse), or give the container the device");
}

// Later options win, so the user's come last.
std::string FuseOptions(const MountOptions& options, const std::string& region) {
  std::string source = region;
  // A comma or backslash of the path would end the option.
  for (size_t at = 0; (at = source.find_first_of(",\\", at)) != std::string::npos; at += 2) {
    source.insert(at, "\\");
  }
  std::vector<std::string> list = {"subtype=pkramfs", absl::StrCat("fsname=", source),
                                   "default_permissions"};
  if (geteuid() == 0) list.insert(list.end(), {"allow_other", "dev", "suid"});
  list.insert(list.end(), options.fuse.begin(), options.fuse.end());
  return absl::StrJoin(list, ",");
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
void RaiseLimits(const MountOptions& options, const pkram::Region& region) {
  for (const MountEntry& m : PkramfsMounts()) {
    if (m.mount_point != options.mount_point) continue;
    const std::string bdi = absl::StrCat("/sys/class/bdi/", m.device);
    std::ofstream(bdi + "/read_ahead_kb") << kReadAheadKiB;
    if (!options.writeback || !IsMemory(region)) continue;
    std::ofstream(bdi + "/max_ratio") << 100;
    std::ofstream(bdi + "/strict_limit") << 0;
  }
}

// What was mounted last on a directory that is held, in mountinfo's words; or nothing.
std::string IdOfMountOn(const Descriptor& directory) {
  const std::string name = NameOf(directory);
  std::string id;
  for (const MountEntry& m : AllMounts()) {
    if (!name.empty() && m.mount_point == name) id = m.id;
  }
  return id;
}

// Where that mount is by now, and no other: nothing is unmounted that came in its place or
// on top of it.
void UnmountById(const std::string& id) {
  for (const MountEntry& m : AllMounts()) {
    if (m.id != id) continue;
    const Descriptor top(
        open(m.mount_point.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    std::ifstream in(absl::StrCat("/proc/self/fdinfo/", top.get()));
    for (std::string field, value; in >> field >> value;) {
      if (field == "mnt_id:" && value == id) umount2(PathOf(top).c_str(), MNT_DETACH);
    }
  }
}

// A session of libfuse, mounted as long as it lives.  By itself, if it may: who may rename what
// leads to the mount point leads it nowhere else, neither now nor when it unmounts.
// fusermount3, which mounts for ordinary users, goes to the path with their rights.
class Session {
 public:
  static absl::StatusOr<std::unique_ptr<Session>> Mount(const std::string& fuse_options,
                                                        const std::string& mount_point,
                                                        bool by_itself, Server* server) {
    const absl::StatusOr<Descriptor> directory = OpenMountPoint(mount_point);
    if (!directory.ok()) return directory.status();
    fuse_set_log_func(TakeFuseMessage);
    const char* argv[] = {"pkramfs", "-o", fuse_options.c_str(), nullptr};
    fuse_args args = FUSE_ARGS_INIT(3, const_cast<char**>(argv));
    std::unique_ptr<Session> session(new Session);
    session->se_ = fuse_session_new(&args, &Operations(), sizeof(Operations()), server);
    fuse_opt_free_args(&args);
    if (session->se_ == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("mount options: ", FuseMessage()));
    }
    if (fuse_set_signal_handlers(session->se_) != 0) {
      return absl::InternalError("cannot set signal handlers");
    }
    session->handlers_ = true;
    if (by_itself) {
      int pipe[2];
      if (pipe2(pipe, O_CLOEXEC) != 0) {
        return absl::InternalError(absl::StrCat("cannot make a pipe: ", std::strerror(errno)));
      }
      close(pipe[0]);
      session->broken_pipe_ = Descriptor(pipe[1]);
    }
    const std::string path = by_itself ? PathOf(*directory) : mount_point;
    if (fuse_session_mount(session->se_, path.c_str()) != 0) {
      return absl::InternalError(absl::StrCat(
          "cannot mount on ", mount_point, ": ",
          FuseMessage().empty() ? "fusermount3 said why above" : FuseMessage().c_str()));
    }
    session->mounted_ = true;
    if (by_itself) session->mount_id_ = IdOfMountOn(*directory);
#ifndef FUSE_CAP_HANDLE_KILLPRIV_V2
    if (SayThatPrivilegesAreDropped(session->se_) != 0) {
      return absl::InternalError("cannot take part in the session's beginning");
    }
#endif
    return session;
  }
  ~Session() {
    if (!mount_id_.empty()) Unmount();
    if (mounted_) fuse_session_unmount(se_);
    if (handlers_) fuse_remove_signal_handlers(se_);
    if (se_ != nullptr) fuse_session_destroy(se_);
  }

  void Loop() {
    fuse_loop_config* const config = fuse_loop_cfg_create();
    // Each change that waits while the filesystem is frozen keeps a thread, and who
    // thaws it needs one, too.
    fuse_loop_cfg_set_max_threads(config, kMaxThreads);
    fuse_loop_cfg_set_idle_threads(config, kIdleThreads);
    fuse_session_loop_mt(se_, config);
    fuse_loop_cfg_destroy(config);
  }
  void End() { fuse_session_exit(se_); }
  // What the kernel has cached of them.
  void ForgetAttributes(Ino ino) { fuse_lowlevel_notify_inval_inode(se_, ino, -1, 0); }
  bool ended() const { return fuse_session_exited(se_) != 0; }

 private:
  // libfuse would go by the path, or have umount(8) do it.  As it does, the connection ends
  // first, so that nothing is asked of a daemon that does not answer; in its place libfuse
  // finds a broken pipe, which says, as a connection after an umount, that all is done.
  void Unmount() {
    const int connection = fuse_session_fd(se_);
    pollfd state{connection, 0, 0};
    if (poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0) return;
    dup2(broken_pipe_.get(), connection);
    UnmountById(mount_id_);
  }

  fuse_session* se_ = nullptr;
  std::string mount_id_;  // where it mounts by itself
  // Made before the mount, which could not be unmounted without it.
  Descriptor broken_pipe_{-1};
  bool handlers_ = false;
  bool mounted_ = false;
};

absl::Status ServeUntilUnmounted(const MountOptions& options, RegionFile* file, Filesystem* fs,
                                 Startup* startup) {
  Server server;
  server.fs = fs;
  server.region = file->region();
  server.node = options.node;
  server.export_handles = options.export_handles;
  server.writeback = options.writeback;
  std::atomic<bool> interrupted = false;
  Session* running = nullptr;
  server.ready = [&] {
    if (startup->Ready()) {
      file->Keep();
    } else {
      interrupted = true;
      running->End();
    }
  };
  server.connected = [&] { RaiseLimits(options, *file->region()); };
  const bool by_itself = MayMount() && std::ranges::count(options.fuse, "auto_unmount") == 0;
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Mount(FuseOptions(options, file->path()), options.mount_point, by_itself, &server);
  if (!session.ok()) return session.status();
  running = session->get();
  fs->set_abandoned([running] { return running->ended(); });
  fs->set_privileges_dropped([running](Ino ino) { running->ForgetAttributes(ino); });
  SettleDown(options.lock_memory);
  running->Loop();
  // A machine that goes down sends it to everyone, and waits: for the seal.
  signal(SIGTERM, SIG_IGN);
  session->reset();
  if (interrupted) return absl::CancelledError("the start was interrupted");
  return absl::OkStatus();
}

absl::Status Run(MountOptions options, Startup* startup) {
  if (absl::Status s = CheckFuseDevice(); !s.ok()) return s;
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
  Startup startup(options.foreground);
  const absl::Status s = Run(options, &startup);
  if (s.ok()) return 0;
  Say(std::string(s.message()));
  return kMountFailure;
}

}  // namespace pkramfs
