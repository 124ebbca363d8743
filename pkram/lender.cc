#include "pkram/lender.h"

#include "pkram/space.h"

namespace pkram {

absl::StatusOr<PageRun> OwnLender::Lend(uint64_t want) { return space_->Lend(want); }

absl::StatusOr<bool> OwnLender::Keep(PageRun run) {
  return space_->loans().Keep({&run, 1}, PageUse::kBuilding);
}

// Asks until pages are ours.  A lender that is short of pages takes back pages that are not locked
// yet, and may lend them to another process.  A successor of the lender does not know of them
// either.
absl::StatusOr<PageRun> Borrow(Lender* lender, int fd, uint64_t want) {
  constexpr int kTries = 1000;
  absl::Status refused;
  for (int i = 0; i < kTries; ++i) {
    const absl::StatusOr<PageRun> run = lender->Lend(want);
    if (!run.ok()) return run;
    refused = LockPages(fd, *run, PageUse::kBuilding);
    if (!refused.ok()) continue;
    const absl::StatusOr<bool> kept = lender->Keep(*run);
    if (!kept.ok()) return kept.status();
    if (*kept) return run;
    UnlockPages(fd, *run);
  }
  return refused.ok() ? absl::UnavailableError("pages are lent, and taken back again") : refused;
}

}  // namespace pkram
