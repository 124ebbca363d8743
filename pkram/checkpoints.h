// Makes images of a region in use, each of one moment (image.h), and makes regions from images.
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

// Is called now and then with the number of pages that are done.  Returns false to end the work
// with CANCELLED.
using Progress = std::function<bool(uint64_t done, uint64_t of)>;

// Thread-safe.
class Checkpoints {
 public:
  // Runs the function that it is given while nobody changes the region.
  using AtRest = std::function<void(const std::function<void()>&)>;
  struct Made {
    uint64_t pages = 0;    // in the image
    uint64_t written = 0;  // of them, as the others were in the last one
    uint64_t aside = 0;    // copied by who was about to change them
    uint64_t waits = 0;    // of these, for the disk
    // How long changes had to wait at most, and how long the checkpoint took in all.
    std::chrono::nanoseconds rest{}, all{};
  };

  // To be the region's (Region::OpenOptions::watch).
  Watch* watch() { return &snapshots_; }

  // As Snapshots says.
  void set_most_aside(uint64_t pages) { snapshots_.set_most_aside(pages); }
  // As Snapshots::Changed says.
  std::optional<uint64_t> Changed() const { return snapshots_.Changed(); }

  // Makes the image at `path`, whose files `disk` has: the region as it is at a moment that comes
  // soon.  If the image there is the last one that this object made, only pages that have changed
  // since are written.  UNAVAILABLE while another one is being made; errors of ImageToReplace and
  // Disk.
  absl::StatusOr<Made> Make(Region* region, const AtRest& at_rest, const std::string& path,
                            Disk* disk, const Progress& progress);

 private:
  uint64_t last_ = 0;  // id of the image that was made last; 0: none
  Snapshots snapshots_;
  std::atomic<bool> making_{false};
};

// The image at `path`, which is to be replaced by one of the region with that uuid.  Null when
// nothing is there.  An error when something else is there: no image, a damaged one, or one of
// another region.
absl::StatusOr<std::unique_ptr<Image>> ImageToReplace(const std::string& path,
                                                      const uint8_t (&uuid)[16]);

// Writes the region of an image into a backing, whose contents are lost.  Until this returns, the
// backing holds no region, but says that a restore has begun (Region::Look).  DATA_LOSS names the
// first damaged page; OUT_OF_RANGE when a device is too small.
absl::Status Restore(const Image& image, Backing* backing, const Progress& progress);

// The same, into memory that has no name and lives as long as its descriptors.  RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<Backing>> RestoreToMemory(const Image& image,
                                                         const Progress& progress);

}  // namespace pkram

#endif  // PKRAM_CHECKPOINTS_H_
