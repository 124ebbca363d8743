// An image: a region as it was at one moment, on a disk, with checksums that prove it whole.
//
// The image is a region: page n stands at n * 4096, and a page that was not in use is a hole.
// Behind the region's pages stands a checksum of each page.  The last page is the footer
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

// Writes an image.  Until Commit has returned, NAME is what it was, whatever happens.
class ImageWriter {
 public:
  // Begins the image of a region of `pages` pages with that uuid, as it is at `seconds`.  `disk`
  // outlives this.
  static absl::StatusOr<std::unique_ptr<ImageWriter>> Begin(Disk* disk, uint64_t pages,
                                                            const uint8_t (&uuid)[16],
                                                            uint64_t seconds);
  // Without Commit, the files that were begun are deleted.
  ~ImageWriter();
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  const format::ImageFooter& footer() const { return footer_; }
  // Takes each page once, in any order: a Snapshots::Sink.
  absl::Status Add(Pfn first, absl::Span<const std::byte> bytes);
  // Makes NAME this image, so that it is there after a power loss.
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
  // NOT_FOUND; PERMISSION_DENIED, also when others may write to the file (see CheckOwner);
  // FAILED_PRECONDITION when it is no image; UNIMPLEMENTED when this program does not know its
  // format; DATA_LOSS when its footer or checksums are damaged.
  static absl::StatusOr<std::unique_ptr<Image>> Open(const std::string& path);
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  const std::string& name() const { return name_; }
  const format::ImageFooter& footer() const { return footer_; }
  // Whether a delta is part of the image, which is not written to NAME yet, or not all of it.
  bool has_delta() const { return !entries_.empty(); }
  // The checksum of each page of the region.  0 says that the page is not in the image.
  absl::Span<const uint32_t> checksums() const { return checksums_; }
  // Goes through the pages in order.  Calls `visit` with pages whose checksums are right, several
  // at once that follow one another, and `damaged` with each of the others.  Returns the first
  // error of either, INTERNAL when reading fails, or UNAVAILABLE when a checkpoint changes the
  // image meanwhile.
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
  // A delta that is not written to the image yet, or not all of it.
  Descriptor delta_{-1};
  uint64_t rejected_ = 0;  // the id of one that is damaged
  std::vector<format::DeltaEntry> entries_;
  absl::flat_hash_map<uint64_t, uint64_t> in_delta_;  // where in it a page is
};

}  // namespace pkram

#endif  // PKRAM_IMAGE_H_
