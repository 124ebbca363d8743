// The pages that several entries refer to, and how many entries each has (ReferenceMap), for
// several threads.
//
// Pages are divided by their numbers among shards, each with a lock of its own.  A page that is
// not shared costs no lock while its shard is empty.  All shards are empty unless files were
// cloned.
//
// Thread-safe.
#ifndef PKRAM_SHARED_PAGES_H_
#define PKRAM_SHARED_PAGES_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "pkram/mutex.h"
#include "pkram/reference_map.h"
#include "pkram/types.h"

namespace pkram {

class SharedPages {
 public:
  // Takes over the counts of a walk.
  explicit SharedPages(const ReferenceMap& references);

  // Says that one more entry refers to each of these pages.  REQUIRES: one entry refers to each
  // already, and the caller holds the locks of that entry and of the new one.
  void Add(absl::Span<const PageRun> runs);

  // Says that one entry less refers to each of these pages.  Adds pages without any entry to
  // `last`. If other pages are left, calls left() before IsShared can say that one of them is not
  // shared.
  void Drop(absl::Span<const PageRun> runs, std::vector<PageRun>* last,
            absl::FunctionRef<void()> left);

  // Whether more than one entry refers to the page.
  bool Shared(Pfn pfn) const;

 private:
  struct alignas(64) Shard {
    mutable Mutex mu;
    ReferenceMap references ABSL_GUARDED_BY(mu);
    std::atomic<bool> any{false};
  };
  static constexpr uint64_t kShardPages = 32768;

  // Calls fn(shard, piece) for the pieces of `run`, in order.
  template <typename Fn>
  void ForEachPiece(PageRun run, Fn fn);

  std::array<Shard, 16> shards_;
};

}  // namespace pkram

#endif  // PKRAM_SHARED_PAGES_H_
