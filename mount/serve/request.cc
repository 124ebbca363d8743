#include "mount/serve/request.h"

#include <sys/sysmacros.h>

#include <cerrno>

#include "mount/serve/caller.h"

namespace pkramfs {

Filesystem* Begin(fuse_req_t req, Request kind) {
  Server* const server = ServerOf(req);
  server->statistics.Count(kind);
  return server->fs;
}

timespec ToTimespec(Timestamp t) { return {t.seconds, static_cast<long>(t.nanos)}; }
Timestamp FromTimespec(const timespec& ts) {
  return {ts.tv_sec, static_cast<uint32_t>(ts.tv_nsec)};
}

namespace {

dev_t ToDevice(uint64_t rdev) {
  return makedev(static_cast<unsigned>(rdev >> 32), static_cast<unsigned>(rdev));
}

}  // namespace

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

void ReplyError(fuse_req_t req, int error) {
  ServerOf(req)->statistics.CountError(error);
  fuse_reply_err(req, error);
}

void ReplyStatus(fuse_req_t req, const Result<void>& result) { ReplyError(req, result.error()); }

void UndoLookup(Filesystem* fs, Ino ino) {
  if (!CurrentRequest::IsExecuted()) fs->Forget(ino, 1);
}

void ReplyEntry(fuse_req_t req, const Result<Attr>& made) {
  if (!made.ok()) {
    ReplyError(req, made.error());
    return;
  }
  Filesystem* const fs = ServerOf(req)->fs;
  const Attr attr = *made;
  const fuse_entry_param entry = ToEntry(attr);
  if (fuse_reply_entry(req, &entry) == -ENOENT) UndoLookup(fs, attr.ino);
}

void ReplyAttr(fuse_req_t req, const Result<Attr>& attr, double seconds) {
  if (!attr.ok()) {
    ReplyError(req, attr.error());
    return;
  }
  const struct stat st = ToStat(*attr);
  fuse_reply_attr(req, &st, seconds);
}

Context WriterOf(fuse_req_t req) {
  Context context = ContextOf(req);
  context.sets_times = !ServerOf(req)->writeback;
  return context;
}

void ForgetSize(fuse_req_t req, fuse_ino_t ino) {
  const Server& server = *ServerOf(req);
  // With writeback sizes are the kernel's.
  if (!server.writeback && server.forget_attributes) server.forget_attributes(ino);
}

}  // namespace pkramfs
