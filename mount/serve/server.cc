#include "mount/serve/server.h"

#include <cerrno>

#include "mount/serve/handlers.h"

namespace pkramfs {
namespace {

constexpr unsigned kMaxRequest = 1 << 20;

void Init(void* userdata, fuse_conn_info* conn) {
  constexpr unsigned kWanted =
      FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_IOCTL_DIR | FUSE_CAP_READDIRPLUS |
      FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS |
      FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK;
  conn->want |= conn->capable & kWanted;
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
  conn->want |= conn->capable & FUSE_CAP_HANDLE_KILLPRIV_V2;  // see handshake.h
#endif
  auto* const server = static_cast<Server*>(userdata);
  if (!server->export_handles) conn->want &= ~static_cast<unsigned>(FUSE_CAP_EXPORT_SUPPORT);
  // Opens are not sent (see Open), so truncation must come as a request of its own;
  // nobody else changes contents, so a new mtime does not mean stale pages; and
  // splicing was measured to be slower than copying once.
  // After a direct write that a program submits in the background (libaio, io_uring), the kernel
  // drops no cached pages, and readers would see old bytes for good.  So it must wait for each (no
  // ASYNC_DIO).
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC |
                                       FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
                                       FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                                       FUSE_CAP_HANDLE_KILLPRIV);
  if (server->writeback) conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
  conn->max_write = kMaxRequest;
  conn->max_readahead = kMaxRequest;
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  conn->time_gran = 1;
  // libfuse must be told twice: by an option, and here.
  if (server->max_read != 0) conn->max_read = server->max_read;
}

// O_TMPFILE, where the library knows it.
template <typename Ops>
void AddTemporary(Ops* ops) {
  if constexpr (requires { ops->tmpfile; }) ops->tmpfile = serve::MakeTemporary;
}

fuse_lowlevel_ops MakeOperations() {
  fuse_lowlevel_ops ops{};
  ops.init = Init;
  ops.lookup = serve::Lookup;
  ops.forget = serve::Forget;
  ops.forget_multi = serve::ForgetMulti;
  ops.getattr = serve::GetAttr;
  ops.setattr = serve::SetAttr;
  ops.readlink = serve::ReadLink;
  ops.mknod = serve::MakeNode;
  ops.mkdir = serve::MakeDirectory;
  ops.unlink = serve::Unlink;
  ops.rmdir = serve::RemoveDirectory;
  ops.symlink = serve::MakeSymlink;
  ops.rename = serve::Rename;
  ops.link = serve::Link;
  ops.open = serve::Open;
  ops.read = serve::Read;
  ops.write = serve::Write;
  ops.flush = serve::Flush;
  ops.release = serve::Release;
  ops.fsync = serve::Fsync;
  ops.opendir = serve::OpenDirectory;
  ops.readdir = serve::ReadDirectory;
  ops.readdirplus = serve::ReadDirectoryPlus;
  ops.releasedir = serve::ReleaseDirectory;
  ops.fsyncdir = serve::FsyncDirectory;
  ops.statfs = serve::StatFs;
  ops.setxattr = serve::SetXattr;
  ops.getxattr = serve::GetXattr;
  ops.listxattr = serve::ListXattrs;
  ops.removexattr = serve::RemoveXattr;
  ops.create = serve::Create;
  ops.fallocate = serve::Fallocate;
  ops.lseek = serve::Seek;
  ops.copy_file_range = serve::CopyRange;
  AddTemporary(&ops);
  serve::AddStatx(&ops);
  ops.ioctl = serve::Ioctl;
  return ops;
}

template <typename... Arguments>
void Refuse(fuse_req_t req, Arguments...) {
  fuse_reply_err(req, EROFS);
}

fuse_lowlevel_ops MakeReadOnly(fuse_lowlevel_ops ops) {
  ops.setattr = Refuse;
  ops.mknod = Refuse;
  ops.mkdir = Refuse;
  ops.unlink = Refuse;
  ops.rmdir = Refuse;
  ops.symlink = Refuse;
  ops.rename = Refuse;
  ops.link = Refuse;
  ops.write = Refuse;
  ops.setxattr = Refuse;
  ops.removexattr = Refuse;
  ops.create = Refuse;
  ops.fallocate = Refuse;
  ops.copy_file_range = Refuse;
  [](auto* these) {
    if constexpr (requires { these->tmpfile; }) these->tmpfile = Refuse;
  }(&ops);
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& ReadOnlyOperations() {
  static const fuse_lowlevel_ops ops = MakeReadOnly(Operations());
  return ops;
}

const fuse_lowlevel_ops& Operations() {
  static const fuse_lowlevel_ops ops = MakeOperations();
  return ops;
}

}  // namespace pkramfs
