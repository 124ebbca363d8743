// Attributes of files and of the filesystem, extended ones, too.
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "mount/serve/caller.h"
#include "mount/serve/handlers.h"
#include "mount/serve/request.h"

namespace pkramfs::serve {

void GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  ReplyAttr(req, Begin(req, Request::kGetAttr)->GetAttr(ino));
}

void SetAttr(fuse_req_t req, fuse_ino_t ino, struct stat* st, int what, fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kSetAttr);
  const Context context = ContextOf(req);
  AttrChange change;
  const auto take = [&](int fuse_bit, uint32_t bit) {
    if ((what & fuse_bit) != 0) change.what |= bit;
    return (what & fuse_bit) != 0;
  };
  if (take(FUSE_SET_ATTR_MODE, AttrChange::kSetMode)) change.mode = st->st_mode;
  if (take(FUSE_SET_ATTR_UID, AttrChange::kSetUid)) change.uid = st->st_uid;
  if (take(FUSE_SET_ATTR_GID, AttrChange::kSetGid)) change.gid = st->st_gid;
  if (take(FUSE_SET_ATTR_SIZE, AttrChange::kSetSize)) {
    change.size = static_cast<uint64_t>(st->st_size);
    ForgetSize(req, ino);
  }
  if (take(FUSE_SET_ATTR_ATIME, AttrChange::kSetAtime)) change.atime = FromTimespec(st->st_atim);
  if (take(FUSE_SET_ATTR_MTIME, AttrChange::kSetMtime)) change.mtime = FromTimespec(st->st_mtim);
  if (take(FUSE_SET_ATTR_CTIME, AttrChange::kSetCtime)) change.ctime = FromTimespec(st->st_ctim);
  if (take(FUSE_SET_ATTR_ATIME_NOW, AttrChange::kSetAtime)) change.atime = context.now;
  if (take(FUSE_SET_ATTR_MTIME_NOW, AttrChange::kSetMtime)) change.mtime = context.now;
  // Linux takes the rest of an answer for valid before it takes the size, and tells the old size in
  // between. So it must ask each time.
  const bool resizes = (change.what & AttrChange::kSetSize) != 0;
  ReplyAttr(req, fs->SetAttr(context, ino, change), resizes ? 0 : kForever);
}

namespace {

// GetAttr with the birth time.  It is a template, because only newer libraries declare the reply.
template <typename Req>
void Statx(Req req, fuse_ino_t ino, int, int, fuse_file_info*) {
  const Result<Attr> attr = Begin(req, Request::kGetAttr)->GetAttr(ino);
  if (!attr.ok()) {
    ReplyError(req, attr.error());
    return;
  }
  const struct stat st = ToStat(*attr);
  const auto time = [](Timestamp t) {
    struct statx_timestamp to {};
    to.tv_sec = t.seconds;
    to.tv_nsec = t.nanos;
    return to;
  };
  struct statx stx {};
  stx.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
  stx.stx_blksize = static_cast<uint32_t>(st.st_blksize);
  stx.stx_nlink = static_cast<uint32_t>(st.st_nlink);
  stx.stx_uid = st.st_uid;
  stx.stx_gid = st.st_gid;
  stx.stx_mode = static_cast<uint16_t>(st.st_mode);
  stx.stx_ino = st.st_ino;
  stx.stx_size = static_cast<uint64_t>(st.st_size);
  stx.stx_blocks = static_cast<uint64_t>(st.st_blocks);
  stx.stx_atime = time((*attr).atime);
  stx.stx_btime = time((*attr).btime);
  stx.stx_ctime = time((*attr).ctime);
  stx.stx_mtime = time((*attr).mtime);
  stx.stx_rdev_major = major(st.st_rdev);
  stx.stx_rdev_minor = minor(st.st_rdev);
  fuse_reply_statx(req, 0, &stx, kForever);
}

}  // namespace

void AddStatx(fuse_lowlevel_ops* ops) {
  [](auto* newer) {
    if constexpr (requires { newer->statx; }) newer->statx = Statx<fuse_req_t>;
  }(ops);
}

void StatFs(fuse_req_t req, fuse_ino_t) {
  Filesystem* const fs = Begin(req, Request::kStatFs);
  fs->Recheck();
  const FsStats stats = fs->StatFs();
  struct statvfs st {};
  st.f_bsize = pkram::kPageSize;
  st.f_frsize = pkram::kPageSize;
  st.f_blocks = stats.pages;
  st.f_bfree = st.f_bavail = stats.free_pages;
  st.f_files = stats.inodes;
  st.f_ffree = st.f_favail = stats.free_inodes;
  st.f_namemax = kMaxName;
  fuse_reply_statfs(req, &st);
}

namespace {

void ReplyBytes(fuse_req_t req, const Result<std::string>& bytes, size_t size) {
  if (!bytes.ok()) {
    ReplyError(req, bytes.error());
  } else if (size == 0) {
    fuse_reply_xattr(req, (*bytes).size());
  } else if ((*bytes).size() > size) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, (*bytes).data(), (*bytes).size());
  }
}

}  // namespace

void GetXattr(fuse_req_t req, fuse_ino_t ino, const char* name, size_t size) {
  ReplyBytes(req, Begin(req, Request::kGetXattr)->GetXattr(ino, name), size);
}

void ListXattrs(fuse_req_t req, fuse_ino_t ino, size_t size) {
  ReplyBytes(req, Begin(req, Request::kListXattrs)->ListXattrs(ContextOf(req), ino), size);
}

void SetXattr(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value, size_t size,
              int flags) {
  Filesystem* const fs = Begin(req, Request::kSetXattr);
  ReplyStatus(req, fs->SetXattr(ContextOf(req), ino, name, {value, size}, flags));
}

void RemoveXattr(fuse_req_t req, fuse_ino_t ino, const char* name) {
  Filesystem* const fs = Begin(req, Request::kRemoveXattr);
  ReplyStatus(req, fs->RemoveXattr(ContextOf(req), ino, name));
}

}  // namespace pkramfs::serve
