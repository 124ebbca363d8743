#include "mount/serve/handshake.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// As <linux/fuse.h> has them; older ones do not.  The second is one of flags2.
constexpr uint32_t kKillPriv = 1u << 28;
constexpr uint32_t kInitExt = 1u << 30;
constexpr uint32_t kAllowIdmap = 1u << (40 - 32);

struct InitIn {
  fuse_in_header header;
  uint32_t major, minor, max_readahead, flags, flags2;
};
struct InitOut {
  fuse_out_header header;
  uint32_t major, minor, max_readahead, flags;
  uint16_t max_background, congestion_threshold;
  uint32_t max_write, time_gran;
  uint16_t max_pages, map_alignment;
  uint32_t flags2;
};

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

void AddOurs(const InitIn& in, InitOut* out) {
  out->flags |= in.flags & kKillPriv;
  if ((in.flags & kInitExt) != 0 && (in.flags2 & kAllowIdmap) != 0) {
    out->flags |= kInitExt;
    out->flags2 |= kAllowIdmap;
  }
}

// Lets libfuse write its answer to INIT into a socket in place of the connection, and reads it.
absl::StatusOr<std::vector<char>> AnswerOf(fuse_session* session, const fuse_buf& request) {
  const int connection = fuse_session_fd(session);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return Failed("socketpair");
  const Descriptor ours(ends[0]);
  const Descriptor theirs(ends[1]);
  const Descriptor kernel(fcntl(connection, F_DUPFD_CLOEXEC, 3));
  if (kernel.get() < 0 || dup2(theirs.get(), connection) < 0) return Failed("dup");
  fuse_session_process_buf(session, &request);
  std::vector<char> answer(4096);
  const ssize_t size = recv(ours.get(), answer.data(), answer.size(), MSG_DONTWAIT);
  if (dup3(kernel.get(), connection, O_CLOEXEC) < 0) return Failed("dup");
  if (size < static_cast<ssize_t>(sizeof(fuse_out_header)) || fuse_session_exited(session) != 0) {
    return absl::InternalError("libfuse gave the kernel's first request no answer");
  }
  answer.resize(static_cast<size_t>(size));
  fuse_out_header header;
  std::memcpy(&header, answer.data(), sizeof(header));
  if (header.error != 0) {
    errno = -header.error;
    return Failed("libfuse cannot serve this kernel");
  }
  return answer;
}

}  // namespace

absl::Status BeginSession(fuse_session* session, InFlight* in_flight) {
  fuse_buf request{};
  int received;
  do {
    received = fuse_session_receive_buf(session, &request);
  } while (received == -EINTR);
  const std::unique_ptr<void, decltype(&std::free)> memory(request.mem, &std::free);
  if (received == 0) return absl::CancelledError("the mount went away before it was ready");
  if (received < 0) {
    errno = -received;
    return Failed("cannot read from /dev/fuse");
  }
  InitIn in{};
  std::memcpy(&in, request.mem, std::min(sizeof(in), request.size));
  in_flight->KeepInit({static_cast<const char*>(request.mem), request.size});
  absl::StatusOr<std::vector<char>> answer = AnswerOf(session, request);
  if (!answer.ok()) return answer.status();
  InitOut out{};
  const size_t known = std::min(sizeof(out), answer->size());
  std::memcpy(&out, answer->data(), known);
  AddOurs(in, &out);
  std::memcpy(answer->data(), &out, known);
  // On this thread the kernel takes it in before write(2) returns.
  if (write(fuse_session_fd(session), answer->data(), answer->size()) !=
      static_cast<ssize_t>(answer->size())) {
    return errno == ENODEV || errno == ENOENT
               ? absl::CancelledError("the mount went away before it was ready")
               : Failed("the kernel does not take our answer to its first request");
  }
  return absl::OkStatus();
}

absl::Status ResumeSession(fuse_session* session, const InFlight& in_flight) {
  std::vector<char> kept(in_flight.init().begin(), in_flight.init().end());
  if (kept.empty()) return absl::FailedPreconditionError("the mount had not begun");
  fuse_buf request{};
  request.mem = kept.data();
  request.size = kept.size();
  return AnswerOf(session, request).status();
}

}  // namespace pkramfs
