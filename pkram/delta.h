// The next image as a change of the one that is there: only the pages that changed are written.
//
// They go to NAME.delta first.  From the moment that has its name NAME means the new image: whoever
// opens it reads the delta, too (Image).  Then the pages are written to their places in NAME, and
// the delta goes.
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
  // Of the region that `base`, the image NAME, is of, as it is at `seconds`.  `disk` outlives it.
  // FAILED_PRECONDITION when a delta is part of `base`: it would go before it is written.
  static absl::StatusOr<std::unique_ptr<DeltaWriter>> Begin(Disk* disk, const Image& base,
                                                            uint64_t seconds);
  // What is not committed is no more.
  ~DeltaWriter();
  DeltaWriter(const DeltaWriter&) = delete;
  DeltaWriter& operator=(const DeltaWriter&) = delete;

  // Each page that has changed since `base` and is in use, once, in any order: Snapshots::Sink.
  absl::Status Add(Pfn first, absl::Span<const std::byte> bytes);
  // NAME is the new image, in which no page is that is not in use, also after a power loss.  After
  // an error it is the old one or the new one.
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
