// Which pages of a region in use other processes work on, as its user knows it: pages that are
// *lent*, to be built in, and pages that are *held*, whose bytes do not change and which are not
// used again while they are read.
//
// Both are known by locks on the region's file (page_locks.h) and by nothing else:
//
//   the region's user notes pages   Lend, Hold
//   the other process locks them
//   it asks whether they are noted  Keep: from then on they are its own until it unlocks them
//
// A process that dies between these steps, or later, has no lock any more, and what was noted is
// gone when the locks are looked at again (Recheck).  A successor of the region's user finds what
// is locked (Find); who asks it to Keep what was noted by its predecessor, and was not locked then,
// is told to begin anew.
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

  // What others have locked of the region, when it is opened: those pages of it that nothing
  // reaches are claimed.
  void Find(PageMap* map);

  void Lend(PageRun run);
  // What is noted from now on is asked for with what this says.
  uint64_t generation() const { return generation_; }
  // REQUIRES, of both: nobody changes these pages meanwhile.
  void Hold(PageRun run);
  // The same of pages that are locked already; false, and nothing noted, if some are not.
  bool HoldLocked(absl::Span<const PageRun> runs);
  // Whether all of these are noted for that use, and are locked for it.
  // Of pages that are held: they were from that generation on.
  bool Keep(absl::Span<const PageRun> runs, PageUse use,
            std::optional<uint64_t> generation = std::nullopt);

  // Whether somebody may be reading the page.
  bool Held(Pfn pfn) const { return holds_ && held_.TestAmongOthers(pfn.value(), 1); }
  // How many pages of a run, from its first on, are not held.
  uint64_t CountNotHeld(PageRun run) const {
    const uint64_t first = run.first.value(), end = first + run.count;
    return holds_ ? std::min(held_.FindSet(first, end), end) - first : run.count;
  }
  // Takes those out of `runs` that somebody may be reading.  They are in use until Recheck.
  void Withhold(std::vector<PageRun>* runs);

  // Of pages that nothing reaches: whether somebody has some of them locked.  Then they are in use
  // until Recheck.
  bool WithholdIfLocked(PageRun run);

  // Pages that are in use no longer, because nobody has them locked.
  std::vector<PageRun> Recheck();

  // While a tree that was built in lent pages is looked at, none is taken back, whoever dies.
  void BeginAdoption();
  void EndAdoption();
  // The runs of lent pages.
  std::vector<PageRun> Lent();
  // They are the region's from now on; false if some of them are not lent.
  bool Adopt(absl::Span<const PageRun> runs);

  struct Counts {
    uint64_t lent = 0;      // pages
    uint64_t held = 0;      // that files have, or had
    uint64_t withheld = 0;  // of these: that nothing reaches any more
  };
  Counts counts() const;
  // Takes those that nothing reaches out of a bitmap of pages in use.
  void RemoveUnreachable(Bitmap* in_use);

 private:
  // Of the noted pages, [0, bound_) holds all.
  std::vector<PageRun> RunsOf(const Bitmap& bits) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Count(const Bitmap& bits) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsLocked(PageRun run, PageUse use) const;
  void Note(Bitmap* bits, PageRun run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int fd_;
  std::atomic<uint64_t> generation_{0};            // raised when held pages are no longer
  std::atomic<bool> lends_{false}, holds_{false};  // some page may be lent, held
  mutable Mutex mu_;
  // Changed under the lock; held_ is tested without it.
  Bitmap lent_, held_, withheld_;
  uint64_t bound_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t adoptions_ ABSL_GUARDED_BY(mu_) = 0;  // that are under way
};

}  // namespace pkram

#endif  // PKRAM_LOANS_H_
