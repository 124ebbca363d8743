// A region's pages as they are once its committed journal slots are applied,
// without applying them: how open reads a region that it may yet refuse.
#ifndef PKRAM_PAGE_VIEW_H_
#define PKRAM_PAGE_VIEW_H_

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "pkram/format.h"
#include "pkram/mapping.h"
#include "pkram/types.h"

namespace pkram {

class PageView {
 public:
  // `existing` pages of the mapping may be touched.
  PageView(const Mapping* mapping, uint64_t existing) : mapping_(mapping), existing_(existing) {}

  uint64_t existing() const { return existing_; }

  // REQUIRES: pfn < existing().
  template <typename T = std::byte>
  const T* At(Pfn pfn) const {
    if (!changed_.empty()) {
      if (const auto it = changed_.find(pfn); it != changed_.end()) {
        return reinterpret_cast<const T*>(it->second.get());
      }
    }
    return mapping_->At<T>(pfn);
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
  const Mapping* const mapping_;
  const uint64_t existing_;
  absl::flat_hash_map<Pfn, std::unique_ptr<std::byte[]>> changed_;
};

}  // namespace pkram

#endif  // PKRAM_PAGE_VIEW_H_
