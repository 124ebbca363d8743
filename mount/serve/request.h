// What every answer to a request of the kernel is made of: the server that a request came to, and
// replies from the filesystem's results.
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

// Nobody but this filesystem changes what the kernel has cached of it.  In seconds.
inline constexpr double kForever = 1e9;

inline Server* ServerOf(fuse_req_t req) { return static_cast<Server*>(fuse_req_userdata(req)); }

// Counts the request and gives the filesystem that answers it.
Filesystem* Begin(fuse_req_t req, Request kind);

// Who changes contents.  With writeback the kernel keeps the times of that itself, has set them
// before it sent the request, and tells them later.
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

// After a reply with a name that the kernel did not take: the caller was interrupted, and the
// lookup that came with it is none.  But of a request that a predecessor has executed the kernel
// may have its answer.
void UndoLookup(Filesystem* fs, Ino ino);

// Before a size changes.  While such a call is under way the kernel passes on the sizes that we
// answer, but keeps the one that it has; and it would tell that to the next who asks.  So it
// forgets it first: then it asks us each time, until the call returns.
void ForgetSize(fuse_req_t req, fuse_ino_t ino);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_REQUEST_H_
