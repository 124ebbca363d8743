// What all handlers of requests share: the server that a request came to, and replies made of the
// filesystem's results.
#ifndef MOUNT_SERVE_REQUEST_H_
#define MOUNT_SERVE_REQUEST_H_

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include "fs/filesystem.h"
#include "fs/result.h"
#include "fs/types.h"
#include "mount/serve/server.h"
#include "mount/serve/statistics.h"

namespace pkramfs {

// How long the kernel may cache, in seconds.  Nobody but this filesystem changes its files.
inline constexpr double kForever = 1e9;

inline Server* ServerOf(fuse_req_t req) { return static_cast<Server*>(fuse_req_userdata(req)); }

// Counts the request and gives the filesystem that answers it.
Filesystem* Begin(fuse_req_t req, Request kind);

// The context of a change of contents.  With writeback the kernel keeps the times itself: it has
// set them before it sent the request, and tells them later.
Context WriterOf(fuse_req_t req);

timespec ToTimespec(Timestamp t);
Timestamp FromTimespec(const timespec& ts);
// The region keeps devices as major << 32 | minor, whatever the host packs.
uint64_t FromDevice(dev_t device);
struct stat ToStat(const Attr& attr);
fuse_entry_param ToEntry(const Attr& attr);

// Each answers `req` and ends it.
// `error` is an errno; 0 says that it is done.
void ReplyError(fuse_req_t req, int error);
void ReplyStatus(fuse_req_t req, const Result<void>& result);
// The kernel may tell the attributes to others for `seconds` without asking.
void ReplyAttr(fuse_req_t req, const Result<Attr>& attr, double seconds = kForever);
void ReplyEntry(fuse_req_t req, const Result<Attr>& made);

// To be called when the kernel did not take a reply with a name, because the caller was
// interrupted. The lookup that the reply counted is taken back.  If a predecessor has executed the
// request, nothing is taken back: the kernel may have that one's answer.
void UndoLookup(Filesystem* fs, Ino ino);

// To be called before a size changes.  While such a call is under way, the kernel passes on the
// sizes that we answer, but keeps the one that it has cached, and would tell the cached one to the
// next program that asks.  So the kernel must forget it first.  Then it asks us each time, until
// the call returns.
void ForgetSize(fuse_req_t req, fuse_ino_t ino);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_REQUEST_H_
