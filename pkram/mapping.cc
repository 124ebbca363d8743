#include "pkram/mapping.h"

#include <sys/mman.h>

namespace pkram {

absl::StatusOr<std::unique_ptr<Mapping>> Mapping::Create(Backing* backing, uint64_t pages,
                                                         Access access) {
  absl::StatusOr<std::byte*> base = backing->Map(pages, access == Access::kWritable);
  if (!base.ok()) return base.status();
  std::byte* writable = access == Access::kWritable ? *base : nullptr;
  if (access == Access::kGuarded) {
    absl::StatusOr<std::byte*> second = backing->Map(pages, true);
    if (!second.ok()) {
      munmap(*base, pages * kPageSize);
      return second.status();
    }
    writable = *second;
  }
  return std::unique_ptr<Mapping>(new Mapping(*base, writable, pages));
}

Mapping::~Mapping() {
  munmap(base_, pages_ * kPageSize);
  if (writable_ != nullptr && writable_ != base_) munmap(writable_, pages_ * kPageSize);
}

}  // namespace pkram
