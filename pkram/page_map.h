// Which pages of a region are in use: volatile, derived at open from what is
// reachable, and the allocator of free ones.
//
// Pages are handed out by purpose.  Metadata comes from clusters (2 MiB) of its
// own, so that a later walk touches memory sequentially; data comes in runs as
// long as can be had.  When one kind has no cluster left, it takes from the
// other's: purpose is a preference, never a reason to fail.
//
// Not thread-safe, except for ClaimAmongOthers and IsData.  Depot (depot.h) puts a lock around it.
#ifndef PKRAM_PAGE_MAP_H_
#define PKRAM_PAGE_MAP_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "pkram/bitmap.h"
#include "pkram/reference_map.h"
#include "pkram/types.h"

namespace pkram {

enum class Purpose { kMetadata, kData };

class PageMap {
 public:
  // All of [0, pages) is free.  FinishClaims must be called before the first Allocate.
  explicit PageMap(uint64_t pages);

  // A map in which all pages are in use except these.
  static PageMap WithFree(uint64_t pages, const std::vector<PageRun>& free);

  uint64_t pages() const { return pages_; }
  const Bitmap& used() const { return used_; }
  uint64_t free_pages() const { return free_pages_; }
  uint64_t data_pages() const { return data_pages_; }  // in use, taken as data
  bool InUse(Pfn pfn) const { return used_.Test(pfn.value()); }
  // Any thread may ask, about a page in use.
  bool IsData(Pfn pfn) const { return data_.TestAmongOthers(pfn.value(), 1); }

  // What a thread has claimed.
  struct Tally {
    uint64_t pages = 0;
    uint64_t data = 0;   // of these
    uint64_t bound = 0;  // none of them is from here on
    // Of each purpose, pages among 64 that are not marked yet (ClaimAmongOthers).
    struct Pending {
      uint64_t from = 0, mask = 0;
    };
    std::array<Pending, 2> pending{};
  };

  // For open, which finds out what is in use.  Marks the pages of a run up to the first that is in
  // use already, and returns how many.  After the last claim, Settle adds the tally, and
  // FinishClaims makes Allocate possible.
  uint64_t Claim(PageRun run, Purpose purpose, Tally* tally) {
    const uint64_t claimed = used_.Claim(run.first.value(), run.count);
    if (purpose == Purpose::kData) {
      data_.Set(run.first.value(), claimed);
      tally->data += claimed;
    }
    tally->pages += claimed;
    tally->bound = std::max(tally->bound, run.first.value() + claimed);
    return claimed;
  }
  // The same for data that several entries share: a page that was claimed in this way before is
  // claimed once more.  One thread at a time may do this, while others may ClaimAmongOthers.
  uint64_t ClaimShared(PageRun run, Tally* tally);
  // For several threads at once, each with a tally of its own.  False if a page was claimed before.
  // A later call, or Settle, which comes last, may be the one that finds this out.
  bool ClaimAmongOthers(PageRun run, Purpose purpose, Tally* tally) {
    // One store marks what neighbours have in common: pages come in order, mostly.
    Tally::Pending& pending = tally->pending[static_cast<size_t>(purpose)];
    bool ok = true;
    Bitmap::ForEachWord(run.first.value(), run.count, [&](uint64_t at, uint64_t mask) {
      if (pending.from != at) {
        ok &= Mark(purpose, tally);
        pending.from = at;
      }
      ok &= (pending.mask & mask) == 0;
      pending.mask |= mask;
      return mask;
    });
    return ok;
  }
  bool Settle(Tally* tally) {
    const bool metadata = Mark(Purpose::kMetadata, tally), data = Mark(Purpose::kData, tally);
    return metadata && data;
  }
  void Add(const Tally& tally) {
    free_pages_ -= tally.pages;
    data_pages_ += tally.data;
    bound_ = std::max(bound_, tally.bound);
  }
  void FinishClaims();

  // Which pages in use have more than one reference.
  ReferenceMap& references() { return references_; }
  ReferenceMap TakeReferences() { return std::exchange(references_, {}); }

  // Makes room for so many pages.  To be called before FinishClaims.
  void MakeRoom(uint64_t pages);

  // Changes the number of pages, to what there is room for at most.
  // REQUIRES: end() <= pages.
  void SetPages(uint64_t pages);

  // Allocates a run of 1 to `want` pages, at `goal` if that page is free.  (A caller that passes
  // the page behind its last one extends that run.)  The count is 0 when nothing is free.
  PageRun Allocate(Purpose purpose, uint64_t want, Pfn goal = Pfn());

  // How many pages are in use.
  void SetPurpose(PageRun run, Purpose purpose);

  // REQUIRES: every page of `run` is in use.
  void Release(PageRun run);

  // One past the last page in use.
  uint64_t end() const { return used_.FindLastSet(std::min(bound_, pages_)) + 1; }

  // The first run of free pages at or behind `from`; count 0 when none is.
  PageRun NextFree(Pfn from) const;
  // The same for pages in use.
  PageRun NextUsed(Pfn from) const;

 private:
  // What a cluster holds.  An empty cluster has no purpose.
  enum Kind : uint8_t { kEmpty, kMetadataKind, kDataKind };
  static Kind KindOf(Purpose p) { return p == Purpose::kMetadata ? kMetadataKind : kDataKind; }

  bool Mark(Purpose purpose, Tally* tally);
  uint64_t ClusterEnd(uint64_t cluster) const;
  void Take(PageRun run, Kind kind);
  void Reindex(uint64_t cluster);
  PageRun TakeFromCluster(uint64_t cluster, Kind kind, uint64_t want);
  PageRun TakeFreshClusters(Kind kind, uint64_t want);

  uint64_t pages_;
  uint64_t clusters_;
  uint64_t free_pages_;
  uint64_t data_pages_ = 0;
  uint64_t bound_ = 0;  // no page from here on is in use
  Bitmap used_;
  Bitmap data_;       // of the used ones, those taken as data
  Bitmap shareable_;  // of those, until FinishClaims: claimed as shared
  ReferenceMap references_;
  std::vector<uint16_t> in_use_;  // pages in use, per cluster
  std::vector<uint8_t> kind_;     // Kind, per cluster
  // Clusters with at least one free page, by kind; and where to start looking.
  Bitmap available_[3];
  uint64_t lowest_[3] = {0, 0, 0};
};

}  // namespace pkram

#endif  // PKRAM_PAGE_MAP_H_
