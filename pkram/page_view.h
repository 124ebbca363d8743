// A view of a region's pages.  It has two uses:
//
// * Open reads a region through it that open may yet refuse.  The view shows the pages as they will
//   be when the committed journal slots are applied, and applies nothing.
// * Pages that another process may be changing are read through it.  Each page is copied when it is
//   first looked at, and stays as it was then.
#ifndef PKRAM_PAGE_VIEW_H_
#define PKRAM_PAGE_VIEW_H_

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "pkram/bitmap.h"
#include "pkram/format.h"
#include "pkram/mapping.h"
#include "pkram/types.h"

namespace pkram {

class PageView {
 public:
  // The first `existing` pages of the mapping may be touched.
  PageView(const Mapping* mapping, uint64_t existing) : mapping_(mapping), existing_(existing) {}

  // A view that copies each page when it is first read.  Pages that are not in `only`, which
  // outlives this, are not read: they show zeros.
  PageView(const Mapping* mapping, uint64_t existing, const Bitmap* only)
      : mapping_(mapping), existing_(existing), only_(only), copies_(true) {}

  // A view of the same pages, for a time at which nobody changes them.  Pages that are read until
  // StopCopying are copied, and stay as they are then.  Pages that are first read later show what
  // they hold when they are read.
  PageView Copying() const {
    PageView copying(mapping_, existing_, nullptr);
    for (const auto& [pfn, bytes] : changed_) {
      std::memcpy(copying.NewCopy(pfn), bytes.get(), kPageSize);
    }
    return copying;
  }
  void StopCopying() { copies_ = false; }

  uint64_t existing() const { return existing_; }

  // REQUIRES: pfn < existing().
  template <typename T = std::byte>
  const T* At(Pfn pfn) const {
    if (!changed_.empty()) {
      if (const auto it = changed_.find(pfn); it != changed_.end()) {
        return reinterpret_cast<const T*>(it->second.get());
      }
    }
    return copies_ ? reinterpret_cast<const T*>(Copy(pfn)) : mapping_->At<T>(pfn);
  }

  // Calls fn(pfn, bytes) for each page of `only` that was copied, in no order.
  template <typename Fn>
  void ForEachCopy(Fn fn) {
    for (const auto& [pfn, bytes] : changed_) {
      if (IsReadable(pfn)) fn(pfn, bytes.get());
    }
  }
  // The copy of a page that was read.
  std::byte* CopyOf(Pfn pfn) { return changed_.find(pfn)->second.get(); }
  // Forgets the copies: pages that are read from now on are copied anew.
  void ForgetCopies() {
    for (auto& [pfn, bytes] : changed_) spare_.push_back(std::move(bytes));
    changed_.clear();
  }

  // REQUIRES: the store's page exists.
  void Apply(const format::JournalStore& store) {
    const Pfn pfn(store.offset >> kPageShift);
    std::unique_ptr<std::byte[]>& copy = changed_[pfn];
    if (copy == nullptr) {
      copy = std::make_unique<std::byte[]>(kPageSize);
      std::memcpy(copy.get(), mapping_->At(pfn), kPageSize);
    }
    std::memcpy(copy.get() + store.offset % kPageSize, &store.value, sizeof(store.value));
  }

 private:
  using Page = std::unique_ptr<std::byte[]>;

  bool IsReadable(Pfn pfn) const {
    return only_ == nullptr || (pfn.value() < only_->size() && only_->Test(pfn.value()));
  }
  std::byte* NewCopy(Pfn pfn) const {
    Page& copy = changed_[pfn];
    if (spare_.empty()) {
      copy = std::make_unique<std::byte[]>(kPageSize);
    } else {
      copy = std::move(spare_.back());
      spare_.pop_back();
    }
    return copy.get();
  }
  const std::byte* Copy(Pfn pfn) const {
    std::byte* const copy = NewCopy(pfn);
    if (IsReadable(pfn)) {
      std::memcpy(copy, mapping_->At(pfn), kPageSize);
    } else {
      std::memset(copy, 0, kPageSize);
    }
    return copy;
  }

  const Mapping* const mapping_;
  const uint64_t existing_;
  const Bitmap* const only_ = nullptr;
  bool copies_ = false;
  mutable absl::flat_hash_map<Pfn, Page> changed_;
  mutable std::vector<Page> spare_;
};

}  // namespace pkram

#endif  // PKRAM_PAGE_VIEW_H_
