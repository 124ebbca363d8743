// Handlers for contents: files are made, opened, read, written, allocated, copied.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "mount/serve/caller.h"
#include "mount/serve/handlers.h"
#include "mount/serve/request.h"

namespace pkramfs::serve {

namespace {

void ReplyCreate(fuse_req_t req, const Result<Attr>& made, fuse_file_info* fi) {
  if (!made.ok()) {
    ReplyError(req, made.error());
    return;
  }
  Filesystem* const fs = ServerOf(req)->fs;
  fi->keep_cache = 1;
  const Attr attr = *made;
  const fuse_entry_param entry = ToEntry(attr);
  if (fuse_reply_create(req, &entry, fi) == -ENOENT) UndoLookup(fs, attr.ino);
}

}  // namespace

void Create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  Filesystem* const fs = Begin(req, Request::kCreate);
  Result<Attr> made = fs->MakeNode(ContextOf(req), parent, name, (mode & 07777) | S_IFREG);
  if (!made.ok() && made.error() == EEXIST && (fi->flags & O_EXCL) == 0) {
    made = fs->Lookup(parent, name);
  }
  ReplyCreate(req, made, fi);
}

void MakeTemporary(fuse_req_t req, fuse_ino_t parent, mode_t mode, fuse_file_info* fi) {
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
// There is nothing to do, because written bytes are in the region.  But if the daemon is gone,
// Linux silently drops the pages that it cannot send, and only a request that follows fails.  So
// where there can be such pages, the kernel is made to send this request each time.
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

namespace {

// Makes the answer's pages present in this process.  Otherwise the kernel might wait for a page
// while it copies the answer; if the process is killed then, the request fails with EIO.  And many
// pages at once come faster than one after the other.
void MakePresent(const ReadAnswer& answer) {
  for (const iovec& part : answer.iov) {
    const auto from = reinterpret_cast<uintptr_t>(part.iov_base);
    const uintptr_t first = from / pkram::kPageSize * pkram::kPageSize;
    // This may fail, if somebody has cut the region's file.  Then the kernel's copy fails, too.
    madvise(reinterpret_cast<void*>(first), from + part.iov_len - first, MADV_POPULATE_READ);
  }
}

}  // namespace

void Read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  const Result<ReadAnswer> answer =
      Begin(req, Request::kRead)->Read(ino, static_cast<uint64_t>(offset), size);
  if (!answer.ok()) {
    ReplyError(req, answer.error());
    return;
  }
  MakePresent(*answer);
  uint64_t bytes = 0;
  for (const iovec& part : (*answer).iov) bytes += part.iov_len;
  ServerOf(req)->statistics.CountRead(bytes);
  // The answer's pin holds the pages until the kernel has copied them.
  fuse_reply_iov(req, (*answer).iov.data(), static_cast<int>((*answer).iov.size()));
}

namespace {

// Whether the bytes come straight from a program that asked for O_DIRECT.  The kernel names a
// lock owner only then: not when it sends what it has put into its cache, of the same file.
bool IsDirect(const fuse_file_info& fi) { return (fi.flags & O_DIRECT) != 0 && fi.lock_owner != 0; }

// Whether a request that fills a file up to `end` makes it longer; then its size is forgotten.
bool MakesLonger(fuse_req_t req, fuse_ino_t ino, uint64_t end) {
  const Result<Attr> attr = ServerOf(req)->fs->GetAttr(ino);
  if (!attr.ok() || end <= (*attr).size) return false;
  ForgetSize(req, ino);
  return true;
}

}  // namespace

void Write(fuse_req_t req, fuse_ino_t ino, const char* bytes, size_t size, off_t offset,
           fuse_file_info* fi) {
  Filesystem* const fs = Begin(req, Request::kWrite);
  const bool longer = MakesLonger(req, ino, static_cast<uint64_t>(offset) + size);
  if (longer && IsDirect(*fi)) {
    // The kernel's cache may have the file's end as zeros, if somebody has read it meanwhile. Linux
    // takes the answer "0 bytes" for "not possible", and sends the same bytes through its cache.
    fuse_reply_write(req, 0);
    return;
  }
  const auto sent = fi->writepage ? Filesystem::Sent::kLater : Filesystem::Sent::kByCaller;
  const Result<size_t> written = fs->Write(WriterOf(req), ino, static_cast<uint64_t>(offset),
                                           {reinterpret_cast<const std::byte*>(bytes), size}, sent);
  if (!written.ok()) {
    ReplyError(req, written.error());
  } else if (fi->writepage && *written < size) {
    // The kernel looks at the error only, and would take a short write for a whole one.
    ReplyError(req, ENOSPC);
  } else {
    ServerOf(req)->statistics.CountWritten(*written);
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
    // Data that the kernel still keeps would be holes here.  After this answer the kernel says
    // itself that there are none.
    fuse_reply_err(req, ENOSYS);
    return;
  }
  const Result<uint64_t> found = fs->Seek(ino, static_cast<uint64_t>(offset), whence);
  if (found.ok()) {
    fuse_reply_lseek(req, static_cast<off_t>(*found));
  } else {
    ReplyError(req, found.error());
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
    ReplyError(req, copied.error());
  }
}

}  // namespace pkramfs::serve
