#include "pkram/depot.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkram {
namespace {

// Metadata pages made to exist by one call.
constexpr uint64_t kReserveBatch = 16;

// Giving pages back takes longer than deleting a small file.  So this many pages may wait, to be
// given back together, if no more come at once.
constexpr uint64_t kMostIdle = 128;
constexpr uint64_t kFewPages = 16;

// While fewer pages than this are free (8 MiB), threads keep none at hand.
constexpr uint64_t kPlenty = 2048;

// Sorts runs and joins neighbours, so that one call gives back the pages of a file.
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

Depot::Depot(Backing* backing, Mapping* mapping, PageMap map, uint64_t limit)
    : backing_(backing),
      exists_(mapping->pages()),
      touched_(mapping->pages()),
      map_(std::move(map)),
      size_{map_.pages(), limit} {
  MutexLock lock(&mu_);
  high_water_ = map_.end();
  Apply();
}

// Pages in use stay where they are.
void Depot::Apply() {
  uint64_t pages = size_.pages, usable = size_.limit == 0 ? size_.pages : size_.limit;
  if (held_) {
    pages = std::min(pages, std::max(*held_, map_.end()));
    usable = std::min(usable, *held_);
  }
  map_.SetPages(pages);
  reserve_ = ReserveFor(usable);
  beyond_ = pages - std::min(pages, usable);
  NotePlenty();
}

void Depot::Hold(std::optional<uint64_t> pages) {
  MutexLock lock(&mu_);
  held_ = pages;
  // The reserve may be behind the end.
  DropSpare();
  Apply();
  FillSpare();
  ++returns_;
  returned_.NotifyAll();
}

std::optional<uint64_t> Depot::held() const {
  MutexLock lock(&mu_);
  return held_;
}

uint64_t Depot::Total(absl::Span<const PageRun> runs) {
  uint64_t n = 0;
  for (const PageRun& run : runs) n += run.count;
  return n;
}

// How many free pages an allocation of this urgency must leave.
uint64_t Depot::Kept(Urgency urgency) const {
  const uint64_t missing = reserve_ - std::min<uint64_t>(reserve_, spare_.size());
  return beyond_ + (urgency == Urgency::kMakesSpace ? 0 : missing);
}

PageRun Depot::Allocate(Purpose purpose, uint64_t want, Pfn goal) {
  const PageRun run = map_.Allocate(purpose, want, goal);
  high_water_ = std::max(high_water_, run.first.value() + run.count);
  NotePlenty();
  return run;
}

void Depot::Release(PageRun run) {
  map_.Release(run);
  if (held_ && map_.pages() > *held_) {
    // A page behind the end was still in use.
    Apply();
  } else {
    NotePlenty();
  }
}

void Depot::NotePlenty() {
  plenty_.store(stocking_ && map_.free_pages() >= beyond_ + reserve_ + kPlenty,
                std::memory_order_relaxed);
}

PageRun Depot::Take(Purpose purpose, uint64_t want, Pfn goal, Urgency urgency) {
  Visit();
  MutexLock lock(&mu_);
  const uint64_t kept = Kept(urgency);
  if (map_.free_pages() <= kept) return {};
  return Allocate(purpose, std::min(want, map_.free_pages() - kept), goal);
}

PageRun Depot::TakeSome(Purpose purpose, uint64_t want) {
  Visit();
  MutexLock lock(&mu_);
  if (!plenty()) return {};
  const PageRun run = Allocate(purpose, want, Pfn());
  Stocked(purpose) += run.count;
  return run;
}

// The pages belong to the caller, so nobody else changes whether they exist.  The same call makes
// free pages behind them exist.  It holds the lock, so that the tail is not cut off meanwhile.
absl::Status Depot::MakeExist(PageRun run) {
  if (Exist(run)) return absl::OkStatus();
  Visit();
  MutexLock lock(&mu_);
  PageRun batch = run;
  while (batch.count < kReserveBatch) {
    const Pfn next = batch.first + batch.count;
    if (next.value() >= map_.pages() || next.value() % kClusterPages == 0 || map_.InUse(next) ||
        Exist({next, 1})) {
      break;
    }
    ++batch.count;
  }
  absl::Status reserved = backing_->Reserve(batch);
  if (!reserved.ok() && !idle_.empty()) {
    GiveBackIdleLocked();
    reserved = backing_->Reserve(batch);
  }
  if (!reserved.ok() && batch.count > run.count) {
    batch = run;
    reserved = backing_->Reserve(batch);
  }
  if (!reserved.ok()) {
    Release(run);
    return reserved;
  }
  NoteExist(batch);
  high_water_ = std::max(high_water_, batch.first.value() + batch.count);
  return absl::OkStatus();
}

Pfn Depot::TakeSpare() {
  Visit();
  MutexLock lock(&mu_);
  if (spare_.empty()) return Pfn();
  const Pfn pfn = spare_.back();
  spare_.pop_back();
  return pfn;
}

bool Depot::HasSpare() const {
  MutexLock lock(&mu_);
  return !spare_.empty();
}

// The reserve: pages that exist already.  So an operation that makes space takes none, neither of
// the region nor of the filesystem under it.
void Depot::FillSpare() {
  // One by one: a run as long as the reserve would get a cluster of its own.
  while (keeps_spare_ && spare_.size() < reserve_ && map_.free_pages() > beyond_) {
    const PageRun run = Allocate(Purpose::kMetadata, 1, Pfn());
    if (!backing_->Reserve(run).ok()) {
      Release(run);
      return;
    }
    NoteExist(run);
    spare_.push_back(run.first);
  }
}

void Depot::DropSpare() {
  for (const Pfn pfn : spare_) {
    GiveBack({pfn, 1});
    Release({pfn, 1});
  }
  spare_.clear();
}

void Depot::KeepSpare() {
  MutexLock lock(&mu_);
  keeps_spare_ = true;
  FillSpare();
}

// Fills the reserve first.  A freed page need not exist: perhaps it could not be filled.
void Depot::RefillSpare(std::vector<PageRun>* runs) {
  while (keeps_spare_ && spare_.size() < reserve_ && !runs->empty()) {
    PageRun& run = runs->back();
    const PageRun last{run.first + (run.count - 1), 1};
    if (!backing_->Reserve(last).ok()) break;
    NoteExist(last);
    map_.Release(last);  // it may have been data
    spare_.push_back(map_.Allocate(Purpose::kMetadata, 1, last.first).first);
    --coming_;
    if (--run.count == 0) runs->pop_back();
  }
}

bool Depot::AllExist(const std::vector<PageRun>& runs) const {
  for (const PageRun& run : runs) {
    for (uint64_t i = 0; i < run.count; ++i) {
      if (!MustExist(run.first + i)) return false;
    }
  }
  return true;
}

void Depot::GiveBack(PageRun run) {
  Forget(run);
  backing_->GiveBack(run);
}

void Depot::Return(std::vector<PageRun> runs) {
  if (runs.empty()) return;
  Visit();
  Coalesce(&runs);
  {
    MutexLock lock(&mu_);
    RefillSpare(&runs);
  }
  const uint64_t n = Total(runs);
  const bool idle = n <= kFewPages && AllExist(runs);
  for (const PageRun& run : runs) idle ? NoteExist(run) : GiveBack(run);
  {
    MutexLock lock(&mu_);
    for (const PageRun& run : runs) {
      Release(run);
      if (idle) AddIdle(run);
    }
    ShrinkTail();
    ++returns_;
    coming_ -= n;
  }
  returned_.NotifyAll();
}

// (Nobody waits for these in AwaitReturn.  A caller of AwaitReturn has emptied all stocks, and no
// stock is filled before there are many pages.)
void Depot::PutBack(Purpose purpose, PageRun run) {
  if (run.count == 0) return;
  Visit();
  MutexLock lock(&mu_);
  Stocked(purpose) -= run.count;
  Release(run);
  bool any = false;
  for (uint64_t i = 0; i < run.count; ++i) any |= Exist({run.first + i, 1});
  if (any) AddIdle(run);
  ++returns_;
}

void Depot::Adopt(PageRun run, Purpose purpose) {
  MutexLock lock(&mu_);
  map_.SetPurpose(run, purpose);
  NoteExist(run);
}

void Depot::Add(PageRun run) {
  MutexLock lock(&mu_);
  Release(run);
  ++returns_;
}

bool Depot::AwaitReturn(uint64_t* seen, std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(&mu_);
  bool in_time = true;
  while (in_time && returns_ == *seen) in_time = returned_.WaitUntil(&mu_, deadline);
  *seen = returns_;
  return in_time;
}

void Depot::SetStocking(bool allowed) {
  MutexLock lock(&mu_);
  stocking_ = allowed;
  NotePlenty();
}

void Depot::AddIdle(PageRun run) {
  idle_.push_back(run);
  idle_pages_ += run.count;
  if (idle_pages_ > kMostIdle) GiveBackIdleLocked();
}

void Depot::GiveBackIdleLocked() {
  std::vector<PageRun> pages;
  for (const PageRun& run : std::exchange(idle_, {})) {
    for (Pfn pfn = run.first; pfn < run.first + run.count; pfn = pfn + 1) {
      if (map_.InUse(pfn) || !Exist({pfn, 1})) continue;
      Forget({pfn, 1});
      pages.push_back({pfn, 1});
    }
  }
  idle_pages_ = 0;
  Coalesce(&pages);
  for (const PageRun& run : pages) backing_->GiveBack(run);
}

bool Depot::GiveBackIdle() {
  MutexLock lock(&mu_);
  if (idle_.empty()) return false;
  GiveBackIdleLocked();
  return true;
}

// Says that no page from `page` on exists.  REQUIRES: none of them is in use.
void Depot::ForgetFrom(uint64_t page) {
  for (Bitmap* const bits : {&exists_, &touched_}) {
    for (uint64_t at = page; (at = bits->FindSet(at, bits->size())) != Bitmap::kNone;) {
      bits->SetAmongOthers(at, 1, false);
    }
  }
}

void Depot::ShrinkTail() {
  const uint64_t end = (map_.end() + kClusterPages - 1) / kClusterPages * kClusterPages;
  if (high_water_ <= end || keeps_tail_) return;
  backing_->ShrinkTo(end);
  ForgetFrom(end);
  high_water_ = end;
}

Bitmap Depot::InUse() const {
  MutexLock lock(&mu_);
  return map_.used().Copy(map_.end());
}

// A page that a thread begins to keep may be counted twice, so that `free` is never too small.
Depot::Counts Depot::counts() const {
  MutexLock lock(&mu_);
  const uint64_t in_use = map_.pages() - map_.free_pages();
  Counts c;
  c.total = map_.pages() - beyond_;
  c.limbo = coming_;
  const uint64_t data = stocked_[static_cast<size_t>(Purpose::kData)];
  const uint64_t stocked = data + stocked_[static_cast<size_t>(Purpose::kMetadata)];
  const uint64_t all_free = map_.free_pages() + std::min(in_use, c.limbo + spare_.size() + stocked);
  const uint64_t free = all_free - std::min(all_free, beyond_);
  c.reserved = std::min(free, reserve_);
  c.free = free - c.reserved;
  c.end = map_.end();
  const auto less = [](uint64_t from, uint64_t n) { return from - std::min(from, n); };
  c.data = less(map_.data_pages(), data);
  c.metadata = less(in_use, c.data + spare_.size() + stocked);
  return c;
}

// Pages do not move, so a region cannot end before its last one.
Depot::Size Depot::SizeFor(const PageMap& map, uint64_t pages) {
  const uint64_t end = map.end();
  return end <= pages ? Size{pages, 0} : Size{end, pages};
}

absl::StatusOr<Depot::Size> Depot::Resize(uint64_t pages) {
  MutexLock lock(&mu_);
  DropSpare();
  const uint64_t needed = map_.pages() - map_.free_pages() - coming_;
  const bool grows = pages >= (size_.limit == 0 ? size_.pages : size_.limit);
  if (!grows && needed + ReserveFor(pages) > pages) {
    FillSpare();
    return absl::OutOfRangeError(absl::StrCat(needed + ReserveFor(pages), " pages are needed"));
  }
  size_ = SizeFor(map_, pages);
  Apply();
  FillSpare();
  ++returns_;
  returned_.NotifyAll();
  return size_;
}

void Depot::GiveBackUnused() {
  MutexLock lock(&mu_);
  GiveBackIdleLocked();
  keeps_spare_ = false;
  DropSpare();
  const uint64_t end = map_.end();
  // Between a million pages there may be a million runs to ask for.
  if (backing_->HoldsMoreThan(map_.pages() - map_.free_pages())) {
    for (PageRun run = map_.NextFree(Pfn()); run.count > 0 && run.first.value() < end;
         run = map_.NextFree(run.first + run.count)) {
      GiveBack(run);
    }
  }
  backing_->ShrinkTo(end);
  ForgetFrom(end);
  high_water_ = end;
}

}  // namespace pkram
