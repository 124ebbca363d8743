#include "pkram/loans.h"

#include <algorithm>
#include <utility>

namespace pkram {

void Loans::Note(Bitmap* bits, PageRun run) {
  bits->SetAmongOthers(run.first.value(), run.count, true);
  bound_ = std::max(bound_, run.first.value() + run.count);
}

std::vector<PageRun> Loans::RunsOf(const Bitmap& bits) const {
  std::vector<PageRun> runs;
  for (uint64_t at = 0; (at = bits.FindSet(at, bound_)) != Bitmap::kNone;) {
    const uint64_t end = std::min(bits.FindClear(at, bound_), bound_);
    runs.push_back({Pfn(at), end - at});
    at = end;
  }
  return runs;
}

uint64_t Loans::Count(const Bitmap& bits) const {
  uint64_t n = 0;
  for (const PageRun& run : RunsOf(bits)) n += run.count;
  return n;
}

void Loans::Find(PageMap* map) {
  MutexLock lock(&mu_);
  PageMap::Tally tally;
  for (const LockedPages& locked : FindLockedPages(fd_, {Pfn(0), map->pages()})) {
    const uint64_t end = locked.run.first.value() + locked.run.count;
    if (locked.use == PageUse::kReading) ++pieces_;
    for (uint64_t at = locked.run.first.value(), next; at < end; at = next) {
      const bool in_use = map->InUse(Pfn(at));
      next = std::min(in_use ? map->used().FindClear(at, end) : map->used().FindSet(at, end), end);
      const PageRun run{Pfn(at), next - at};
      if (!in_use) map->Claim(run, Purpose::kData, &tally);
      if (locked.use == PageUse::kReading) {
        Note(&held_, run);
        if (!in_use) Note(&withheld_, run);
        holds_ = true;
      } else if (!in_use) {
        Note(&lent_, run);
        lends_ = true;
      }
    }
  }
  map->Add(tally);
}

void Loans::Lend(PageRun run) {
  MutexLock lock(&mu_);
  Note(&lent_, run);
  lends_ = true;
}

void Loans::Hold(PageRun run) {
  MutexLock lock(&mu_);
  Note(&held_, run);
  holds_ = true;
  ++pieces_;
}

bool Loans::IsLocked(PageRun run, PageUse use) const {
  uint64_t at = run.first.value();
  for (const LockedPages& locked : FindLockedPages(fd_, run)) {
    if (locked.run.first.value() != at || locked.use != use) return false;
    at += locked.run.count;
  }
  return at == run.first.value() + run.count;
}

bool Loans::HoldLocked(absl::Span<const PageRun> runs) {
  for (const PageRun& run : runs) {
    const uint64_t end = run.first.value() + run.count;
    if (run.count == 0 || end < run.count || end > held_.size()) return false;
    if (!IsLocked(run, PageUse::kReading)) return false;
  }
  MutexLock lock(&mu_);
  for (const PageRun& run : runs) Note(&held_, run);
  holds_ = true;
  return true;
}

bool Loans::Keep(absl::Span<const PageRun> runs, PageUse use, std::optional<uint64_t> generation) {
  MutexLock lock(&mu_);
  // Meanwhile they may have been lent to another process.
  if (generation && *generation != generation_) return false;
  const Bitmap& noted = use == PageUse::kBuilding ? lent_ : held_;
  for (const PageRun& run : runs) {
    const uint64_t end = run.first.value() + run.count;
    if (run.count == 0 || end < run.count || end > bound_) return false;
    if (!noted.TestAmongOthers(run.first.value(), run.count)) return false;
    if (!IsLocked(run, use)) return false;
  }
  return true;
}

bool Loans::WithholdIfLocked(PageRun run) {
  if (FindLockedPages(fd_, run).empty()) return false;
  MutexLock lock(&mu_);
  Note(&held_, run);
  Note(&withheld_, run);
  holds_ = true;
  return true;
}

void Loans::Withhold(std::vector<PageRun>* runs) {
  if (!holds_) return;
  MutexLock lock(&mu_);
  std::vector<PageRun> rest;
  for (const PageRun& run : *runs) {
    const uint64_t end = run.first.value() + run.count;
    for (uint64_t at = run.first.value(), next; at < end; at = next) {
      const bool held = held_.Test(at);
      next = std::min(held ? held_.FindClear(at, end) : held_.FindSet(at, end), end);
      if (held) {
        Note(&withheld_, {Pfn(at), next - at});
      } else {
        rest.push_back({Pfn(at), next - at});
      }
    }
  }
  *runs = std::move(rest);
}

std::vector<PageRun> Loans::Recheck() {
  std::vector<PageRun> freed;
  if (!lends_ && !holds_) return freed;
  MutexLock lock(&mu_);
  const std::vector<LockedPages> locked = FindLockedPages(fd_, {Pfn(0), bound_});
  pieces_ = static_cast<size_t>(std::ranges::count(locked, PageUse::kReading, &LockedPages::use));
  // Calls fn(run) for the pages of `run` that no lock covers.
  const auto for_each_unlocked = [&](PageRun run, bool by_builders, const auto& fn) {
    uint64_t at = run.first.value();
    const uint64_t end = at + run.count;
    for (const LockedPages& lock_of : locked) {
      const uint64_t from = lock_of.run.first.value(), to = from + lock_of.run.count;
      if (to <= at || (by_builders && lock_of.use != PageUse::kBuilding)) continue;
      if (from >= end) break;
      if (from > at) fn(PageRun{Pfn(at), from - at});
      at = to;
    }
    if (at < end) fn(PageRun{Pfn(at), end - at});
  };
  if (adoptions_ == 0) {
    for (const PageRun& lent : RunsOf(lent_)) {
      for_each_unlocked(lent, true, [&](PageRun run) {
        lent_.SetAmongOthers(run.first.value(), run.count, false);
        freed.push_back(run);
      });
    }
    lends_ = lent_.FindSet(0, bound_) != Bitmap::kNone;
  }
  for (const PageRun& held : RunsOf(held_)) {
    for_each_unlocked(held, false, [&](PageRun run) {
      ++generation_;
      held_.SetAmongOthers(run.first.value(), run.count, false);
      const uint64_t end = run.first.value() + run.count;
      for (uint64_t at = run.first.value(); (at = withheld_.FindSet(at, end)) != Bitmap::kNone;) {
        const uint64_t next = std::min(withheld_.FindClear(at, end), end);
        withheld_.SetAmongOthers(at, next - at, false);
        freed.push_back({Pfn(at), next - at});
        at = next;
      }
    });
  }
  holds_ = held_.FindSet(0, bound_) != Bitmap::kNone;
  return freed;
}

void Loans::BeginAdoption() {
  MutexLock lock(&mu_);
  ++adoptions_;
}

void Loans::EndAdoption() {
  MutexLock lock(&mu_);
  --adoptions_;
}

std::vector<PageRun> Loans::Lent() {
  MutexLock lock(&mu_);
  return RunsOf(lent_);
}

bool Loans::Adopt(absl::Span<const PageRun> runs) {
  MutexLock lock(&mu_);
  for (const PageRun& run : runs) {
    if (!lent_.TestAmongOthers(run.first.value(), run.count)) return false;
  }
  for (const PageRun& run : runs) lent_.SetAmongOthers(run.first.value(), run.count, false);
  return true;
}

Loans::Counts Loans::counts() const {
  MutexLock lock(&mu_);
  return {.lent = Count(lent_), .held = Count(held_), .withheld = Count(withheld_)};
}

void Loans::RemoveUnreachable(Bitmap* in_use) {
  if (!lends_ && !holds_) return;
  MutexLock lock(&mu_);
  for (const Bitmap* const bits : {&lent_, &withheld_}) {
    const uint64_t end = std::min(bound_, in_use->size());
    for (uint64_t at = 0; (at = bits->FindSet(at, end)) != Bitmap::kNone; ++at) in_use->Clear(at);
  }
}

}  // namespace pkram
