#include "pkram/lender.h"

#include "pkram/space.h"

namespace pkram {

absl::StatusOr<PageRun> OwnLender::Lend(uint64_t want) { return space_->Lend(want); }

absl::StatusOr<bool> OwnLender::Keep(PageRun run, PageUse use) {
  return space_->loans().Keep({&run, 1}, use);
}

// A lender that is short of pages takes back what is not locked yet; and its successor does not
// know of it.
absl::StatusOr<PageRun> Borrow(Lender* lender, int fd, uint64_t want) {
  for (;;) {
    const absl::StatusOr<PageRun> run = lender->Lend(want);
    if (!run.ok()) return run;
    if (absl::Status s = LockPages(fd, *run, PageUse::kBuilding); !s.ok()) return s;
    const absl::StatusOr<bool> kept = lender->Keep(*run, PageUse::kBuilding);
    if (!kept.ok()) return kept.status();
    if (*kept) return run;
    UnlockPages(fd, *run);
  }
}

}  // namespace pkram
