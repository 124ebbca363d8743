// Free pages, and the life of a page between uses.
//
//   free -> allocated (nothing reaches it yet) -> reachable -> limbo -> free
//
// A page that was made unreachable goes to limbo: a reader may still be
// answering a request straight from it.  Such a reader holds a Pin; a page leaves
// limbo when no pin is left that was taken before the page entered.  Its memory
// is then given back to the system.
#ifndef PKRAM_SPACE_H_
#define PKRAM_SPACE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/backing.h"
#include "pkram/bitmap.h"
#include "pkram/mapping.h"
#include "pkram/mutex.h"
#include "pkram/page_map.h"
#include "pkram/pins.h"
#include "pkram/types.h"

namespace pkram {

// Who may take the last pages: they are kept for operations that make space.
enum class Urgency { kNormal, kMakesSpace };

class Space {
 public:
  // `backing` and `mapping` must outlive it; `map` has its claims finished.  `limit` as
  // in Size.
  Space(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit = 0);

  // One page for metadata, existing and zeroed.  RESOURCE_EXHAUSTED.
  absl::StatusOr<Pfn> AllocateMetadata(Urgency urgency = Urgency::kNormal);

  // 1 to `want` consecutive pages for data, at `goal` if it is free.  They do
  // not exist yet: fill them with Backing::Fill.  RESOURCE_EXHAUSTED.
  absl::StatusOr<PageRun> AllocateData(uint64_t want, Pfn goal);

  // Pages that never became reachable: free at once.
  void Discard(PageRun run);

  // Entries of these pages that are no more: pages that this makes unreachable go to limbo.
  // REQUIRES: the transaction that dropped them has returned.
  void Retire(std::vector<PageRun> runs);

  // One entry more refers to each page of `runs`.  Under the locks of an entry that does
  // already, and of the new one.
  void Share(absl::Span<const PageRun> runs);
  // Whether what is stored to the page may be seen by other entries than the one whose
  // lock is held exclusively, or by a reader who found it by another that is no more.
  bool Shared(Pfn pfn) const;
  // Waits for such readers, as long as for limbo; false when other entries are left, or
  // the readers did not leave.
  bool AwaitReaders(Pfn pfn);

  // Holds back the reuse of every page that is reachable now.  Taken under the
  // lock that makes the page reachable, kept while no lock is.
  class Pin {
   public:
    Pin() = default;
    explicit Pin(Space* space)
        : space_(space), epoch_(space->epoch_.load()), word_(space->pins_.Enter(epoch_)) {}
    Pin(Pin&& other) noexcept { *this = std::move(other); }
    Pin& operator=(Pin&& other) noexcept {
      Drop();
      space_ = std::exchange(other.space_, nullptr);
      epoch_ = other.epoch_;
      word_ = other.word_;
      return *this;
    }
    ~Pin() { Drop(); }

   private:
    void Drop() {
      if (space_ != nullptr) space_->Leave(word_, epoch_);
      space_ = nullptr;
    }
    Space* space_ = nullptr;
    uint64_t epoch_ = 0;
    Pins::Word* word_ = nullptr;
  };

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
  // Which pages are in use; limbo included.
  Bitmap InUse() const;

  // How long an allocation that finds only limbo waits for readers.
  void set_limbo_patience(std::chrono::milliseconds patience) { patience_ = patience; }

  // Gives back what nothing uses (a crash may have left some), and the tail.
  void GiveBackUnused();

  // Gives back free pages that were kept to be used again, or given back together; false
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
  // At most the mapping's pages.  OUT_OF_RANGE when more than `pages` are in use.
  absl::StatusOr<Size> Resize(uint64_t pages);
  // The size of a region whose pages in use are these.
  static Size SizeFor(const PageMap& map, uint64_t pages);

  static uint64_t ReserveFor(uint64_t pages) { return pages < 1024 ? 2 : 16; }

 private:
  struct Grave {
    uint64_t epoch;  // the last one that may have seen these pages
    std::vector<PageRun> runs;
  };

  bool ReadersMaySee() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return unshared_ != 0 && pins_.Oldest() <= unshared_;
  }
  void Leave(Pins::Word* word, uint64_t epoch);
  PageRun Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency);
  enum class Existed { kYes, kPerhaps };
  void Bury(std::vector<PageRun> runs, Existed existed);  // gives back, then frees
  bool AreMetadata(const std::vector<PageRun>& runs) const;
  std::vector<PageRun> Exhume() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteWhoAwaitsReaders() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Pfn> TakeMetadata(Urgency urgency);
  void FillSpare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropSpare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShrinkTail() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveBackIdleLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Full() const;

  Backing* const backing_;
  Mapping* const mapping_;
  std::chrono::milliseconds patience_{5000};

  mutable Mutex mu_;
  CondVar freed_;
  PageMap map_ ABSL_GUARDED_BY(mu_);
  uint64_t reserve_ ABSL_GUARDED_BY(mu_) = 0;
  bool keeps_spare_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Pfn> spare_ ABSL_GUARDED_BY(mu_);  // of the reserve, in use to the map
  uint64_t beyond_ ABSL_GUARDED_BY(mu_) = 0;     // pages that must stay free: Size::limit
  // Free pages that exist already: metadata is reserved a batch at a time, and pages that
  // were given up one by one are given back together.
  Bitmap exists_ ABSL_GUARDED_BY(mu_);
  std::vector<PageRun> idle_ ABSL_GUARDED_BY(mu_);  // of the latter; some are in use again
  uint64_t idle_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t high_water_ ABSL_GUARDED_BY(mu_) = 0;  // pages the backing may have
  // A reader takes this number under the lock by which he has found a page.  So it is not later
  // than the epoch in which that page is retired.
  std::atomic<uint64_t> epoch_{1};
  Pins pins_;
  // Whether a reader who leaves has to look who waits for that.  Set before they look at pins_.
  std::atomic<bool> readers_awaited_{false};
  uint64_t waiters_ ABSL_GUARDED_BY(mu_) = 0;   // in AwaitReaders
  uint64_t unshared_ ABSL_GUARDED_BY(mu_) = 0;  // the epoch when a shared page lost an entry
  std::deque<Grave> limbo_ ABSL_GUARDED_BY(mu_);
  uint64_t limbo_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t burying_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace pkram

#endif  // PKRAM_SPACE_H_
