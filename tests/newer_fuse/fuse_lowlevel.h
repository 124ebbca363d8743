// What libfuse 3.17 and 3.18 add to the low-level interface, on top of an older one, so that what
// is written for them is compiled everywhere.
#ifndef TESTS_NEWER_FUSE_FUSE_LOWLEVEL_H_
#define TESTS_NEWER_FUSE_FUSE_LOWLEVEL_H_

#define fuse_lowlevel_ops older_fuse_lowlevel_ops
#include_next <fuse_lowlevel.h>
#undef fuse_lowlevel_ops

#include <sys/stat.h>

struct fuse_lowlevel_ops : older_fuse_lowlevel_ops {
  void (*tmpfile)(fuse_req_t req, fuse_ino_t parent, mode_t mode, fuse_file_info* fi);
  void (*statx)(fuse_req_t req, fuse_ino_t ino, int flags, int mask, fuse_file_info* fi);
};
extern "C" int fuse_reply_statx(fuse_req_t req, int flags, struct statx* stx, double timeout);

#endif  // TESTS_NEWER_FUSE_FUSE_LOWLEVEL_H_
