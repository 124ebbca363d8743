// An image: a region on a disk as it was at one moment, with what proves that it is whole.
//
// It is a region: page n of it stands at n * 4096, and what was not in use is a hole.  Behind the
// region's pages stands a checksum of each page, and in the last page of all the footer
// (docs/format.md).
#ifndef PKRAM_IMAGE_H_
#define PKRAM_IMAGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/descriptor.h"
#include "pkram/disk.h"
#include "pkram/format.h"
#include "pkram/types.h"

namespace pkram {

// No other image has it.
uint64_t NewImageId();

// Writes one.  Whatever happens before Commit has returned, NAME is what it was.
class ImageWriter {
 public:
  // Of a region of `pages`, of that uuid, as it is at `seconds`.  `disk` outlives it.
  static absl::StatusOr<std::unique_ptr<ImageWriter>> Begin(Disk* disk, uint64_t pages,
                                                            const uint8_t (&uuid)[16],
                                                            uint64_t seconds);
  // What is not committed is no more.
  ~ImageWriter();
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  const format::ImageFooter& footer() const { return footer_; }
  // Each page once, in any order: Snapshots::Sink.
  absl::Status Add(Pfn first, absl::Span<const std::byte> bytes);
  // NAME is this image, also after a power loss.
  absl::Status Commit();

 private:
  ImageWriter(Disk* disk, std::unique_ptr<DiskFile> file, uint64_t pages)
      : disk_(disk), file_(std::move(file)), checksums_(pages) {}

  Disk* const disk_;
  std::unique_ptr<DiskFile> file_;
  std::vector<uint32_t> checksums_;  // of each page; 0: not in the image
  format::ImageFooter footer_{};
  bool is_committed_ = false;
};

// An image that is there.
class Image {
 public:
  // NOT_FOUND; PERMISSION_DENIED, also when others may write to it (see CheckOwner);
  // FAILED_PRECONDITION when it is no image; UNIMPLEMENTED when it is of a format that this program
  // does not know; DATA_LOSS when its footer or checksums are damaged.
  static absl::StatusOr<std::unique_ptr<Image>> Open(const std::string& path);
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  const std::string& name() const { return name_; }
  const format::ImageFooter& footer() const { return footer_; }
  // Whether a delta is part of it that is not written to NAME yet, or not all of it.
  bool has_delta() const { return !entries_.empty(); }
  // Of each page of the region; 0: it is not in the image.
  absl::Span<const uint32_t> checksums() const { return checksums_; }
  // Calls `visit` with each page, in order, several at once that follow one another, when its
  // checksum is right, else `damaged`.  The first error of either, INTERNAL of a read, or
  // UNAVAILABLE when a checkpoint changes it meanwhile.
  absl::Status ForEach(const std::function<absl::Status(Pfn, absl::Span<const std::byte>)>& visit,
                       const std::function<absl::Status(Pfn)>& damaged) const;

 private:
  Image(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}

  static absl::StatusOr<std::unique_ptr<Image>> OpenOnce(const std::string& path);
  bool ReadDelta(bool has_footer);
  bool IsBeingChanged() const;

  const int fd_;
  const std::string name_;
  std::vector<uint32_t> checksums_;
  format::ImageFooter footer_{};
  uint64_t found_ = 0;  // the id in the file itself, which may be older
  // A delta that was not written to the image yet, or not all of it.
  Descriptor delta_{-1};
  uint64_t rejected_ = 0;  // the id of one that is damaged
  std::vector<format::DeltaEntry> entries_;
  absl::flat_hash_map<uint64_t, uint64_t> in_delta_;  // where in it a page is
};

}  // namespace pkram

#endif  // PKRAM_IMAGE_H_
