// Writes the next image as a change of the image NAME: only pages that have changed are written.
//
// The pages go to NAME.delta first.  As soon as that file has its name, NAME means the new image:
// every program that opens it reads the delta, too (Image).  Then the pages are written to their
// places in NAME, and the delta is deleted.
#ifndef PKRAM_DELTA_H_
#define PKRAM_DELTA_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/bitmap.h"
#include "pkram/disk.h"
#include "pkram/format.h"
#include "pkram/image.h"
#include "pkram/types.h"

namespace pkram {

class DeltaWriter {
 public:
  // Begins the image of `base`'s region as it is at `seconds`.  `base` is the image NAME.  `disk`
  // outlives this.  FAILED_PRECONDITION when a delta is part of `base`: it would be deleted before
  // it is written to NAME.
  static absl::StatusOr<std::unique_ptr<DeltaWriter>> Begin(Disk* disk, const Image& base,
                                                            uint64_t seconds);
  // Without Commit, the files that were begun are deleted.
  ~DeltaWriter();
  DeltaWriter(const DeltaWriter&) = delete;
  DeltaWriter& operator=(const DeltaWriter&) = delete;

  // Takes each page that has changed since `base` and is in use, once, in any order: a
  // Snapshots::Sink.
  absl::Status Add(Pfn first, absl::Span<const std::byte> bytes);
  // Makes NAME the new image, so that it is there after a power loss.  Pages that are not in use
  // are holes of it.  After an error NAME is the old image or the new one.
  absl::Status Commit(const Bitmap& in_use);

  // Of the new image.
  const format::ImageFooter& footer() const { return header_.footer; }

 private:
  DeltaWriter(Disk* disk, std::unique_ptr<DiskFile> file) : disk_(disk), file_(std::move(file)) {}
  absl::Status Apply();

  Disk* const disk_;
  std::unique_ptr<DiskFile> file_;
  format::DeltaHeader header_{};
  std::vector<format::DeltaEntry> entries_;
  std::vector<uint32_t> checksums_;  // of the image: the base's, changed by the entries
  bool is_committed_ = false;
};

}  // namespace pkram

#endif  // PKRAM_DELTA_H_
