// A request in words, for the log.
#ifndef MOUNT_SERVE_REQUEST_NAME_H_
#define MOUNT_SERVE_REQUEST_NAME_H_

#include <linux/fuse.h>

#include <string>

namespace pkramfs {

// "WRITE, inode 12, offset 4096"; the offset where there is one.  `header` stands before the rest
// of the request, in memory of the largest one.
std::string NameOfRequest(const fuse_in_header& header);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_REQUEST_NAME_H_
