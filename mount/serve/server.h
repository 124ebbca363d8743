// Translates requests of the kernel: decode one, one call into the filesystem,
// one reply.
#ifndef MOUNT_SERVE_SERVER_H_
#define MOUNT_SERVE_SERVER_H_

#include <fuse_lowlevel.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "fs/filesystem.h"
#include "mount/serve/in_flight.h"
#include "mount/serve/statistics.h"
#include "pkram/checkpoints.h"
#include "pkram/region.h"

namespace pkramfs {

struct CheckpointState {
  uint64_t done = 0, of = 0;  // pages, of one that is being made; else 0
  std::string file;           // of the last one; "" when there was none
  int64_t seconds = 0;        // since 1970
  std::string error;          // of the last one that could not be made, if none was made since
  pkram::Checkpoints::Made made;
  std::optional<uint64_t> changed;  // pages, since the last one
};

// What the requests of one session are answered from.
struct Server {
  Filesystem* fs = nullptr;
  pkram::Region* region = nullptr;
  InFlight* in_flight = nullptr;
  std::string node;
  bool export_handles = true;
  bool writeback = false;
  bool auto_unmount = false;
  bool takeover = false;
  std::string checkpoint_file;
  uint64_t checkpoint_every = 0;  // seconds; 0: never
  bool checkpoint_at_exit = true;
  uint32_t max_read = 0;  // bytes that the kernel may ask for at once; 0: as many as it likes
  // Another program goes on in this one's place: returns only when it cannot.  Nothing without a
  // keeper.
  std::function<absl::Status(const std::string& path)> upgrade;
  // Has the kernel ask for an inode's attributes again; nothing where there is no kernel.
  std::function<void(Ino)> forget_attributes;
  // After the region has another size: what will go wrong later, as a sentence, or "".
  std::function<std::string()> resized;
  // Makes an image of the region, as it is in a moment, of the file at `path`.
  std::function<absl::StatusOr<pkram::Checkpoints::Made>(const std::string& path,
                                                         const pkram::Progress& progress)>
      checkpoint;
  // How far one is, and what the last one was.
  std::function<CheckpointState()> checkpoint_state;
  Statistics statistics;
};

// What a daemon says of itself, as JSON: "pid", "keeper", "program", "version", "node", "options",
// "takeovers", "checkpoint", "requests" by kind, "bytes", "errors" by errno, "inodes", "pages",
// "journal_waits".
std::string Describe(const Server& server);

// The operations of a session whose user data is a Server.
const fuse_lowlevel_ops& Operations();
// Those that change something refused with EROFS.
const fuse_lowlevel_ops& ReadOnlyOperations();

}  // namespace pkramfs

#endif  // MOUNT_SERVE_SERVER_H_
