#include "pkram/space.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace pkram {
namespace {

// How many pages a thread takes at once (PageMap gives a longer run a cluster of its own), and how
// many single pages of a purpose it keeps at most.
constexpr uint64_t kAtOnce = 15, kKept = 32;

absl::Status Full() { return absl::ResourceExhaustedError("the region is full"); }

}  // namespace

Space::Space(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit,
             std::unique_ptr<Loans> loans)
    : backing_(backing),
      mapping_(mapping),
      loans_(loans != nullptr ? std::move(loans)
                              : std::make_unique<Loans>(backing->fd(), mapping->pages())),
      shared_(map.TakeReferences()),
      depot_(backing, mapping, std::move(map), limit) {}

// --- Pages at hand ------------------------------------------------------------

// Takes a page from the stock.  Pfn() if it has none; of metadata also if the depot has not many
// more.
Pfn Space::TakeStocked(Purpose purpose) {
  Stock& mine = Mine();
  MutexLock lock(&mine.mu);
  std::vector<Pfn>& pages = mine.Pages(purpose);
  if (pages.empty() && purpose == Purpose::kMetadata) {
    const PageRun run = depot_.TakeSome(purpose, kAtOnce);
    if (run.count > 0 && depot_.MakeExist(run).ok()) {
      for (uint64_t i = run.count; i > 0; --i) pages.push_back(run.first + (i - 1));
    } else {
      depot_.Use(purpose, run.count);  // free again
    }
  }
  if (pages.empty()) return Pfn();
  const Pfn pfn = pages.back();
  pages.pop_back();
  depot_.Use(purpose, 1);
  return pfn;
}

PageRun Space::Cut(Stock* stock, uint64_t want) {
  const PageRun cut{stock->run.first, std::min(want, stock->run.count)};
  stock->run = {cut.first + cut.count, stock->run.count - cut.count};
  stock->goal = stock->run.count > 0 ? stock->run.first.value() : 0;
  return cut;
}

// One thread after the other may write to a file that grows by small writes.  Then the file's next
// page is in the stock of the thread that has written before.
PageRun Space::TakeStockedData(uint64_t want, Pfn goal) {
  if (goal) {
    for (Stock& stock : stocks_) {
      if (stock.goal != goal.value()) continue;
      MutexLock lock(&stock.mu);
      if (stock.run.count > 0 && stock.run.first == goal) {
        const PageRun run = Cut(&stock, want);
        depot_.Use(Purpose::kData, run.count);
        return run;
      }
    }
    return {};
  }
  if (want == 1) {
    if (const Pfn pfn = TakeStocked(Purpose::kData)) return {pfn, 1};
  }
  if (want > kAtOnce) return {};
  Stock& mine = Mine();
  MutexLock lock(&mine.mu);
  if (mine.run.count < want) {
    depot_.PutBack(Purpose::kData, mine.run);
    mine.run = depot_.TakeSome(Purpose::kData, kAtOnce);
  }
  const PageRun run = Cut(&mine, want);
  depot_.Use(Purpose::kData, run.count);
  return run;
}

// Gives all pages that threads keep back to the depot.  False if there were none.
bool Space::GiveUpStocks() {
  bool any = false;
  for (Stock& stock : stocks_) {
    MutexLock lock(&stock.mu);
    for (const Purpose purpose : {Purpose::kMetadata, Purpose::kData}) {
      std::vector<Pfn>& pages = stock.Pages(purpose);
      for (const Pfn pfn : pages) depot_.PutBack(purpose, {pfn, 1});
      any |= !pages.empty();
      pages.clear();
    }
    any |= stock.run.count > 0;
    depot_.PutBack(Purpose::kData, Cut(&stock, stock.run.count));
  }
  return any;
}

// --- Allocation ---------------------------------------------------------------

// Waits for limbo if the free pages are there.  Readers that hold pins take no locks, so waiting
// under locks cannot deadlock.  Waits for what the kernel is about to forget, too: that takes no
// lock of a caller but, perhaps, the inode table's, and then the wait is in vain.
PageRun Space::Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency) {
  std::optional<std::chrono::steady_clock::time_point> deadline;
  for (uint64_t returns = depot_.returns();;) {
    if (const PageRun run = depot_.Take(purpose, want, goal, urgency); run.count > 0) return run;
    if (urgency == Urgency::kMakesSpace && depot_.HasSpare()) return {};
    if (GiveUpStocks()) continue;
    RecheckLoans();
    if (depot_.coming() == 0) {
      // Pages may have come since Take has looked.
      if (returns == depot_.returns()) {
        if (FollowBacking()) continue;
        if (shortage_ && shortage_()) continue;
        if (Clock::now() < expected_until() && depot_.AwaitReturn(&returns, expected_until())) {
          continue;
        }
        return {};
      }
      returns = depot_.returns();
      continue;
    }
    if (!deadline) deadline = std::chrono::steady_clock::now() + patience_;
    if (!depot_.AwaitReturn(&returns, *deadline)) {
      return depot_.Take(purpose, want, goal, urgency);
    }
  }
}

absl::StatusOr<Pfn> Space::AllocateMetadata(Urgency urgency) {
  Pfn pfn;
  absl::Status error;
  // The backing has no space for a page, but other threads may keep pages that exist.
  const uint64_t seen = holds();
  for (int attempt = 0; attempt < 2 && !pfn; ++attempt) {
    if (attempt > 0 && !FollowBacking() && holds() == seen && !GiveUpStocks()) break;
    pfn = TakeStocked(Purpose::kMetadata);
    if (pfn) break;
    error = Full();
    if (const PageRun run = Take(Purpose::kMetadata, 1, Pfn(), urgency); run.count > 0) {
      error = depot_.MakeExist(run);
      if (error.ok()) pfn = run.first;
    }
    if (!pfn && urgency == Urgency::kMakesSpace) pfn = depot_.TakeSpare();
  }
  if (!pfn) return error;
  std::memset(mapping_->WritableAt(pfn), 0, kPageSize);
  return pfn;
}

absl::StatusOr<PageRun> Space::AllocateData(uint64_t want, Pfn goal) {
  PageRun run = TakeStockedData(want, goal);
  if (run.count == 0) run = Take(Purpose::kData, want, goal, Urgency::kNormal);
  if (run.count == 0) return Full();
  return run;
}

void Space::Discard(PageRun run) {
  if (run.count == 0) return;
  depot_.Announce({&run, 1});
  depot_.Return({run});
}

// --- Limbo --------------------------------------------------------------------

void Space::NoteUnshared() {
  const uint64_t epoch = epoch_++;
  uint64_t before = unshared_;
  while (before < epoch && !unshared_.compare_exchange_weak(before, epoch)) {
  }
}

void Space::Retire(std::vector<PageRun> runs) {
  if (runs.empty()) return;
  std::vector<PageRun> last;
  shared_.Drop(runs, &last, [this] { NoteUnshared(); });
  loans_->Withhold(&last);
  if (last.empty()) return;
  depot_.Announce(last);
  Lay(std::move(last));
}

// Puts announced pages into limbo.
void Space::Lay(std::vector<PageRun> last) {
  const uint64_t epoch = epoch_++;
  // Every reader that may have seen these pages has pinned them before their entries were dropped.
  if (pins_.Oldest() > epoch) return Bury(std::move(last));
  Stock& mine = Mine();
  {
    MutexLock lock(&mine.mu);
    if (mine.limbo.empty()) ++awaiting_;
    mine.limbo.push_back({epoch, std::move(last)});
  }
  Exhume(&mine);
}

// Takes pages out of limbo that no reader can see any more.
void Space::Exhume(Stock* stock) {
  std::vector<PageRun> dead;
  {
    MutexLock lock(&stock->mu);
    if (stock->limbo.empty()) return;
    const uint64_t oldest = pins_.Oldest();
    while (!stock->limbo.empty() && stock->limbo.front().epoch < oldest) {
      std::vector<PageRun>& runs = stock->limbo.front().runs;
      dead.insert(dead.end(), runs.begin(), runs.end());
      stock->limbo.pop_front();
    }
    if (stock->limbo.empty()) --awaiting_;
  }
  Bury(std::move(dead));
}

// Frees announced pages.  The thread keeps some of those that exist, because it will need pages
// soon.
void Space::Bury(std::vector<PageRun> runs) {
  if (runs.empty()) return;
  std::vector<PageRun> rest;
  Stock& mine = Mine();
  {
    MutexLock lock(&mine.mu);
    for (const PageRun& run : runs) {
      const Purpose purpose = depot_.PurposeOf(run.first);
      std::vector<Pfn>& pages = mine.Pages(purpose);
      if (run.count == 1 && pages.size() < kKept && depot_.plenty() &&
          depot_.MustExist(run.first)) {
        pages.push_back(run.first);
        depot_.NoteExist(run);
        depot_.Keep(purpose);
      } else {
        rest.push_back(run);
      }
    }
  }
  depot_.Return(std::move(rest));
}

void Space::Leave(Pins::Word* word, uint64_t epoch) {
  pins_.Leave(word, epoch);
  if (awaiting_ == 0) return;
  for (Stock& stock : stocks_) Exhume(&stock);
  { MutexLock lock(&waiting_mu_); }  // who waits has looked at the pins before, or looks after this
  left_.NotifyAll();
}

bool Space::AwaitReaders(Pfn pfn) {
  const auto deadline = std::chrono::steady_clock::now() + patience_;
  MutexLock lock(&waiting_mu_);
  ++awaiting_;
  bool in_time = true;
  while (in_time && !shared_.Shared(pfn) && !loans_->Held(pfn) && ReadersMaySee()) {
    in_time = left_.WaitUntil(&waiting_mu_, deadline);
  }
  --awaiting_;
  return !Shared(pfn);
}

// --- Loans --------------------------------------------------------------------

absl::StatusOr<PageRun> Space::Lend(uint64_t want) {
  RecheckLoans();
  constexpr uint64_t kLeast = 64;
  want = std::clamp<uint64_t>(want, 1, std::max(kLeast, counts().free / 4));
  for (;;) {
    const PageRun run = Take(Purpose::kData, want, Pfn(), Urgency::kNormal);
    if (run.count == 0) return Full();
    // A process may have locked pages that were not lent to it.  They wait until it unlocks them.
    if (loans_->WithholdIfLocked(run)) continue;
    mapping_->WritableRun(run);  // for those who watch: others store to it from now on
    loans_->Lend(run);
    return run;
  }
}

void Space::RecheckLoans() {
  std::vector<PageRun> freed = loans_->Recheck();
  if (freed.empty()) return;
  depot_.Announce(freed);
  // A reader of this process may have found a page that was withheld before it was retired.
  Lay(std::move(freed));
}

void Space::Add(PageRun run) { depot_.Add(run); }

// --- All pages ----------------------------------------------------------------

// Pages that a thread keeps are not in use, and need not exist.
Bitmap Space::InUse() {
  depot_.SetStocking(false);
  GiveUpStocks();
  Bitmap in_use = depot_.InUse();
  loans_->RemoveUnreachable(&in_use);
  depot_.SetStocking(true);
  return in_use;
}

void Space::GiveBackUnused() {
  GiveUpStocks();
  depot_.GiveBackUnused();
}

bool Space::GiveBackIdle() {
  GiveUpStocks();
  return depot_.GiveBackIdle();
}

bool Space::FollowBacking() {
  // Who lends the pages has followed.
  if (depot_.keeps_tail()) return false;
  MutexLock lock(&resizing_mu_);
  const std::optional<uint64_t> held = backing_->held_pages();
  if (held == depot_.held()) return false;
  depot_.SetStocking(false);
  GiveUpStocks();
  depot_.Hold(held);
  depot_.SetStocking(true);
  ++holds_;
  return true;
}

absl::StatusOr<Space::Size> Space::Resize(uint64_t pages) {
  MutexLock lock(&resizing_mu_);
  depot_.SetStocking(false);
  GiveUpStocks();
  absl::StatusOr<Size> size = depot_.Resize(pages);
  depot_.SetStocking(true);
  return size;
}

}  // namespace pkram
