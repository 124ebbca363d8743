// Translates requests of the kernel: decode one, one call into the filesystem,
// one reply.
#ifndef MOUNT_SERVER_H_
#define MOUNT_SERVER_H_

#include <fuse_lowlevel.h>

#include <functional>
#include <mutex>
#include <string>

#include "fs/filesystem.h"
#include "mount/handshake.h"
#include "mount/statistics.h"
#include "pkram/region.h"

namespace pkramfs {

// What the requests of one session are answered from.
struct Server {
  Filesystem* fs = nullptr;
  pkram::Region* region = nullptr;
  std::string node;
  bool export_handles = true;
  bool writeback = false;
  std::function<void()> ready;      // called when the kernel has begun to ask
  std::function<void()> connected;  // called once, when it has taken our answer
  std::once_flag connected_once;
  Handshake handshake;
  Statistics statistics;
};

// The operations of a session whose user data is a Server.
const fuse_lowlevel_ops& Operations();

}  // namespace pkramfs

#endif  // MOUNT_SERVER_H_
