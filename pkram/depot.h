// The free pages of a region, under one lock; and which pages are known to exist.
//
// A page exists when its backing has memory for it.  Pages come and go one request at a time, so
// threads keep some at hand (Space) and seldom need this lock.
//
// Thread-safe.
#ifndef PKRAM_DEPOT_H_
#define PKRAM_DEPOT_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
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

// Who may take the last pages: they are kept for operations that make space.
enum class Urgency { kNormal, kMakesSpace };

class Depot {
 public:
  // `backing` and `mapping` must outlive it; `map` has its claims finished.  `limit` as in Size.
  Depot(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit);

  // 1 to `want` pages, at `goal` if that page is free.  Count 0: there is none to be had.
  PageRun Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency);
  // The same for a thread to keep, as long as there are many more.
  PageRun TakeSome(Purpose purpose, uint64_t want);
  // Makes pages exist that were taken.  RESOURCE_EXHAUSTED: they are free again.
  absl::Status MakeExist(PageRun run);
  // One of the last pages, which exist; Pfn() if none is left.
  Pfn TakeSpare();
  bool HasSpare() const;

  // Whether threads may keep pages at hand: there are many more.
  bool plenty() const { return plenty_.load(std::memory_order_relaxed); }
  // No thread keeps any from now on, or may again.
  void SetStocking(bool allowed);

  // A page's way back: it is announced when nothing reaches it any more, and then it is returned,
  // or kept by a thread.
  void Announce(absl::Span<const PageRun> runs) { coming_ += Total(runs); }
  uint64_t coming() const { return coming_; }
  // Frees pages that were announced, and gives their memory back; of a few, when there are more.
  void Return(std::vector<PageRun> runs);
  // A thread keeps a page that was announced.
  void Keep(Purpose purpose) {
    ++Stocked(purpose);
    --coming_;
  }
  // Pages that a thread has kept, or taken by TakeSome, are used by it, or free again.
  void Use(Purpose purpose, uint64_t pages) { Stocked(purpose) -= pages; }
  void PutBack(Purpose purpose, PageRun run);
  // Pages in use that somebody else has filled: they exist, and are of this purpose.
  void Adopt(PageRun run, Purpose purpose);
  // Pages that are free from now on, and were in use to the map.
  void Add(PageRun run);

  // How often pages have been freed.  Await waits until that is not `seen` any more, and stores
  // the new number there; false when `deadline` has passed.
  uint64_t returns() const { return returns_.load(); }
  bool AwaitReturn(uint64_t* seen, std::chrono::steady_clock::time_point deadline);

  // Which pages are known to exist, because this process has made them exist: as long as such a
  // page is in use, a store to it finds space (but on filesystems that copy a page when it is
  // written).
  bool Exist(PageRun run) const { return exists_.TestAmongOthers(run.first.value(), run.count); }
  void NoteExist(PageRun run) { exists_.SetAmongOthers(run.first.value(), run.count, true); }
  // Which pages this process has touched through the mapping since they came to be: touching them
  // again takes no fault, unless the system has swapped them out.
  bool Touched(PageRun run) const { return touched_.TestAmongOthers(run.first.value(), run.count); }
  void NoteTouched(PageRun run) { touched_.SetAmongOthers(run.first.value(), run.count, true); }
  // They are going to be given back.
  void Forget(PageRun run) {
    exists_.SetAmongOthers(run.first.value(), run.count, false);
    touched_.SetAmongOthers(run.first.value(), run.count, false);
  }
  // What a page in use was taken for.
  Purpose PurposeOf(Pfn pfn) const {
    return map_unguarded().IsData(pfn) ? Purpose::kData : Purpose::kMetadata;
  }
  // Whether a page in use exists as far as can be told: metadata that was reachable when the region
  // was opened does; data may be a hole of a region's file that was copied without its zeros.
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

  // From now on the tail stays as it is: it is somebody else's matter.  Before use.
  void KeepTail() { keeps_tail_ = true; }
  // Gives back what nothing uses (a crash may have left some), and the tail.
  void GiveBackUnused();
  // Gives back free pages that were kept to be used again, or to be given back together; false
  // when there are none.
  bool GiveBackIdle();
  // From now on the reserve's pages exist, as far as there is space for them; until
  // GiveBackUnused.
  void KeepSpare();

  // What a region of another size comes to.
  struct Size {
    uint64_t pages;  // that it has
    uint64_t limit;  // that may be in use, when pages beyond the wanted size are; or 0
  };
  // OUT_OF_RANGE when more than `pages` are in use; those that were announced are not.
  // REQUIRES: threads keep none.
  absl::StatusOr<Size> Resize(uint64_t pages);
  // The size of a region whose pages in use are these.
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
  uint64_t reserve_ ABSL_GUARDED_BY(mu_) = 0;
  bool keeps_spare_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Pfn> spare_ ABSL_GUARDED_BY(mu_);  // of the reserve, in use to the map
  uint64_t beyond_ ABSL_GUARDED_BY(mu_) = 0;     // pages that must stay free: Size::limit
  // Free pages that may exist, to be given back together; some of them are in use again.
  std::vector<PageRun> idle_ ABSL_GUARDED_BY(mu_);
  uint64_t idle_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t high_water_ ABSL_GUARDED_BY(mu_) = 0;  // pages the backing may have
};

}  // namespace pkram

#endif  // PKRAM_DEPOT_H_
