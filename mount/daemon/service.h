// A filesystem that is served: its region, its session with the kernel, and its threads.  It begins
// with a mount, or in the place of a server that died.
#ifndef MOUNT_DAEMON_SERVICE_H_
#define MOUNT_DAEMON_SERVICE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/filesystem.h"
#include "mount/daemon/checkpointer.h"
#include "mount/daemon/link.h"
#include "mount/daemon/session.h"
#include "mount/region/memory_limit.h"
#include "mount/region/options.h"
#include "mount/region/region_file.h"
#include "mount/serve/in_flight.h"
#include "mount/serve/server.h"

namespace pkramfs {

class Service {
 public:
  // Opens or makes the region, and mounts it.  `warn` gets sentences about what will go wrong
  // later.
  static absl::StatusOr<std::unique_ptr<Service>> Mount(
      MountOptions options, const std::function<void(const std::string&)>& warn);
  // Goes on in the place of a server that died.  Changes nothing unless the region is sound.
  static absl::StatusOr<std::unique_ptr<Service>> TakeOver(const MountOptions& options,
                                                           Estate estate);
  ~Service();

  // Starts to answer requests, those that a predecessor has left first.
  absl::Status Start();
  // Says that the mount has succeeded, so what was made stays.
  void Keep() { file_->Keep(RegionFile::For::kMount).IgnoreError(); }
  // What a keeper needs.
  Estate estate() const;
  Session& session() { return *session_; }
  InFlight& in_flight() { return *in_flight_; }
  // Sets how another program takes this one's place.  To be called before Start.
  void set_upgrade(std::function<absl::Status(const std::string& path)> upgrade) {
    server_.upgrade = std::move(upgrade);
  }

  // Unmounts, if it is mounted still, and seals.
  absl::Status End();
  // Leaves a holder of a region in a memfd behind.  To be called after End, if there is no keeper.
  void HoldRegion();

 private:
  bool is_open_ = false;  // and is to be sealed in the end
  explicit Service(MountOptions options) : options_(std::move(options)), checkpointer_(options_) {}
  void Describe(bool writeback);
  void Attach();
  std::string LookAtLimit();
  absl::Status MakeLastCheckpoint();

  MountOptions options_;
  std::optional<MemoryLimit> tight_;
  std::unique_ptr<InFlight> in_flight_;
  Checkpointer checkpointer_;
  std::unique_ptr<RegionFile> file_;
  std::unique_ptr<Filesystem> fs_;
  Server server_;
  std::unique_ptr<Session> session_;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_SERVICE_H_
