// How images and deltas lie in their files: what image.cc and delta.cc share.
#ifndef PKRAM_IMAGE_BYTES_H_
#define PKRAM_IMAGE_BYTES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "pkram/checksum.h"
#include "pkram/format.h"
#include "pkram/types.h"

namespace pkram {

// Names beside an image's.
inline constexpr char kNewImage[] = ".new";
inline constexpr char kNewDelta[] = ".delta.new";
inline constexpr char kDelta[] = ".delta";

// Never 0, which says that there is no page.
inline uint32_t PageChecksum(const std::byte* page) {
  return std::max(Crc32c(page, kPageSize), 1u);
}

// Of a footer or a header: of what stands before its own.
template <typename T>
uint32_t OwnChecksum(const T& bytes) {
  return Crc32c(&bytes, offsetof(T, checksum));
}

// Behind the pages; the footer stands in the page behind these.
inline uint64_t ChecksumPages(uint64_t pages) { return PagesFor(pages * sizeof(uint32_t)); }

inline absl::Span<const std::byte> AsBytes(const void* data, size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

}  // namespace pkram

#endif  // PKRAM_IMAGE_BYTES_H_
