// The life of a page between uses.
//
//   free -> allocated (nothing reaches it yet) -> reachable -> limbo -> free
//
// A page that was made unreachable goes to limbo, because a reader may still be answering a request
// straight from it.  Such a reader holds a Pin.  A page leaves limbo when no pin is left that was
// taken before the page entered.  Then its memory is given back to the system.
//
// The Depot has the free pages.  Each thread keeps some of them at hand, its stock, and the pages
// that it has retired.  So threads that create, write and delete files of their own seldom meet at
// a lock.
#ifndef PKRAM_SPACE_H_
#define PKRAM_SPACE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/depot.h"
#include "pkram/loans.h"
#include "pkram/mutex.h"
#include "pkram/pins.h"
#include "pkram/shared_pages.h"
#include "pkram/thread_number.h"
#include "pkram/types.h"

namespace pkram {

class Space {
 public:
  using Counts = Depot::Counts;
  using Size = Depot::Size;

  // `backing` and `mapping` must outlive it; `map` has its claims finished.  `limit` as
  // in Size.
  Space(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit = 0,
        std::unique_ptr<Loans> loans = nullptr);

  // One page for metadata, existing and zeroed.  RESOURCE_EXHAUSTED.
  absl::StatusOr<Pfn> AllocateMetadata(Urgency urgency = Urgency::kNormal);

  // 1 to `want` consecutive pages for data, at `goal` if it is free.  They may
  // not exist yet: fill them with Region::Fill.  RESOURCE_EXHAUSTED.
  absl::StatusOr<PageRun> AllocateData(uint64_t want, Pfn goal);

  // Frees pages that never became reachable, at once.
  void Discard(PageRun run);

  // Says that entries of these pages are gone.  Pages that nothing reaches any more go to limbo.
  // REQUIRES: the transaction that dropped them has returned.
  void Retire(std::vector<PageRun> runs);

  // Says that pages will come soon, because a file was deleted that the kernel is about to forget.
  // An allocation that finds nothing waits for them.
  void ExpectPages() { expected_until_ = Clock::now().time_since_epoch() + forgetting_; }
  // Until when.
  std::chrono::steady_clock::time_point expected_until() const {
    return Clock::time_point(expected_until_.load());
  }

  // --- Pages for other processes to work on (loans.h) ---
  // Lends 1 to `want` free pages, and not most of what is free, to a process that is going to lock
  // them.  They may not exist yet.  RESOURCE_EXHAUSTED.
  absl::StatusOr<PageRun> Lend(uint64_t want);
  // Frees lent and held pages that nobody has locked any more.
  void RecheckLoans();
  Loans& loans() { return *loans_; }
  // To be set before use: a function that is called when no page is left, before an allocation
  // fails. It returns true if there are pages now.
  void set_shortage(std::function<bool()> shortage) { shortage_ = std::move(shortage); }
  // Adds free pages, which were in use in the map that this was made with.
  void Add(PageRun run);

  // Says that one more entry refers to each page of `runs`.  REQUIRES: the locks of an entry that
  // does already, and of the new one.
  void Share(absl::Span<const PageRun> runs) { shared_.Add(runs); }
  // Whether others may see what is stored to the page: through another entry than the one whose
  // lock is held exclusively, or as a reader who found the page by an entry that is gone.
  bool Shared(Pfn pfn) const { return shared_.Shared(pfn) || loans_->Held(pfn) || ReadersMaySee(); }
  // Waits for such readers, as long as an allocation waits for limbo.  False when other entries are
  // left, or the readers did not leave.
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

  Counts counts() const { return depot_.counts(); }
  // The pages in use.  Pages in limbo are among them; pages that are lent are not.
  Bitmap InUse();

  Depot& depot() { return depot_; }

  // How long an allocation that finds only limbo waits for readers.
  void set_limbo_patience(std::chrono::milliseconds patience) { patience_ = patience; }
  // For how long pages are expected.
  void set_forgetting(std::chrono::milliseconds time) { forgetting_ = time; }

  // As Depot's.  Threads give back what they keep at hand first.
  void GiveBackUnused();
  bool GiveBackIdle();
  void KeepSpare() { depot_.KeepSpare(); }
  // Asks the backing whether its size is held.  Then the region is full when all pages that exist
  // are in use.  True if something has changed.
  bool FollowBacking();
  // How often something has changed, whoever asked.  After an allocation whose pages could not
  // exist, another one may succeed if it has.
  uint64_t holds() const { return holds_.load(); }
  // At most the mapping's pages.  OUT_OF_RANGE when more than `pages` are in use.
  absl::StatusOr<Size> Resize(uint64_t pages);

  static Size SizeFor(const PageMap& map, uint64_t pages) { return Depot::SizeFor(map, pages); }
  static uint64_t ReserveFor(uint64_t pages) { return Depot::ReserveFor(pages); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Grave {
    uint64_t epoch;  // the last one that may have seen these pages
    std::vector<PageRun> runs;
  };
  // What some threads keep.
  struct alignas(64) Stock {
    mutable Mutex mu;
    // Single pages that exist, by Purpose, and a run that need not.
    std::array<std::vector<Pfn>, 2> pages ABSL_GUARDED_BY(mu);
    PageRun run ABSL_GUARDED_BY(mu);
    std::atomic<uint64_t> goal{0};  // run's first page, for threads that look for it; 0: none
    std::deque<Grave> limbo ABSL_GUARDED_BY(mu);

    std::vector<Pfn>& Pages(Purpose purpose) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
      return pages[static_cast<size_t>(purpose)];
    }
  };

  Stock& Mine() { return stocks_[ThreadNumber() % stocks_.size()]; }
  Pfn TakeStocked(Purpose purpose);
  PageRun TakeStockedData(uint64_t want, Pfn goal);
  PageRun Cut(Stock* stock, uint64_t want) ABSL_EXCLUSIVE_LOCKS_REQUIRED(stock->mu);
  bool GiveUpStocks();
  PageRun Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency);

  bool ReadersMaySee() const {
    const uint64_t unshared = unshared_.load();
    return unshared != 0 && pins_.Oldest() <= unshared;
  }
  void NoteUnshared();
  void Leave(Pins::Word* word, uint64_t epoch);
  void Lay(std::vector<PageRun> last);
  void Exhume(Stock* stock);
  void Bury(std::vector<PageRun> runs);

  Backing* const backing_;
  Mapping* const mapping_;
  Mutex resizing_mu_;  // taken before the locks of stocks
  std::atomic<uint64_t> holds_{0};
  std::chrono::milliseconds patience_{5000}, forgetting_{500};
  std::atomic<Clock::duration> expected_until_{Clock::duration::min()};
  const std::unique_ptr<Loans> loans_;
  std::function<bool()> shortage_;
  SharedPages shared_;
  Depot depot_;
  std::array<Stock, 16> stocks_;

  // A reader takes this number under the lock by which it has found a page.  So it is not later
  // than the epoch in which that page is retired.
  std::atomic<uint64_t> epoch_{1};
  Pins pins_;
  // A reader that leaves looks at this: how many stocks have pages in limbo, and how many threads
  // wait in AwaitReaders.  It is raised before they look at pins_.
  std::atomic<uint64_t> awaiting_{0};
  std::atomic<uint64_t> unshared_{0};  // the last epoch in which a shared page lost an entry
  Mutex waiting_mu_;                   // of AwaitReaders
  CondVar left_;
};

}  // namespace pkram

#endif  // PKRAM_SPACE_H_
