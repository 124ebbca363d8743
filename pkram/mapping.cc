#include "pkram/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace pkram {

absl::StatusOr<std::unique_ptr<Mapping>> Mapping::Create(Backing* backing, uint64_t pages,
                                                         Access access) {
  const absl::StatusOr<absl::Span<std::byte>> base =
      backing->Map(pages, access == Access::kWritable);
  if (!base.ok()) return base.status();
  std::byte* writable = access == Access::kWritable ? base->data() : nullptr;
  absl::StatusOr<absl::Span<std::byte>> second = absl::Span<std::byte>();
  if (access == Access::kGuarded) {
    second = backing->Map(pages, true);
    if (!second.ok()) {
      munmap(base->data(), base->size());
      return second.status();
    }
    writable = second->data();
  }
  return std::unique_ptr<Mapping>(new Mapping(*base, *second, writable, pages));
}

absl::Status Mapping::LockInMemory(uint64_t pages) {
  if (mlock2(base_, pages * kPageSize, MLOCK_ONFAULT) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("cannot lock the region in memory: ", std::strerror(errno),
                   ": raise the limit (ulimit -l) or mount without mlock"));
}

void Mapping::UnlockFromMemory() { munlock(mapped_.data(), mapped_.size()); }

void Mapping::LetGoOfUsed() {
  // Linux then does not look whether pages were used lately (vma_has_recency).
  madvise(mapped_.data(), mapped_.size(), MADV_RANDOM);
}

absl::Status Mapping::Populate(PageRun run) {
  std::byte* const from = base_ + run.first.offset();
  if (madvise(from, run.count * kPageSize, MADV_POPULATE_READ) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot lock pages in memory: ", std::strerror(errno)));
}

Mapping::~Mapping() {
  munmap(mapped_.data(), mapped_.size());
  if (!second_.empty()) munmap(second_.data(), second_.size());
}

}  // namespace pkram
