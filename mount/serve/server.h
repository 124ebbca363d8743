// Translates requests of the kernel: decodes one, makes one call into the filesystem, sends one
// reply.
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

// What the handlers of one session need.
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
  // Lets another program take this one's place.  Returns only when it cannot.  Empty without a
  // keeper.
  std::function<absl::Status(const std::string& path)> upgrade;
  // Makes the kernel ask for an inode's attributes again.  Empty where there is no kernel.
  std::function<void(Ino)> forget_attributes;
  // To be called after the region has got another size: a sentence about what will go wrong later,
  // or "".
  std::function<std::string()> resized;
  // Makes the file at `path` an image of the region as it is in a moment.
  std::function<absl::StatusOr<pkram::Checkpoints::Made>(const std::string& path,
                                                         const pkram::Progress& progress)>
      checkpoint;
  // How far a checkpoint has come, and the outcome of the last one.
  std::function<CheckpointState()> checkpoint_state;
  Statistics statistics;
};

// What a daemon says of itself, as JSON: "pid", "keeper", "program", "version", "node", "options",
// "takeovers", "checkpoint", "requests" by kind, "bytes", "errors" by errno, "inodes", "pages",
// "journal_waits".  If that is longer than `most` bytes, long paths and messages are left out.
std::string Describe(const Server& server, size_t most);

// The operations of a session whose user data is a Server.
const fuse_lowlevel_ops& Operations();
// The same, but operations that change something are refused with EROFS.
const fuse_lowlevel_ops& ReadOnlyOperations();

}  // namespace pkramfs

#endif  // MOUNT_SERVE_SERVER_H_
