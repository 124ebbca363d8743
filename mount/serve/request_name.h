// A request in words, for the log.
#ifndef MOUNT_SERVE_REQUEST_NAME_H_
#define MOUNT_SERVE_REQUEST_NAME_H_

#include <linux/fuse.h>

#include <string>

namespace pkramfs {

// "WRITE, inode 12, offset 4096"; without an offset where there is none.  The rest of the request
// stands behind `header`, in memory that has room for the largest request.
std::string NameOfRequest(const fuse_in_header& header);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_REQUEST_NAME_H_
