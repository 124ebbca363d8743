// The free pages of a region, under one lock; and which pages are known to exist.
//
// A page exists when its backing has memory for it.  Threads keep some pages at hand (Space), so
// they seldom need this lock.
//
// Thread-safe.
#ifndef PKRAM_DEPOT_H_
#define PKRAM_DEPOT_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/backing.h"
#include "pkram/bitmap.h"
#include "pkram/mapping.h"
#include "pkram/mutex.h"
#include "pkram/page_map.h"
#include "pkram/types.h"

namespace pkram {

// Which operations may take the last pages: those that make space.
enum class Urgency { kNormal, kMakesSpace };

class Depot {
 public:
  // `backing` and `mapping` must outlive it; `map` has its claims finished.  `limit` as in Size.
  Depot(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit);

  // Takes 1 to `want` pages, at `goal` if that page is free.  A count of 0 means that none is left.
  PageRun Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency);
  // The same for a thread that keeps them at hand, as long as many more are free.
  PageRun TakeSome(Purpose purpose, uint64_t want);
  // Makes pages exist that were taken.  After RESOURCE_EXHAUSTED they are free again.
  absl::Status MakeExist(PageRun run);
  // Takes one of the last pages, which exist.  Pfn() if none is left.
  Pfn TakeSpare();
  bool HasSpare() const;

  // Whether so many pages are free that threads may keep some at hand.
  bool plenty() const { return plenty_.load(std::memory_order_relaxed); }
  // Whether threads may keep pages at hand from now on.
  void SetStocking(bool allowed);

  // A page comes back in two steps.  It is announced when nothing reaches it any more.  Then it is
  // returned, or a thread keeps it.
  void Announce(absl::Span<const PageRun> runs) { coming_ += Total(runs); }
  uint64_t coming() const { return coming_; }
  // Frees pages that were announced, and gives their memory back to the system.  The memory of a
  // few pages is given back later, together with that of others.
  void Return(std::vector<PageRun> runs);
  // Says that a thread keeps a page that was announced.
  void Keep(Purpose purpose) {
    ++Stocked(purpose);
    --coming_;
  }
  // Says that a thread uses pages that it has kept or taken by TakeSome, or that they are free
  // again.
  void Use(Purpose purpose, uint64_t pages) { Stocked(purpose) -= pages; }
  void PutBack(Purpose purpose, PageRun run);
  // Takes note of pages in use that another process has filled: they exist, for this purpose.
  void Adopt(PageRun run, Purpose purpose);
  // Frees pages that were in use as far as the map knows.
  void Add(PageRun run);

  // How often pages have been freed.  Await waits until that is not `seen` any more, and stores
  // the new number there; false when `deadline` has passed.
  uint64_t returns() const { return returns_.load(); }
  bool AwaitReturn(uint64_t* seen, std::chrono::steady_clock::time_point deadline);

  // Whether this process has made the page exist.  As long as such a page is in use, a store to it
  // finds space.  (Filesystems that copy a page when it is written are an exception.)
  bool Exist(PageRun run) const { return exists_.TestAmongOthers(run.first.value(), run.count); }
  void NoteExist(PageRun run) { exists_.SetAmongOthers(run.first.value(), run.count, true); }
  // Whether this process has touched the page through the mapping since the page exists.  Touching
  // it again takes no fault, unless the system has swapped it out.
  bool Touched(PageRun run) const { return touched_.TestAmongOthers(run.first.value(), run.count); }
  void NoteTouched(PageRun run) { touched_.SetAmongOthers(run.first.value(), run.count, true); }
  // Says that pages are about to be given back.
  void Forget(PageRun run) {
    exists_.SetAmongOthers(run.first.value(), run.count, false);
    touched_.SetAmongOthers(run.first.value(), run.count, false);
  }
  // What a page in use was taken for.
  Purpose PurposeOf(Pfn pfn) const {
    return map_unguarded().IsData(pfn) ? Purpose::kData : Purpose::kMetadata;
  }
  // Whether a page in use surely exists.  Metadata that was reachable when the region was opened
  // does.  Data may be a hole, if the region's file was copied without its zeros.
  bool MustExist(Pfn pfn) const { return PurposeOf(pfn) == Purpose::kMetadata || Exist({pfn, 1}); }

  struct Counts {
    uint64_t total = 0;     // pages of the region
    uint64_t free = 0;      // that an ordinary allocation may take, limbo included
    uint64_t limbo = 0;     // of them, waiting for readers
    uint64_t reserved = 0;  // kept for operations that make space
    uint64_t end = 0;       // one past the last page in use
    uint64_t data = 0;      // in use for data; limbo included
    uint64_t metadata = 0;  // in use for the rest; limbo included
    uint64_t InUse() const { return total - free - reserved; }
  };
  Counts counts() const;
  Bitmap InUse() const;

  // From now on the pages behind the last one in use stay as they are, because the region belongs
  // to another process.  To be called before the first use.
  void KeepTail() { keeps_tail_ = true; }
  bool keeps_tail() const { return keeps_tail_; }
  // Gives back the memory of free pages, which a crash may have left, and that of the tail.
  void GiveBackUnused();
  // Gives back free pages that were kept to be used again, or to be given back together; false
  // when there are none.
  bool GiveBackIdle();
  // Makes the reserve's pages exist, as far as there is space for them, until GiveBackUnused.
  void KeepSpare();

  // The result of another size.
  struct Size {
    uint64_t pages;  // that it has
    uint64_t limit;  // that may be in use, when pages beyond the wanted size are; or 0
  };
  // OUT_OF_RANGE when more than `pages` are in use.  Announced pages do not count.
  // REQUIRES: no thread keeps pages.
  absl::StatusOr<Size> Resize(uint64_t pages);
  // Says how many pages the backing has and can have (Backing::held_pages).  None behind them is
  // given out from now on.  REQUIRES: no thread keeps pages.
  void Hold(std::optional<uint64_t> pages);
  std::optional<uint64_t> held() const;
  // The size that the region has with the pages that are in use now.
  static Size SizeFor(const PageMap& map, uint64_t pages);

  static uint64_t ReserveFor(uint64_t pages) { return pages < 1024 ? 2 : 16; }

  // Tests and benchmarks: how often the lock was taken to take pages, or to free them.
  uint64_t visits() const { return visits_.load(std::memory_order_relaxed); }

 private:
  // PageMap says which of its calls need no lock.
  static uint64_t Total(absl::Span<const PageRun> runs);
  const PageMap& map_unguarded() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return map_; }

  std::atomic<uint64_t>& Stocked(Purpose purpose) { return stocked_[static_cast<size_t>(purpose)]; }
  uint64_t Kept(Urgency urgency) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  PageRun Allocate(Purpose purpose, uint64_t want, Pfn goal) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Release(PageRun run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NotePlenty() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Visit() { visits_.fetch_add(1, std::memory_order_relaxed); }
  void RefillSpare(std::vector<PageRun>* runs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FillSpare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropSpare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Apply() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveBack(PageRun run);
  void AddIdle(PageRun run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveBackIdleLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetFrom(uint64_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShrinkTail() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool AllExist(const std::vector<PageRun>& runs) const;

  Backing* const backing_;
  bool keeps_tail_ = false;
  Bitmap exists_, touched_;
  std::atomic<bool> plenty_{false};
  std::array<std::atomic<uint64_t>, 2> stocked_{};  // in use to the map, and kept by threads
  std::atomic<uint64_t> coming_{0}, returns_{0}, visits_{0};

  mutable Mutex mu_;
  CondVar returned_;
  PageMap map_ ABSL_GUARDED_BY(mu_);
  bool stocking_ ABSL_GUARDED_BY(mu_) = true;
  Size size_ ABSL_GUARDED_BY(mu_);                     // of the region
  std::optional<uint64_t> held_ ABSL_GUARDED_BY(mu_);  // of the backing
  uint64_t reserve_ ABSL_GUARDED_BY(mu_) = 0;
  bool keeps_spare_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Pfn> spare_ ABSL_GUARDED_BY(mu_);  // of the reserve, in use to the map
  uint64_t beyond_ ABSL_GUARDED_BY(mu_) = 0;     // pages that must stay free
  // Free pages that may exist, to be given back together; some of them are in use again.
  std::vector<PageRun> idle_ ABSL_GUARDED_BY(mu_);
  uint64_t idle_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t high_water_ ABSL_GUARDED_BY(mu_) = 0;  // pages the backing may have
};

}  // namespace pkram

#endif  // PKRAM_DEPOT_H_
