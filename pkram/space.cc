#include "pkram/space.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkram {
namespace {

// Metadata pages made to exist by one call.
constexpr uint64_t kReserveBatch = 16;

// Giving back takes longer than deleting a small file: as many pages may wait for each
// other, if no more come at once.
constexpr uint64_t kMostIdle = 128;
constexpr uint64_t kFewPages = 16;

uint64_t Total(const std::vector<PageRun>& runs) {
  uint64_t n = 0;
  for (const PageRun& run : runs) n += run.count;
  return n;
}

// Sorted, and neighbours joined: one call gives back what one file held.
void Coalesce(std::vector<PageRun>* runs) {
  std::sort(runs->begin(), runs->end(),
            [](const PageRun& a, const PageRun& b) { return a.first < b.first; });
  size_t out = 0;
  for (size_t i = 1; i < runs->size(); ++i) {
    PageRun& last = (*runs)[out];
    const PageRun& run = (*runs)[i];
    if (last.first + last.count == run.first) {
      last.count += run.count;
    } else {
      (*runs)[++out] = run;
    }
  }
  if (!runs->empty()) runs->resize(out + 1);
}

}  // namespace

Space::Space(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit)
    : backing_(backing), mapping_(mapping), map_(std::move(map)), exists_(mapping->pages()) {
  MutexLock lock(&mu_);
  reserve_ = ReserveFor(limit == 0 ? map_.pages() : limit);
  beyond_ = limit == 0 ? 0 : map_.pages() - limit;
  high_water_ = map_.end();
}

absl::Status Space::Full() const { return absl::ResourceExhaustedError("the region is full"); }

// Allocates, waiting for limbo if that is where the free pages are.  Pins are
// held by readers that take no lock, so waiting under locks cannot deadlock.
PageRun Space::Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency) {
  const auto deadline = std::chrono::steady_clock::now() + patience_;
  MutexLock lock(&mu_);
  const auto keep = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const uint64_t missing = reserve_ - std::min<uint64_t>(reserve_, spare_.size());
    return beyond_ + (urgency == Urgency::kMakesSpace ? 0 : missing);
  };
  while (map_.free_pages() <= keep()) {
    if (limbo_.empty() && burying_ == 0) return {};
    if (!freed_.WaitUntil(&mu_, deadline) && map_.free_pages() <= keep()) return {};
  }
  const PageRun run = map_.Allocate(purpose, std::min(want, map_.free_pages() - keep()), goal);
  high_water_ = std::max(high_water_, run.first.value() + run.count);
  return run;
}

absl::StatusOr<Pfn> Space::AllocateMetadata(Urgency urgency) {
  absl::StatusOr<Pfn> pfn = TakeMetadata(urgency);
  if (!pfn.ok() && urgency == Urgency::kMakesSpace) {
    MutexLock lock(&mu_);
    if (!spare_.empty()) {
      pfn = spare_.back();
      spare_.pop_back();
      exists_.Set(pfn->value());
    }
  }
  if (pfn.ok()) std::memset(mapping_->WritableAt(*pfn), 0, kPageSize);
  return pfn;
}

absl::StatusOr<Pfn> Space::TakeMetadata(Urgency urgency) {
  {
    // What is kept for it is there at once.
    MutexLock lock(&mu_);
    if (urgency == Urgency::kMakesSpace && map_.free_pages() <= beyond_ && !spare_.empty()) {
      return Full();
    }
  }
  const PageRun run = Take(Purpose::kMetadata, 1, Pfn(), urgency);
  if (run.count == 0) return Full();
  const Pfn pfn = run.first;
  {
    // Reserving under the lock keeps the tail from being cut off meanwhile.
    MutexLock lock(&mu_);
    if (!exists_.Test(pfn.value())) {
      PageRun batch{pfn, 1};
      while (batch.count < kReserveBatch) {
        const Pfn next = pfn + batch.count;
        if (next.value() >= map_.pages() || next.value() % kClusterPages == 0 || map_.InUse(next) ||
            exists_.Test(next.value())) {
          break;
        }
        ++batch.count;
      }
      absl::Status reserved = backing_->Reserve(batch);
      if (!reserved.ok() && !idle_.empty()) {
        GiveBackIdleLocked();
        reserved = backing_->Reserve(batch);
      }
      if (!reserved.ok() && batch.count > 1) {
        batch.count = 1;
        reserved = backing_->Reserve(batch);
      }
      if (!reserved.ok()) {
        map_.Release(run);
        return reserved;
      }
      for (uint64_t i = 0; i < batch.count; ++i) exists_.Set(pfn.value() + i);
      high_water_ = std::max(high_water_, pfn.value() + batch.count);
    }
  }
  return pfn;
}

// Pages that exist already, so that making space does not take space: neither of the
// region nor of what is under it.
void Space::FillSpare() {
  // One by one: a run as long as the reserve would get a cluster of its own.
  while (keeps_spare_ && spare_.size() < reserve_ && map_.free_pages() > beyond_) {
    const PageRun run = map_.Allocate(Purpose::kMetadata, 1);
    if (!backing_->Reserve(run).ok()) {
      map_.Release(run);
      return;
    }
    high_water_ = std::max(high_water_, run.first.value() + 1);
    spare_.push_back(run.first);
  }
}

void Space::DropSpare() {
  for (const Pfn pfn : spare_) {
    backing_->GiveBack({pfn, 1});
    exists_.Clear(pfn.value());
    map_.Release({pfn, 1});
  }
  spare_.clear();
}

void Space::KeepSpare() {
  MutexLock lock(&mu_);
  keeps_spare_ = true;
  FillSpare();
}

absl::StatusOr<PageRun> Space::AllocateData(uint64_t want, Pfn goal) {
  const PageRun run = Take(Purpose::kData, want, goal, Urgency::kNormal);
  if (run.count == 0) return Full();
  return run;
}

void Space::Discard(PageRun run) {
  if (run.count == 0) return;
  {
    MutexLock lock(&mu_);
    burying_ += run.count;
  }
  Bury({run}, Existed::kPerhaps);
}

void Space::Retire(std::vector<PageRun> runs) {
  if (runs.empty()) return;
  std::vector<PageRun> dead;
  {
    MutexLock lock(&mu_);
    if (!map_.references().empty()) {
      const uint64_t entries = Total(runs);
      std::vector<PageRun> last;
      for (const PageRun& run : runs) map_.references().Drop(run, &last);
      runs = std::move(last);
      if (Total(runs) < entries) unshared_ = epoch_;
    }
    limbo_pages_ += Total(runs);
    if (!runs.empty()) limbo_.push_back({epoch_, std::move(runs)});
    ++epoch_;
    readers_awaited_ = true;
    dead = Exhume();
  }
  Bury(std::move(dead), Existed::kYes);
}

void Space::Share(absl::Span<const PageRun> runs) {
  MutexLock lock(&mu_);
  for (const PageRun& run : runs) map_.references().Add(run);
}

bool Space::Shared(Pfn pfn) const {
  MutexLock lock(&mu_);
  return map_.references().Shared(pfn) || ReadersMaySee();
}

bool Space::AwaitReaders(Pfn pfn) {
  const auto deadline = std::chrono::steady_clock::now() + patience_;
  MutexLock lock(&mu_);
  ++waiters_;
  readers_awaited_ = true;
  bool in_time = true;
  while (in_time && !map_.references().Shared(pfn) && ReadersMaySee()) {
    in_time = freed_.WaitUntil(&mu_, deadline);
  }
  --waiters_;
  NoteWhoAwaitsReaders();
  return !map_.references().Shared(pfn) && !ReadersMaySee();
}

void Space::NoteWhoAwaitsReaders() { readers_awaited_ = waiters_ > 0 || !limbo_.empty(); }

std::vector<PageRun> Space::Exhume() {
  const uint64_t oldest = pins_.Oldest();
  std::vector<PageRun> dead;
  while (!limbo_.empty() && limbo_.front().epoch < oldest) {
    std::vector<PageRun>& runs = limbo_.front().runs;
    dead.insert(dead.end(), runs.begin(), runs.end());
    limbo_.pop_front();
  }
  const uint64_t n = Total(dead);
  limbo_pages_ -= n;
  burying_ += n;
  NoteWhoAwaitsReaders();
  return dead;
}

// Pages of metadata exist if they were reachable; one of data may be a hole of a region
// that was copied without them.
bool Space::AreMetadata(const std::vector<PageRun>& runs) const {
  MutexLock lock(&mu_);
  for (const PageRun& run : runs) {
    for (uint64_t i = 0; i < run.count; ++i) {
      if (map_.IsData(run.first + i)) return false;
    }
  }
  return true;
}

void Space::Bury(std::vector<PageRun> runs, Existed existed) {
  if (runs.empty()) return;
  Coalesce(&runs);
  {
    // What was taken from the spare pages is put back first.  A page need not exist: it may
    // be one that could not be filled.
    MutexLock lock(&mu_);
    while (keeps_spare_ && spare_.size() < reserve_ && !runs.empty()) {
      PageRun& run = runs.back();
      const Pfn last = run.first + (run.count - 1);
      if (!backing_->Reserve({last, 1}).ok()) break;
      map_.Release({last, 1});  // it may have been data
      spare_.push_back(map_.Allocate(Purpose::kMetadata, 1, last).first);
      --burying_;
      if (--run.count == 0) runs.pop_back();
    }
  }
  const uint64_t n = Total(runs);
  const bool idle = n <= kFewPages && existed == Existed::kYes && AreMetadata(runs);
  for (const PageRun& run : runs) {
    if (!idle) backing_->GiveBack(run);
  }
  {
    MutexLock lock(&mu_);
    for (const PageRun& run : runs) {
      for (uint64_t i = 0; i < run.count; ++i) exists_.Assign(run.first.value() + i, idle);
      map_.Release(run);
      if (idle) idle_.push_back(run);
    }
    burying_ -= n;
    if (idle) idle_pages_ += n;
    if (idle_pages_ > kMostIdle) GiveBackIdleLocked();
    ShrinkTail();
  }
  freed_.NotifyAll();
}

void Space::GiveBackIdleLocked() {
  std::vector<PageRun> pages;
  for (const PageRun& run : std::exchange(idle_, {})) {
    for (Pfn pfn = run.first; pfn < run.first + run.count; pfn = pfn + 1) {
      if (map_.InUse(pfn) || !exists_.Test(pfn.value())) continue;
      exists_.Clear(pfn.value());
      pages.push_back({pfn, 1});
    }
  }
  idle_pages_ = 0;
  Coalesce(&pages);
  for (const PageRun& run : pages) backing_->GiveBack(run);
}

bool Space::GiveBackIdle() {
  MutexLock lock(&mu_);
  if (idle_.empty()) return false;
  GiveBackIdleLocked();
  return true;
}

void Space::ShrinkTail() {
  const uint64_t end = (map_.end() + kClusterPages - 1) / kClusterPages * kClusterPages;
  if (high_water_ <= end) return;
  backing_->ShrinkTo(end);
  for (uint64_t at = end; (at = exists_.FindSet(at, exists_.size())) != Bitmap::kNone; ++at) {
    exists_.Clear(at);
  }
  high_water_ = end;
}

void Space::Leave(Pins::Word* word, uint64_t epoch) {
  pins_.Leave(word, epoch);
  if (!readers_awaited_) return;
  std::vector<PageRun> dead;
  {
    MutexLock lock(&mu_);
    dead = Exhume();
  }
  if (dead.empty()) freed_.NotifyAll();  // AwaitReaders
  Bury(std::move(dead), Existed::kYes);
}

Bitmap Space::InUse() const {
  MutexLock lock(&mu_);
  return map_.used().Copy(map_.end());
}

Space::Counts Space::counts() const {
  MutexLock lock(&mu_);
  Counts c;
  c.total = map_.pages() - beyond_;
  c.limbo = limbo_pages_ + burying_;
  const uint64_t all_free = map_.free_pages() + c.limbo + spare_.size();
  const uint64_t free = all_free - std::min(all_free, beyond_);
  c.reserved = std::min(free, reserve_);
  c.free = free - c.reserved;
  c.end = map_.end();
  c.data = map_.data_pages();
  c.metadata = map_.pages() - map_.free_pages() - c.data - spare_.size();
  return c;
}

// Pages do not move, so a region cannot end before its last one.
Space::Size Space::SizeFor(const PageMap& map, uint64_t pages) {
  const uint64_t end = map.end();
  return end <= pages ? Size{pages, 0} : Size{end, pages};
}

absl::StatusOr<Space::Size> Space::Resize(uint64_t pages) {
  MutexLock lock(&mu_);
  DropSpare();
  const uint64_t needed = map_.pages() - map_.free_pages() - limbo_pages_ - burying_;
  const bool grows = pages >= map_.pages() - beyond_;
  if (!grows && needed + ReserveFor(pages) > pages) {
    FillSpare();
    return absl::OutOfRangeError(absl::StrCat(needed + ReserveFor(pages), " pages are needed"));
  }
  const Size size = SizeFor(map_, pages);
  map_.SetPages(size.pages);
  beyond_ = size.limit == 0 ? 0 : size.pages - size.limit;
  reserve_ = ReserveFor(pages);
  FillSpare();
  freed_.NotifyAll();
  return size;
}

void Space::GiveBackUnused() {
  MutexLock lock(&mu_);
  GiveBackIdleLocked();
  keeps_spare_ = false;
  DropSpare();
  const uint64_t end = map_.end();
  // Between a million pages there may be a million runs to ask for.
  if (backing_->HoldsMoreThan(map_.pages() - map_.free_pages())) {
    for (PageRun run = map_.NextFree(Pfn()); run.count > 0 && run.first.value() < end;
         run = map_.NextFree(run.first + run.count)) {
      backing_->GiveBack(run);
    }
  }
  for (uint64_t at = 0; (at = exists_.FindSet(at, exists_.size())) != Bitmap::kNone; ++at) {
    exists_.Clear(at);
  }
  backing_->ShrinkTo(end);
  high_water_ = end;
}

}  // namespace pkram
