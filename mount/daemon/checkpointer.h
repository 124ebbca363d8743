// Makes the checkpoints of a mount: knows to which file, when, and what became of them.
#ifndef MOUNT_DAEMON_CHECKPOINTER_H_
#define MOUNT_DAEMON_CHECKPOINTER_H_

#include <cstdint>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/filesystem.h"
#include "mount/region/options.h"
#include "mount/serve/server.h"
#include "pkram/checkpoints.h"
#include "pkram/mutex.h"

namespace pkramfs {

// Thread-safe.
class Checkpointer {
 public:
  explicit Checkpointer(const MountOptions& options)
      : file_(options.checkpoint), every_(options.checkpoint_every) {}
  ~Checkpointer() { Stop(); }
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  pkram::Watch* watch() { return checkpoints_.watch(); }

  // Checks the options of a mount of that region, before it is mounted.
  absl::Status Check(const pkram::Region& region) const;
  // How many bytes may be aside, of pages that change meanwhile.  To be called before Start.
  void set_most_aside(uint64_t bytes) { checkpoints_.set_most_aside(pkram::PagesFor(bytes)); }
  // Begins for this region.  `device` is the mount's own device, on which no image may be.  Until
  // Stop, makes checkpoints as often as checkpoint_every= says.
  void Start(Filesystem* fs, pkram::Region* region, const std::string& where,
             const std::string& device);
  void Stop();
  bool is_started() const { return fs_ != nullptr; }

  // Makes a checkpoint.  "" is the option's file.  FAILED_PRECONDITION when there is no such file,
  // or it cannot be an image of this region; errors of pkram::Checkpoints.
  absl::StatusOr<pkram::Checkpoints::Made> Make(const std::string& file,
                                                const pkram::Progress& progress);
  CheckpointState state() const;

 private:
  absl::StatusOr<pkram::Checkpoints::Made> MakeOf(const std::string& file,
                                                  const pkram::Progress& progress);
  void MakeNowAndThen();

  const std::string file_;
  const uint64_t every_;  // seconds; 0: never
  pkram::Checkpoints checkpoints_;
  Filesystem* fs_ = nullptr;
  pkram::Region* region_ = nullptr;
  std::string where_, device_;
  std::thread timer_;
  mutable pkram::Mutex mu_;
  pkram::CondVar changed_;
  bool ends_ ABSL_GUARDED_BY(mu_) = false;
  CheckpointState state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_CHECKPOINTER_H_
