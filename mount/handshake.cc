#include "mount/handshake.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "mount/server.h"

namespace pkramfs {
namespace {

ssize_t Read(int fd, void* buffer, size_t size, void* userdata) {
  const ssize_t n = read(fd, buffer, size);
  Handshake& handshake = static_cast<Server*>(userdata)->handshake;
  if (handshake.done.load(std::memory_order_relaxed) || n <= 0) return n;
  fuse_in_header header;
  fuse_init_in init;
  const size_t known = sizeof(header) + offsetof(fuse_init_in, flags) + sizeof(init.flags);
  if (static_cast<size_t>(n) < known) return n;
  std::memcpy(&header, buffer, sizeof(header));
  std::memcpy(&init, static_cast<char*>(buffer) + sizeof(header), known - sizeof(header));
  if (header.opcode == FUSE_INIT) handshake.offered = (init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
  return n;
}

ssize_t Write(int fd, iovec* iov, int count, void* userdata) {
  Handshake& handshake = static_cast<Server*>(userdata)->handshake;
  if (!handshake.done.load(std::memory_order_relaxed) && count == 2) {
    // The first answer is that to INIT.
    handshake.done = true;
    fuse_out_header header;
    std::memcpy(&header, iov[0].iov_base, sizeof(header));
    const size_t at = offsetof(fuse_init_out, flags);
    uint32_t flags;
    if (handshake.offered && header.error == 0 && iov[1].iov_len >= at + sizeof(flags)) {
      std::memcpy(&flags, static_cast<char*>(iov[1].iov_base) + at, sizeof(flags));
      flags |= FUSE_HANDLE_KILLPRIV_V2;
      std::memcpy(static_cast<char*>(iov[1].iov_base) + at, &flags, sizeof(flags));
    }
  }
  return writev(fd, iov, count);
}

}  // namespace

int SayThatPrivilegesAreDropped(fuse_session* session) {
  fuse_custom_io io{};
  io.read = Read;
  io.writev = Write;
  return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

}  // namespace pkramfs
