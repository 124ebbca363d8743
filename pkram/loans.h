// The server's view of pages that other processes work on.  *Lent* pages are being filled by
// another process.  *Held* pages are being read in place: their bytes do not change, and they are
// not used again until nobody reads them any more.
//
// The only lasting record is the other process's lock on these bytes of the region's file
// (page_locks.h):
//
//   the server notes pages             Lend, Hold
//   the other process locks them
//   it asks whether they are noted     Keep: from now on they are its own, until it unlocks them
//
// A process that dies loses its locks, and Recheck then drops what was noted for it.  A successor
// of the server finds what is locked (Find).  A process that asks the successor to Keep pages which
// the old server had noted, and which were not locked yet, is told to begin anew.
//
// Thread-safe, but for Find.
#ifndef PKRAM_LOANS_H_
#define PKRAM_LOANS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "pkram/bitmap.h"
#include "pkram/mutex.h"
#include "pkram/page_locks.h"
#include "pkram/page_map.h"
#include "pkram/types.h"

namespace pkram {

class Loans {
 public:
  // `fd`: the region's file, of which `pages` may be in use.
  Loans(int fd, uint64_t pages) : fd_(fd), lent_(pages), held_(pages), withheld_(pages) {}

  // To be called when the region is opened: claims the pages that other processes have locked and
  // that nothing reaches.
  void Find(PageMap* map);

  void Lend(PageRun run);
  // The generation of pages that are noted from now on; Keep asks for it.
  uint64_t generation() const { return generation_; }
  // Notes pages as held.  REQUIRES, also of HoldLocked: nobody changes these pages meanwhile.
  void Hold(PageRun run);
  // The same for pages that are locked already.  If some are not, returns false and notes nothing.
  bool HoldLocked(absl::Span<const PageRun> runs);
  // Whether all of these pages are noted for that use, and locked for it; of held pages, since that
  // generation.
  bool Keep(absl::Span<const PageRun> runs, PageUse use,
            std::optional<uint64_t> generation = std::nullopt);

  // Whether no more pages may be held piece by piece.  Bounds the number of locks on the region's
  // file: the kernel keeps them in a list, so finding them all takes time by the square of their
  // number (0.2 s for kMostPieces).
  bool IsFull() const { return pieces_ >= kMostPieces; }
  static constexpr size_t kMostPieces = 4096;

  // Whether somebody may be reading the page.
  bool Held(Pfn pfn) const { return holds_ && held_.TestAmongOthers(pfn.value(), 1); }
  // How many pages at the beginning of a run are not held.
  uint64_t CountNotHeld(PageRun run) const {
    const uint64_t first = run.first.value(), end = first + run.count;
    return holds_ ? std::min(held_.FindSet(first, end), end) - first : run.count;
  }
  // Takes pages that somebody may be reading out of `runs`.  They stay in use until Recheck.
  void Withhold(std::vector<PageRun>* runs);

  // Whether somebody has locked some of these pages, which nothing reaches.  Then they stay in use
  // until Recheck.
  bool WithholdIfLocked(PageRun run);

  // Looks at the locks again.  Returns the pages that are no longer in use, because nobody has them
  // locked.
  std::vector<PageRun> Recheck();

  // While a tree in lent pages is being proven, no lent page is taken back, even if its process
  // dies.
  void BeginAdoption();
  void EndAdoption();
  // The runs of lent pages.
  std::vector<PageRun> Lent();
  // Says that lent pages are the region's own from now on.  False if some of them are not lent.
  bool Adopt(absl::Span<const PageRun> runs);

  struct Counts {
    uint64_t lent = 0;      // pages
    uint64_t held = 0;      // that files have, or had
    uint64_t withheld = 0;  // of these: that nothing reaches any more
  };
  Counts counts() const;
  // Clears the noted pages that nothing reaches in a bitmap of pages in use.
  void RemoveUnreachable(Bitmap* in_use);

 private:
  // All noted pages are in [0, bound_).
  std::vector<PageRun> RunsOf(const Bitmap& bits) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Count(const Bitmap& bits) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsLocked(PageRun run, PageUse use) const;
  void Note(Bitmap* bits, PageRun run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int fd_;
  std::atomic<uint64_t> generation_{0};            // raised when held pages are no longer
  std::atomic<bool> lends_{false}, holds_{false};  // some page may be lent, held
  std::atomic<size_t> pieces_{0};  // that were noted by Hold since Recheck, or that it has found
  mutable Mutex mu_;
  // Changed under the lock; held_ is tested without it.
  Bitmap lent_, held_, withheld_;
  uint64_t bound_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t adoptions_ ABSL_GUARDED_BY(mu_) = 0;  // that are under way
};

}  // namespace pkram

#endif  // PKRAM_LOANS_H_
