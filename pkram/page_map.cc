#include "pkram/page_map.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

namespace pkram {

PageMap::PageMap(uint64_t pages)
    : pages_(pages),
      clusters_((pages + kClusterPages - 1) / kClusterPages),
      free_pages_(pages),
      used_(pages),
      data_(pages),
      shareable_(pages),
      available_{Bitmap(clusters_), Bitmap(clusters_), Bitmap(clusters_)} {}

PageMap PageMap::WithFree(uint64_t pages, const std::vector<PageRun>& free) {
  PageMap map(pages);
  map.used_.Set(0, pages);
  map.free_pages_ = 0;
  map.bound_ = pages;
  for (const PageRun& run : free) {
    map.used_.SetAmongOthers(run.first.value(), run.count, false);
    map.free_pages_ += run.count;
  }
  return map;
}

uint64_t PageMap::ClusterEnd(uint64_t cluster) const {
  return std::min(pages_, (cluster + 1) * kClusterPages);
}

void PageMap::MakeRoom(uint64_t pages) {
  if (pages <= used_.size()) return;
  used_.Grow(pages);
  data_.Grow(pages);
  for (Bitmap& available : available_) available.Grow(pages / kClusterPages + 1);
}

void PageMap::SetPages(uint64_t pages) {
  assert(end() <= pages && pages <= used_.size());
  free_pages_ = free_pages_ + pages - pages_;
  // The last cluster may be another one, or may only have another length.
  const uint64_t changed = std::min(pages, pages_) / kClusterPages;
  pages_ = pages;
  clusters_ = (pages + kClusterPages - 1) / kClusterPages;
  if (in_use_.empty()) return;  // FinishClaims is to come
  for (uint64_t cluster = changed; cluster < clusters_; ++cluster) Reindex(cluster);
}

bool PageMap::Mark(Purpose purpose, Tally* tally) {
  const auto [from, mask] = std::exchange(tally->pending[static_cast<size_t>(purpose)], {});
  if (mask == 0) return true;
  const auto pages = static_cast<uint64_t>(std::popcount(mask));
  tally->pages += pages;
  tally->bound = std::max(tally->bound, from + 64 - static_cast<uint64_t>(std::countl_zero(mask)));
  if (purpose == Purpose::kData) {
    data_.SetWordAmongOthers(from, mask);
    tally->data += pages;
  }
  return used_.SetWordAmongOthers(from, mask) == 0;
}

uint64_t PageMap::ClaimShared(PageRun run, Tally* tally) {
  for (uint64_t done = 0; done < run.count;) {
    const PageRun rest{run.first + done, run.count - done};
    const uint64_t first = rest.first.value(), end = first + rest.count;
    uint64_t claimed = used_.ClaimAmongOthers(first, rest.count);
    data_.SetAmongOthers(first, claimed, true);
    tally->pages += claimed;
    tally->data += claimed;
    tally->bound = std::max(tally->bound, first + claimed);
    shareable_.Set(first, claimed);
    if (claimed == 0) {
      claimed = std::min(shareable_.FindClear(first, end), end) - first;
      if (claimed == 0) return done;
      references_.Add({rest.first, claimed});
    }
    done += claimed;
  }
  return run.count;
}

void PageMap::FinishClaims() {
  shareable_ = Bitmap(0);
  // This takes memory by the region's size.  A hostile region may claim any size, so this is done
  // only when the region is accepted.
  in_use_.resize(used_.size() / kClusterPages + 1);
  kind_.resize(used_.size() / kClusterPages + 1);
  for (uint64_t cluster = 0; cluster < clusters_; ++cluster) {
    const uint64_t end = std::min(ClusterEnd(cluster), bound_);
    uint64_t used = 0, data = 0;
    for (uint64_t at = cluster * kClusterPages; at < end; at += 64) {
      used += static_cast<uint64_t>(std::popcount(used_.Word(at)));
      data += static_cast<uint64_t>(std::popcount(data_.Word(at)));
    }
    in_use_[cluster] = static_cast<uint16_t>(used);
    // A cluster with both kinds counts as metadata, so that new metadata comes close to the old.
    kind_[cluster] = used > data ? kMetadataKind : kDataKind;
    Reindex(cluster);
  }
}

// Puts a cluster on the list where Allocate looks for it.
void PageMap::Reindex(uint64_t cluster) {
  const uint64_t size = ClusterEnd(cluster) - cluster * kClusterPages;
  if (in_use_[cluster] == 0) kind_[cluster] = kEmpty;
  for (int kind = kEmpty; kind <= kDataKind; ++kind) {
    const bool here = kind_[cluster] == kind && in_use_[cluster] < size;
    available_[kind].Assign(cluster, here);
    if (here) lowest_[kind] = std::min(lowest_[kind], cluster);
  }
}

void PageMap::Take(PageRun run, Kind kind) {
  bound_ = std::max(bound_, run.first.value() + run.count);
  used_.Set(run.first.value(), run.count);
  if (kind == kDataKind) data_.SetAmongOthers(run.first.value(), run.count, true);
  free_pages_ -= run.count;
  if (kind == kDataKind) data_pages_ += run.count;
  for (uint64_t at = run.first.value(), end = at + run.count; at < end;) {
    const uint64_t cluster = at / kClusterPages;
    const uint64_t next = std::min(end, ClusterEnd(cluster));
    in_use_[cluster] = static_cast<uint16_t>(in_use_[cluster] + (next - at));
    if (kind_[cluster] == kEmpty) kind_[cluster] = kind;
    Reindex(cluster);
    at = next;
  }
}

// The longest free run of the cluster, or the first one that is long enough.
PageRun PageMap::TakeFromCluster(uint64_t cluster, Kind kind, uint64_t want) {
  const uint64_t end = ClusterEnd(cluster);
  PageRun best;
  for (uint64_t at = cluster * kClusterPages; at < end && best.count < want;) {
    const uint64_t first = used_.FindClear(at, end);
    if (first == Bitmap::kNone) break;
    const uint64_t stop = std::min(used_.FindSet(first, end), end);
    if (stop - first > best.count) best = {Pfn(first), stop - first};
    at = stop;
  }
  best.count = std::min(best.count, want);
  assert(best.count > 0);
  Take(best, kind);
  return best;
}

PageRun PageMap::TakeFreshClusters(Kind kind, uint64_t want) {
  const uint64_t first = available_[kEmpty].FindSet(lowest_[kEmpty], clusters_);
  lowest_[kEmpty] = std::min(first, clusters_);
  if (first == Bitmap::kNone) return {};
  // Neighbouring empty clusters make a longer run.
  uint64_t last = first + 1;
  while ((last - first) * kClusterPages < want && last < clusters_ &&
         available_[kEmpty].Test(last)) {
    ++last;
  }
  const uint64_t start = first * kClusterPages;
  const PageRun run{Pfn(start), std::min(want, ClusterEnd(last - 1) - start)};
  Take(run, kind);
  return run;
}

PageRun PageMap::Allocate(Purpose purpose, uint64_t want, Pfn goal) {
  if (want == 0 || free_pages_ == 0) return {};
  const Kind kind = KindOf(purpose);
  if (goal && goal.value() < pages_ && !used_.Test(goal.value())) {
    const uint64_t limit = std::min(pages_, goal.value() + want);
    const uint64_t stop = std::min(used_.FindSet(goal.value(), limit), limit);
    const PageRun run{goal, stop - goal.value()};
    Take(run, kind);
    return run;
  }
  // A long run is worth a cluster of its own; short ones fill the gaps first.
  constexpr uint64_t kLong = 16;
  if (want >= kLong) {
    if (PageRun run = TakeFreshClusters(kind, want); run.count > 0) return run;
  }
  const Kind other = kind == kDataKind ? kMetadataKind : kDataKind;
  for (const Kind from : {kind, kEmpty, other}) {
    const uint64_t cluster = available_[from].FindSet(lowest_[from], clusters_);
    lowest_[from] = std::min(cluster, clusters_);
    if (cluster != Bitmap::kNone) return TakeFromCluster(cluster, kind, want);
  }
  return {};
}

void PageMap::SetPurpose(PageRun run, Purpose purpose) {
  const bool data = purpose == Purpose::kData;
  for (uint64_t i = 0; i < run.count; ++i) data_pages_ += data - IsData(run.first + i);
  data_.SetAmongOthers(run.first.value(), run.count, data);
}

void PageMap::Release(PageRun run) {
  for (uint64_t i = 0; i < run.count; ++i) {
    assert(used_.Test(run.first.value() + i));
    used_.Clear(run.first.value() + i);
    if (IsData(run.first + i)) --data_pages_;
  }
  data_.SetAmongOthers(run.first.value(), run.count, false);
  free_pages_ += run.count;
  if (run.first.value() + run.count >= bound_) bound_ = end();
  for (uint64_t at = run.first.value(), end = at + run.count; at < end;) {
    const uint64_t cluster = at / kClusterPages;
    const uint64_t next = std::min(end, ClusterEnd(cluster));
    in_use_[cluster] = static_cast<uint16_t>(in_use_[cluster] - (next - at));
    Reindex(cluster);
    at = next;
  }
}

PageRun PageMap::NextFree(Pfn from) const {
  const uint64_t first = used_.FindClear(from.value(), pages_);
  if (first == Bitmap::kNone) return {};
  return {Pfn(first), std::min(used_.FindSet(first, pages_), pages_) - first};
}

PageRun PageMap::NextUsed(Pfn from) const {
  const uint64_t first = used_.FindSet(from.value(), pages_);
  if (first == Bitmap::kNone) return {};
  return {Pfn(first), std::min(used_.FindClear(first, pages_), pages_) - first};
}

}  // namespace pkram
