// Images of a region in use, each of one moment (image.h), and a region made of one again.
#ifndef PKRAM_CHECKPOINTS_H_
#define PKRAM_CHECKPOINTS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/backing.h"
#include "pkram/disk.h"
#include "pkram/image.h"
#include "pkram/region.h"
#include "pkram/snapshots.h"

namespace pkram {

// Hears now and then how many pages are done; false ends it with CANCELLED.
using Progress = std::function<bool(uint64_t done, uint64_t of)>;

// Thread-safe.
class Checkpoints {
 public:
  // Runs what it is given while nobody changes the region.
  using AtRest = std::function<void(const std::function<void()>&)>;
  struct Made {
    uint64_t pages = 0;    // in the image
    uint64_t written = 0;  // of them, as the others were in the last one
    uint64_t aside = 0;    // copied by who was about to change them
    uint64_t waits = 0;    // of these, for the disk
    // How long nobody could change anything, at most; and in all.
    std::chrono::nanoseconds rest{}, all{};
  };

  // To be the region's (Region::OpenOptions::watch).
  Watch* watch() { return &snapshots_; }

  // As Snapshots says.
  void set_most_aside(uint64_t pages) { snapshots_.set_most_aside(pages); }
  // As Snapshots::Changed says.
  std::optional<uint64_t> Changed() const { return snapshots_.Changed(); }

  // The image at `path`, whose files `disk` has, becomes the region as it is at a moment that comes
  // soon.  Only what has changed is written when it is the last one that was made here.
  // UNAVAILABLE while another one is being made; as ImageToReplace and Disk say.
  absl::StatusOr<Made> Make(Region* region, const AtRest& at_rest, const std::string& path,
                            Disk* disk, const Progress& progress);

 private:
  uint64_t last_ = 0;  // id of the image that was made last; 0: none
  Snapshots snapshots_;
  std::atomic<bool> making_{false};
};

// The image that is at `path`, to be replaced by one of the region with that uuid; null when
// nothing is there.  An error when that is something else: no image, a damaged one, or another
// region's.
absl::StatusOr<std::unique_ptr<Image>> ImageToReplace(const std::string& path,
                                                      const uint8_t (&uuid)[16]);

// Makes a backing, in which nothing is that is needed, what the image says.  Until it returns, that
// is no region but one to be restored (Region::Look).  DATA_LOSS names the first page that is
// damaged; OUT_OF_RANGE when a device is too small.
absl::Status Restore(const Image& image, Backing* backing, const Progress& progress);

// The same in memory that has no name and goes with whoever holds it.  RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<Backing>> RestoreToMemory(const Image& image,
                                                         const Progress& progress);

}  // namespace pkram

#endif  // PKRAM_CHECKPOINTS_H_
