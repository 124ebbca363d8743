#include "pkram/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

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

absl::Status Mapping::LockInMemory(uint64_t pages) {
  if (mlock2(base_, pages * kPageSize, MLOCK_ONFAULT) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("cannot lock the region in memory: ", std::strerror(errno),
                   ": raise the limit (ulimit -l) or mount without mlock"));
}

absl::Status Mapping::Populate(PageRun run) {
  std::byte* const from = base_ + run.first.offset();
  if (madvise(from, run.count * kPageSize, MADV_POPULATE_READ) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot lock pages in memory: ", std::strerror(errno)));
}

Mapping::~Mapping() {
  munmap(base_, pages_ * kPageSize);
  if (writable_ != nullptr && writable_ != base_) munmap(writable_, pages_ * kPageSize);
}

}  // namespace pkram
