// The region's memory as this process sees it.
//
// Metadata is read through `base()`.  The only code that stores to it turns a
// pointer into a writable one here: Publish, Transaction, and those who fill
// pages that nothing reaches or a file's data.  With `guard`, base() is mapped
// read-only and a second mapping takes the stores, so that a stray store faults:
// that is how the tests run.
#ifndef PKRAM_MAPPING_H_
#define PKRAM_MAPPING_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "pkram/backing.h"
#include "pkram/types.h"
#include "pkram/watch.h"

namespace pkram {

class Mapping {
 public:
  enum class Access { kReadOnly, kWritable, kGuarded };

  static absl::StatusOr<std::unique_ptr<Mapping>> Create(Backing* backing, uint64_t pages,
                                                         Access access);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Keeps in memory what is touched of the first `pages` pages through base() from now
  // on.  PERMISSION_DENIED beyond RLIMIT_MEMLOCK.
  absl::Status LockInMemory(uint64_t pages);
  void UnlockFromMemory();
  // Touches pages that exist, so that they are locked.
  absl::Status Populate(PageRun run);

  // Pages may be swapped out although this process has just used them: where memory is short,
  // there may be nothing else.
  void LetGoOfUsed();

  uint64_t pages() const { return pages_; }
  const std::byte* base() const { return base_; }

  template <typename T = std::byte>
  const T* At(Pfn pfn) const {
    return reinterpret_cast<const T*>(base_ + pfn.offset());
  }
  // The page that a pointer into the mapping lies in.
  Pfn PfnOf(const void* at) const { return Pfn(OffsetOf(at) >> kPageShift); }
  uint64_t OffsetOf(const void* at) const {
    return static_cast<uint64_t>(static_cast<const std::byte*>(at) - base_);
  }

  // Hears of each page that is going to be stored to.  Before the first store; `watch` outlives
  // this.
  void set_watch(Watch* watch) { watch_ = watch; }

  // To store to at once, within the page.  REQUIRES: not kReadOnly.
  template <typename T>
  T* Writable(const T* at) const {
    if (watch_ != nullptr) watch_->BeforeChange({PfnOf(at), 1});
    return Unwatched(at);
  }
  template <typename T = std::byte>
  T* WritableAt(Pfn pfn) const {
    if (watch_ != nullptr) watch_->BeforeChange({pfn, 1});
    return reinterpret_cast<T*>(writable_ + pfn.offset());
  }
  // All of a run.
  std::byte* WritableRun(PageRun run) const {
    if (watch_ != nullptr) watch_->BeforeChange(run);
    return writable_ + run.first.offset();
  }
  // The same of a word that means nothing to another use of the region.
  template <typename T>
  T* Unwatched(const T* at) const {
    return reinterpret_cast<T*>(writable_ + OffsetOf(at));
  }

 private:
  Mapping(absl::Span<std::byte> mapped, absl::Span<std::byte> second, std::byte* writable,
          uint64_t pages)
      : mapped_(mapped),
        second_(second),
        base_(mapped.data()),
        writable_(writable),
        pages_(pages) {}

  const absl::Span<std::byte> mapped_, second_;  // to unmap
  std::byte* const base_;
  std::byte* const writable_;  // base_, the second mapping, or nullptr
  const uint64_t pages_;
  Watch* watch_ = nullptr;
};

}  // namespace pkram

#endif  // PKRAM_MAPPING_H_
