#include "mount/daemon/session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/region/privileges.h"
#include "mount/serve/handshake.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// Collects what libfuse says about a failure, for our one sentence.
std::string& FuseMessage() {
  static std::string message;
  return message;
}

void TakeFuseMessage(fuse_log_level level, const char* format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof(text), format, arguments);
  if (level > FUSE_LOG_ERR) return;
  std::string& message = FuseMessage();
  if (message.empty()) message = text;
  while (!message.empty() && message.back() == '\n') message.pop_back();
}

absl::Status WithFuseMessage(const absl::Status& status) {
  if (status.ok() || FuseMessage().empty()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(std::string(status.message()), ": ", FuseMessage()));
}

// With auto_unmount, fusermount3 stays, and looks once, when this process's end of a socket closes,
// whether the mount has a daemon.  Linux closes what a process had that died from the highest
// descriptor to the lowest, so the socket must be below the connection; libfuse has it above.
class FusermountSocket {
 public:
  // To be called before the mount: reserves a low number.
  FusermountSocket() : low_(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)), before_(Sockets()) {}
  ~FusermountSocket() {
    if (low_ >= 0) close(low_);
  }
  FusermountSocket(const FusermountSocket&) = delete;
  FusermountSocket& operator=(const FusermountSocket&) = delete;

  // To be called after the mount: moves the socket that libfuse has left open, if it has, to that
  // number.
  Descriptor MoveBelow() {
    for (const int fd : Sockets()) {
      if (before_.count(fd) != 0 || low_ < 0 || dup3(fd, low_, O_CLOEXEC) < 0) continue;
      close(fd);
      return Descriptor(std::exchange(low_, -1));
    }
    return Descriptor(-1);
  }

 private:
  static std::set<int> Sockets() {
    constexpr int kMost = 1024;  // descriptors of a process that has just begun
    std::set<int> sockets;
    struct stat st;
    for (int fd = 0; fd < kMost; ++fd) {
      if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) sockets.insert(fd);
    }
    return sockets;
  }

  int low_;
  const std::set<int> before_;
};

}  // namespace

absl::Status Session::Make(const std::string& fuse_options, Server* server) {
  fuse_set_log_func(TakeFuseMessage);
  const char* argv[] = {"pkramfs", "-o", fuse_options.c_str(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, const_cast<char**>(argv));
  const fuse_lowlevel_ops& ops =
      server->in_flight->shows_image() ? ReadOnlyOperations() : Operations();
  session_ = fuse_session_new(&args, &ops, sizeof(ops), server);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("mount options: ", FuseMessage()));
  }
  int pipe[2];
  if (pipe2(pipe, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot make a pipe: ", std::strerror(errno)));
  }
  close(pipe[0]);
  broken_pipe_ = Descriptor(pipe[1]);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Session>> Session::Mount(const std::string& fuse_options,
                                                        const FlagChange& flags,
                                                        const std::string& mount_point,
                                                        bool by_itself, Server* server,
                                                        InFlight* in_flight) {
  const absl::StatusOr<Descriptor> directory = OpenMountPoint(mount_point);
  if (!directory.ok()) return directory.status();
  std::unique_ptr<Session> session(new Session);
  if (absl::Status s = session->Make(fuse_options, server); !s.ok()) return s;
  const std::string path = by_itself ? PathOf(*directory) : mount_point;
  std::optional<FusermountSocket> socket;
  if (server->auto_unmount) socket.emplace();
  if (fuse_session_mount(session->session_, path.c_str()) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot mount on ", mount_point, ": ",
                     FuseMessage().empty() ? "fusermount3 said why above" : FuseMessage().c_str()));
  }
  if (socket) session->fusermount_ = socket->MoveBelow();
  session->mounted_ = true;
  session->mount_ = MountOn(*directory);
  if (const absl::Status s = BeginSession(session->session_, in_flight); !s.ok()) {
    return WithFuseMessage(s);
  }
  if (const absl::Status s = ChangeFlags(session->mount_, flags); !s.ok()) return s;
  session->threads_ = std::make_unique<Threads>(session->session_, in_flight);
  return session;
}

absl::StatusOr<std::unique_ptr<Session>> Session::Resume(Estate estate,
                                                         const std::string& fuse_options,
                                                         Server* server, InFlight* in_flight) {
  std::unique_ptr<Session> session(new Session);
  if (absl::Status s = session->Make(fuse_options, server); !s.ok()) return s;
  // libfuse takes a descriptor by this name, and closes it in the end.
  const int connection = fcntl(estate.connection.get(), F_DUPFD_CLOEXEC, 3);
  if (connection < 0 ||
      fuse_session_mount(session->session_, absl::StrCat("/dev/fd/", connection).c_str()) != 0) {
    return absl::InternalError(absl::StrCat("cannot take over the connection: ", FuseMessage()));
  }
  session->fusermount_ = std::move(estate.fusermount);
  session->mount_ = {estate.mount_id, estate.device};
  if (const absl::Status s = ResumeSession(session->session_, *in_flight); !s.ok()) {
    return WithFuseMessage(s);
  }
  session->mounted_ = true;  // and is to be unmounted in the end
  session->threads_ = std::make_unique<Threads>(session->session_, in_flight);
  return session;
}

Threads::Wake Session::WaitToEnd(int link, int timeout) {
  const Threads::Wake wake = threads_->WaitToEnd(link, timeout);
  if (wake == Threads::Wake::kEnd) threads_.reset();
  return wake;
}

Session::~Session() {
  if (session_ == nullptr) return;
  fuse_session_exit(session_);
  threads_.reset();
  if (mounted_) Unmount();
  fuse_session_destroy(session_);
}

bool Session::IsGone() const {
  pollfd state{fuse_session_fd(session_), 0, 0};
  return poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0;
}

// Unmounts.  libfuse would go by the path, where another mount may be by now.  As in libfuse, the
// connection ends first, so that nobody asks a daemon that does not answer.  In its place libfuse
// finds a broken pipe, which tells it the same as a connection after an umount: all is done.
void Session::Unmount() {
  const bool is_gone = IsGone();
  if (!mount_.id.empty()) {
    dup2(broken_pipe_.get(), fuse_session_fd(session_));
    if (!is_gone) (MayMount() ? DetachMount : DetachMountAsUser)(mount_);
  }
  fuse_session_unmount(session_);
}

}  // namespace pkramfs
