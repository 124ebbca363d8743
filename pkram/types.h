// The vocabulary of the library: page numbers, page size, words.
#ifndef PKRAM_TYPES_H_
#define PKRAM_TYPES_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace pkram {

// The format's page, whatever the host's page size is.
inline constexpr uint64_t kPageShift = 12;
inline constexpr uint64_t kPageSize = uint64_t{1} << kPageShift;

// A 2 MiB cluster: what the allocator hands to metadata as a whole, and the
// size of a huge mapping.
inline constexpr uint64_t kClusterPages = 512;

// A page's number in its region: never an address, never a byte offset.  Page 0
// is the super block, so 0 also says "no page" wherever one may be absent.
class Pfn {
 public:
  constexpr Pfn() = default;
  constexpr explicit Pfn(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr uint64_t offset() const { return value_ << kPageShift; }
  constexpr explicit operator bool() const { return value_ != 0; }
  constexpr Pfn operator+(uint64_t pages) const { return Pfn(value_ + pages); }
  friend constexpr auto operator<=>(Pfn, Pfn) = default;
  template <typename H>
  friend H AbslHashValue(H h, Pfn pfn) {
    return H::combine(std::move(h), pfn.value_);
  }

 private:
  uint64_t value_ = 0;
};

// A run of consecutive pages.
struct PageRun {
  Pfn first;
  uint64_t count = 0;
};

constexpr uint64_t PagesFor(uint64_t bytes) { return bytes / kPageSize + (bytes % kPageSize != 0); }

}  // namespace pkram

#endif  // PKRAM_TYPES_H_
