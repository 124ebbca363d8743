// The region's memory as this process sees it.
//
// Metadata is read through `base()`.  Code that stores gets a writable pointer from this class.
// Only Publish, Transaction, and code that fills unreachable pages or files' contents do that. With
// `guard`, base() is mapped read-only and a second mapping takes the stores, so a stray store
// faults: tests run with it.
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

  // Keeps pages in memory that are touched through base() from now on, of the first `pages`.
  // PERMISSION_DENIED beyond RLIMIT_MEMLOCK.
  absl::Status LockInMemory(uint64_t pages);
  void UnlockFromMemory();
  // Touches pages that exist, so that they are locked.
  absl::Status Populate(PageRun run);

  // Lets the kernel swap out pages that this process has just used.  Where memory is short, there
  // may be no others.
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

  // Sets who hears of each page before it is stored to.  To be called before the first store;
  // `watch` outlives this.
  void set_watch(Watch* watch) { watch_ = watch; }

  // A writable pointer to this place, to be stored to at once, within the page.
  // REQUIRES: not kReadOnly.
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
  // The same for all pages of a run.
  std::byte* WritableRun(PageRun run) const {
    if (watch_ != nullptr) watch_->BeforeChange(run);
    return writable_ + run.first.offset();
  }
  // The same for a word that means nothing to the next mount: nobody hears of it.
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
