#include "mount/server.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "mount/caller.h"
#include "mount/control.h"
#include "mount/region_file.h"

namespace pkramfs {
namespace {

// Nobody but this filesystem changes what the kernel has cached of it.
constexpr double kForever = 1e9;
constexpr unsigned kMaxRequest = 1 << 20;

Server* ServerOf(fuse_req_t req) { return static_cast<Server*>(fuse_req_userdata(req)); }

// Counts the request and gives the filesystem that answers it.
Filesystem* Begin(fuse_req_t req, Request kind) {
  Server* const server = ServerOf(req);
  server->statistics.Count(kind);
  return server->fs;
}

timespec ToTimespec(Timestamp t) { return {t.seconds, static_cast<long>(t.nanos)}; }
Timestamp FromTimespec(const timespec& ts) {
  return {ts.tv_sec, static_cast<uint32_t>(ts.tv_nsec)};
}

// The region keeps devices as major << 32 | minor, whatever the host packs.
dev_t ToDevice(uint64_t rdev) {
  return makedev(static_cast<unsigned>(rdev >> 32), static_cast<unsigned>(rdev));
}
uint64_t FromDevice(dev_t device) { return uint64_t{major(device)} << 32 | minor(device); }

struct stat ToStat(const Attr& attr) {
  struct stat st {};
  st.st_ino = attr.ino;
  st.st_mode = attr.mode;
  st.st_nlink = attr.nlink;
  st.st_uid = attr.uid;
  st.st_gid = attr.gid;
  st.st_rdev = ToDevice(attr.rdev);
  st.st_size = static_cast<off_t>(attr.size);
  st.st_blocks = static_cast<blkcnt_t>(attr.blocks);
  // Some programs punch holes of this size (fallocate -d): a larger one costs data.
  st.st_blksize = static_cast<blksize_t>(pkram::kPageSize);
  st.st_atim = ToTimespec(attr.atime);
  st.st_mtim = ToTimespec(attr.mtime);
  st.st_ctim = ToTimespec(attr.ctime);
  return st;
}

fuse_entry_param ToEntry(const Attr& attr) {
  fuse_entry_param entry{};
  entry.ino = attr.ino;
  entry.generation = attr.generation;
  entry.attr = ToStat(attr);
  entry.attr_timeout = kForever;
  entry.entry_timeout = kForever;
  return entry;
}

void ReplyStatus(fuse_req_t req, const Result<void>& result) {
  fuse_reply_err(req, result.error());
}

// A reply that the kernel did not take (the caller was interrupted) undoes the
// lookup that came with it.
void ReplyEntry(fuse_req_t req, const Result<Attr>& made) {
  if (!made.ok()) {
    fuse_reply_err(req, made.error());
    return;
  }
  Filesystem* const fs = ServerOf(req)->fs;
  const Attr attr = *made;
  const fuse_entry_param entry = ToEntry(attr);
  if (fuse_reply_entry(req, &entry) == -ENOENT) fs->Forget(attr.ino, 1);
}

void ReplyAttr(fuse_req_t req, const Result<Attr>& attr) {
  if (!attr.ok()) {
    fuse_reply_err(req, attr.error());
    return;
  }
  const struct stat st = ToStat(*attr);
  fuse_reply_attr(req, &st, kForever);
}

// --- The session ------------------------------------------------------------------

void Init(void* userdata, fuse_conn_info* conn) {
  constexpr unsigned kWanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_IOCTL_DIR |
                               FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                               FUSE_CAP_PARALLEL_DIROPS |
                               FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA |
                               FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK;
  conn->want |= conn->capable & kWanted;
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
  conn->want |= conn->capable & FUSE_CAP_HANDLE_KILLPRIV_V2;  // see handshake.h
#endif
  auto* const server = static_cast<Server*>(userdata);
  if (!server->export_handles) conn->want &= ~static_cast<unsigned>(FUSE_CAP_EXPORT_SUPPORT);
  // Opens are not sent (see Open), so truncation must come as a request of its own;
  // nobody else changes contents, so a new mtime does not mean stale pages; and
  // splicing was measured to be slower than copying once.
  // After a direct write that a program submitted (libaio, io_uring) the kernel drops no cached
  // pages, and readers would see old bytes for good: so it waits for each (no ASYNC_DIO).
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA |
                                       FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                       FUSE_CAP_SPLICE_MOVE | FUSE_CAP_HANDLE_KILLPRIV);
  if (server->writeback) conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
  conn->max_write = kMaxRequest;
  conn->max_readahead = kMaxRequest;
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  conn->time_gran = 1;
  // libfuse wants to hear it twice: as an option, and here.
  if (server->max_read != 0) conn->max_read = server->max_read;
}

// --- Names ------------------------------------------------------------------------

void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  const Result<Attr> found = Begin(req, Request::kLookup)->Lookup(parent, name);
  if (!found.ok() && found.error() == ENOENT) {
    fuse_entry_param nothing{};
    nothing.entry_timeout = kForever;
    fuse_reply_entry(req, &nothing);
    return;
  }
  ReplyEntry(req, found);
}

void Forget(fuse_req_t req, fuse_ino_t ino, uint64_t count) {
  Begin(req, Request::kForget)->Forget(ino, count);
  fuse_reply_none(req);
}

void ForgetMulti(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  Filesystem* const fs = Begin(req, Request::kForget);
  for (size_t i = 0; i < count; ++i) fs->Forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(req);
}

void MakeNode(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  Filesystem* const fs = Begin(req, Request::kMakeNode);
  ReplyEntry(req, fs->MakeNode(ContextOf(req), parent, name, mode, FromDevice(rdev)));
}

void MakeDirectory(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  Filesystem* const fs = Begin(req, Request::kMakeDirectory);
  ReplyEntry(req, fs->MakeDirectory(ContextOf(req), parent, name, mode));
}

void MakeSymlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kSymlink);
  ReplyEntry(req, fs->MakeSymlink(ContextOf(req), parent, name, target));
}

void Link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kLink);
  ReplyEntry(req, fs->Link(ContextOf(req), ino, parent, name));
}

void Unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kUnlink);
  ReplyStatus(req, fs->Unlink(ContextOf(req), parent, name));
}

void RemoveDirectory(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kRemoveDirectory);
  ReplyStatus(req, fs->RemoveDirectory(ContextOf(req), parent, name));
}

void Rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags) {
  Filesystem* const fs = Begin(req, Request::kRename);
  ReplyStatus(req, fs->Rename(ContextOf(req), parent, name, new_parent, new_name, flags));
}

void ReadLink(fuse_req_t req, fuse_ino_t ino) {
  const Result<std::string> target = Begin(req, Request::kReadLink)->ReadLink(ino);
  if (!target.ok()) {
    fuse_reply_err(req, target.error());
    return;
  }
  fuse_reply_readlink(req, (*target).c_str());
}

// --- Attributes -------------------------------------------------------------------

void GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  ReplyAttr(req, Begin(req, Request::kGetAttr)->GetAttr(ino));
}

// Before a size changes.  While such a call is under way the kernel passes on the sizes that we
// answer, but keeps the one that it has; and it would tell that to the next who asks.  So it forgets
// it first: then it asks us each time, until the call returns.
void ForgetSize(fuse_req_t req, fuse_ino_t ino) {
  const Server& server = *ServerOf(req);
  // With writeback sizes are the kernel's.
  if (!server.writeback && server.forget_attributes) server.forget_attributes(ino);
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
  ReplyAttr(req, fs->SetAttr(context, ino, change));
}

// As GetAttr, with the birth.  A template: the reply is declared by newer libraries only.
template <typename Req>
void Statx(Req req, fuse_ino_t ino, int, int, fuse_file_info*) {
  const Result<Attr> attr = Begin(req, Request::kGetAttr)->GetAttr(ino);
  if (!attr.ok()) {
    fuse_reply_err(req, attr.error());
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

void StatFs(fuse_req_t req, fuse_ino_t) {
  const FsStats stats = Begin(req, Request::kStatFs)->StatFs();
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

// --- Extended attributes ------------------------------------------------------------

void ReplyBytes(fuse_req_t req, const Result<std::string>& bytes, size_t size) {
  if (!bytes.ok()) {
    fuse_reply_err(req, bytes.error());
  } else if (size == 0) {
    fuse_reply_xattr(req, (*bytes).size());
  } else if ((*bytes).size() > size) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, (*bytes).data(), (*bytes).size());
  }
}

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

// --- Contents ----------------------------------------------------------------------

void ReplyCreate(fuse_req_t req, const Result<Attr>& made, fuse_file_info* fi) {
  if (!made.ok()) {
    fuse_reply_err(req, made.error());
    return;
  }
  Filesystem* const fs = ServerOf(req)->fs;
  fi->keep_cache = 1;
  const Attr attr = *made;
  const fuse_entry_param entry = ToEntry(attr);
  if (fuse_reply_create(req, &entry, fi) == -ENOENT) fs->Forget(attr.ino, 1);
}

void Create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  Filesystem* const fs = Begin(req, Request::kCreate);
  Result<Attr> made = fs->MakeNode(ContextOf(req), parent, name, (mode & 07777) | S_IFREG);
  if (!made.ok() && made.error() == EEXIST && (fi->flags & O_EXCL) == 0) {
    made = fs->Lookup(parent, name);
  }
  ReplyCreate(req, made, fi);
}

[[maybe_unused]] void MakeTemporary(fuse_req_t req, fuse_ino_t parent, mode_t mode,
                                    fuse_file_info* fi) {
  Filesystem* const fs = Begin(req, Request::kMakeTemporary);
  const Result<Attr> made = fs->MakeTemporary(ContextOf(req), parent, mode);
  ReplyCreate(req, made, fi);
}

// File handles carry no state, so the kernel need not ask: after the first ENOSYS
// it opens and closes by itself.
void Open(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  Begin(req, Request::kOpen);
  fuse_reply_err(req, ENOSYS);
}
void OpenDirectory(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  Begin(req, Request::kOpenDirectory);
  if (!ServerOf(req)->auto_unmount) {
    fuse_reply_err(req, ENOSYS);
    return;
  }
  // fusermount3 unmounts only where opening the root fails when the daemon is gone.
  fi->cache_readdir = fi->keep_cache = 1;  // as after ENOSYS
  fuse_reply_open(req, fi);
}
// What has been written is in the region, and there is nothing to do.  But Linux drops pages
// that a daemon is not there any more to take, in silence, and only the request that follows
// them says that it is not: so where there can be such pages, it is asked for each time.
void Flush(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  Begin(req, Request::kFlush);
  fuse_reply_err(req, ServerOf(req)->writeback ? 0 : ENOSYS);
}
void Fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) {
  Begin(req, Request::kFsync);
  fuse_reply_err(req, 0);
}
void FsyncDirectory(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) {
  Begin(req, Request::kFsync);
  fuse_reply_err(req, ENOSYS);
}
void Release(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  Begin(req, Request::kRelease);
  fuse_reply_err(req, 0);
}
void ReleaseDirectory(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  Begin(req, Request::kReleaseDirectory);
  fuse_reply_err(req, 0);
}

void Read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  const Result<ReadAnswer> answer =
      Begin(req, Request::kRead)->Read(ino, static_cast<uint64_t>(offset), size);
  if (!answer.ok()) {
    fuse_reply_err(req, answer.error());
    return;
  }
  // The answer's pin holds the pages until the kernel has copied them.
  fuse_reply_iov(req, (*answer).iov.data(), static_cast<int>((*answer).iov.size()));
}

// Who changes contents.  With writeback the kernel keeps the times of that itself, has set them
// before it sent this, and tells them later.
Context WriterOf(fuse_req_t req) {
  Context context = ContextOf(req);
  context.sets_times = !ServerOf(req)->writeback;
  return context;
}

// Whether the bytes come straight from a program that asked for O_DIRECT.  The kernel names a
// lock owner only then: not when it sends what it has put into its cache, of the same file.
bool IsDirect(const fuse_file_info& fi) {
  return (fi.flags & O_DIRECT) != 0 && fi.lock_owner != 0;
}

// Whether a request that fills a file up to `end` makes it longer; then its size is forgotten.
bool MakesLonger(fuse_req_t req, fuse_ino_t ino, uint64_t end) {
  const Result<Attr> attr = ServerOf(req)->fs->GetAttr(ino);
  if (!attr.ok() || end <= (*attr).size) return false;
  ForgetSize(req, ino);
  return true;
}

void Write(fuse_req_t req, fuse_ino_t ino, const char* bytes, size_t size, off_t offset,
           fuse_file_info* fi) {
  Filesystem* const fs = Begin(req, Request::kWrite);
  const bool longer = MakesLonger(req, ino, static_cast<uint64_t>(offset) + size);
  if (longer && IsDirect(*fi)) {
    // Where the file ends may have been read into the cache meanwhile, as zeros.  Linux takes
    // "0 bytes" for "not possible so", and sends the same bytes through its cache.
    fuse_reply_write(req, 0);
    return;
  }
  const auto sent = fi->writepage ? Filesystem::Sent::kLater : Filesystem::Sent::kByCaller;
  const Result<size_t> written = fs->Write(WriterOf(req), ino, static_cast<uint64_t>(offset),
                                           {reinterpret_cast<const std::byte*>(bytes), size}, sent);
  if (!written.ok()) {
    fuse_reply_err(req, written.error());
  } else if (fi->writepage && *written < size) {
    // The kernel would take it for all: it looks at the error only.
    fuse_reply_err(req, ENOSPC);
  } else {
    fuse_reply_write(req, *written);
  }
}

void Fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
               fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kFallocate);
  const auto from = static_cast<uint64_t>(offset), bytes = static_cast<uint64_t>(length);
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0) MakesLonger(req, ino, from + bytes);
  ReplyStatus(req, fs->Fallocate(WriterOf(req), ino, from, bytes, mode));
}

void Seek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kSeek);
  if (ServerOf(req)->writeback) {
    // What the kernel still keeps would be holes here: it says itself that there are none.
    fuse_reply_err(req, ENOSYS);
    return;
  }
  const Result<uint64_t> found = fs->Seek(ino, static_cast<uint64_t>(offset), whence);
  if (found.ok()) {
    fuse_reply_lseek(req, static_cast<off_t>(*found));
  } else {
    fuse_reply_err(req, found.error());
  }
}

void CopyRange(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info*, fuse_ino_t to,
               off_t to_offset, fuse_file_info*, size_t size, int) {
  Filesystem* const fs = Begin(req, Request::kCopyRange);
  MakesLonger(req, to, static_cast<uint64_t>(to_offset) + size);
  // A reply has 32 bits to say how much it was.
  constexpr size_t kMost = 0xfffff000;
  const Result<size_t> copied =
      fs->CopyRange(WriterOf(req), from, static_cast<uint64_t>(from_offset), to,
                    static_cast<uint64_t>(to_offset), std::min(size, kMost));
  if (copied.ok()) {
    fuse_reply_write(req, *copied);
  } else {
    fuse_reply_err(req, copied.error());
  }
}

// --- Directories --------------------------------------------------------------------

struct Listed {
  std::string name;
  Ino ino;
  uint32_t type;
  uint64_t cookie;
};

// As many entries as a buffer of `size` can hold at most.
Result<std::vector<Listed>> List(Filesystem* fs, Ino ino, uint64_t cookie, size_t size) {
  std::vector<Listed> entries;
  size_t used = 0;
  const Result<void> listed = fs->ReadDirectory(ino, cookie, [&](const DirEntry& e) {
    entries.push_back({std::string(e.name), e.ino, e.type, e.cookie});
    used += 24 + e.name.size();  // the least that an entry takes
    return used < size;
  });
  if (!listed.ok()) return listed.as_errno();
  return entries;
}

void ReadDirectory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kReadDirectory);
  const auto entries = List(fs, ino, static_cast<uint64_t>(offset), size);
  if (!entries.ok()) {
    fuse_reply_err(req, entries.error());
    return;
  }
  std::vector<char> buffer(size);
  size_t used = 0;
  for (const Listed& e : *entries) {
    struct stat st {};
    st.st_ino = e.ino;
    st.st_mode = e.type << 12;
    const size_t n = fuse_add_direntry(req, buffer.data() + used, size - used, e.name.c_str(), &st,
                                       static_cast<off_t>(e.cookie));
    if (n > size - used) break;
    used += n;
  }
  fuse_reply_buf(req, buffer.data(), used);
}

// Each name is looked up after the list was made: what went meanwhile is left out.
void ReadDirectoryPlus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kReadDirectoryPlus);
  const auto entries = List(fs, ino, static_cast<uint64_t>(offset), size);
  if (!entries.ok()) {
    fuse_reply_err(req, entries.error());
    return;
  }
  std::vector<char> buffer(size);
  std::vector<Ino> looked_up;
  size_t used = 0;
  for (const Listed& e : *entries) {
    fuse_entry_param entry{};
    const bool dots = e.name == "." || e.name == "..";
    if (dots) {
      entry.attr.st_ino = e.ino;
      entry.attr.st_mode = S_IFDIR;
    } else {
      const Result<Attr> found = fs->Lookup(ino, e.name);
      if (!found.ok()) continue;
      entry = ToEntry(*found);
      looked_up.push_back(entry.ino);
    }
    const size_t n = fuse_add_direntry_plus(req, buffer.data() + used, size - used, e.name.c_str(),
                                            &entry, static_cast<off_t>(e.cookie));
    if (n > size - used) {
      if (!dots) {
        fs->Forget(entry.ino, 1);
        looked_up.pop_back();
      }
      break;
    }
    used += n;
  }
  if (fuse_reply_buf(req, buffer.data(), used) == -ENOENT) {
    for (const Ino child : looked_up) fs->Forget(child, 1);
  }
}

// --- pkramctl ------------------------------------------------------------------------

void ReplyStatistics(fuse_req_t req) {
  Server* const server = ServerOf(req);
  const std::string json = Describe(*server);
  ControlReply reply{};
  reply.size = static_cast<uint32_t>(std::min(json.size(), sizeof(reply.json)));
  std::memcpy(reply.json, json.data(), reply.size);
  fuse_reply_ioctl(req, 0, &reply, sizeof(reply));
}

void ReplyResize(fuse_req_t req, const void* in) {
  ControlResize resize;
  std::memcpy(&resize, in, sizeof(resize));
  std::optional<uint64_t> pages, inodes;
  if (resize.size != kControlKeep) pages = RegionPages(resize.size);
  if (resize.inodes != kControlKeep) inodes = resize.inodes;
  const absl::Status done = ServerOf(req)->fs->Resize(pages, inodes);
  const std::string_view error(done.message().data(), done.message().size());
  resize.error[error.copy(resize.error, sizeof(resize.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &resize, sizeof(resize));
}

void Ioctl(fuse_req_t req, fuse_ino_t, unsigned command, void*, fuse_file_info*, unsigned,
           const void* in, size_t in_size, size_t out_size) {
  Filesystem* const fs = Begin(req, Request::kIoctl);
  if (command == kControlStatistics && out_size >= sizeof(ControlReply)) {
    ReplyStatistics(req);
    return;
  }
  if (command != kControlResize && command != kControlFreeze && command != kControlThaw) {
    fuse_reply_err(req, ENOTTY);
    return;
  }
  const std::optional<uid_t> uid = UserOf(req);
  if (uid != uid_t{0} && uid != geteuid()) {
    fuse_reply_err(req, EPERM);
  } else if (command == kControlFreeze || command == kControlThaw) {
    const int error =
        command == kControlFreeze ? (fs->Freeze() ? 0 : EBUSY) : (fs->Thaw() ? 0 : EINVAL);
    error != 0 ? fuse_reply_err(req, error) : fuse_reply_ioctl(req, 0, nullptr, 0);
  } else if (in_size < sizeof(ControlResize) || out_size < sizeof(ControlResize)) {
    fuse_reply_err(req, EINVAL);
  } else {
    ReplyResize(req, in);
  }
}

// What the library at hand may not have yet: O_TMPFILE since 3.17, statx since 3.18.
template <typename Ops>
void SetNewer(Ops* ops) {
  if constexpr (requires { ops->tmpfile; }) ops->tmpfile = MakeTemporary;
  if constexpr (requires { ops->statx; }) ops->statx = Statx<fuse_req_t>;
}

fuse_lowlevel_ops MakeOperations() {
  fuse_lowlevel_ops ops{};
  ops.init = Init;
  ops.lookup = Lookup;
  ops.forget = Forget;
  ops.forget_multi = ForgetMulti;
  ops.getattr = GetAttr;
  ops.setattr = SetAttr;
  ops.readlink = ReadLink;
  ops.mknod = MakeNode;
  ops.mkdir = MakeDirectory;
  ops.unlink = Unlink;
  ops.rmdir = RemoveDirectory;
  ops.symlink = MakeSymlink;
  ops.rename = Rename;
  ops.link = Link;
  ops.open = Open;
  ops.read = Read;
  ops.write = Write;
  ops.flush = Flush;
  ops.release = Release;
  ops.fsync = Fsync;
  ops.opendir = OpenDirectory;
  ops.readdir = ReadDirectory;
  ops.readdirplus = ReadDirectoryPlus;
  ops.releasedir = ReleaseDirectory;
  ops.fsyncdir = FsyncDirectory;
  ops.statfs = StatFs;
  ops.setxattr = SetXattr;
  ops.getxattr = GetXattr;
  ops.listxattr = ListXattrs;
  ops.removexattr = RemoveXattr;
  ops.create = Create;
  ops.fallocate = Fallocate;
  ops.lseek = Seek;
  ops.copy_file_range = CopyRange;
  SetNewer(&ops);
  ops.ioctl = Ioctl;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& Operations() {
  static const fuse_lowlevel_ops ops = MakeOperations();
  return ops;
}

}  // namespace pkramfs
