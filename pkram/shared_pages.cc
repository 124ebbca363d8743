#include "pkram/shared_pages.h"

#include <algorithm>

namespace pkram {

SharedPages::SharedPages(const ReferenceMap& references) {
  references.ForEachRun([&](PageRun run, uint64_t more) {
    for (; more > 0; --more) Add({&run, 1});
  });
}

template <typename Fn>
void SharedPages::ForEachPiece(PageRun run, Fn fn) {
  while (run.count > 0) {
    const uint64_t stripe = run.first.value() / kShardPages;
    const PageRun piece{run.first,
                        std::min(run.count, (stripe + 1) * kShardPages - run.first.value())};
    fn(&shards_[stripe % shards_.size()], piece);
    run = {piece.first + piece.count, run.count - piece.count};
  }
}

void SharedPages::Add(absl::Span<const PageRun> runs) {
  for (const PageRun& run : runs) {
    ForEachPiece(run, [](Shard* shard, PageRun piece) {
      MutexLock lock(&shard->mu);
      shard->references.Add(piece);
      shard->any.store(true, std::memory_order_relaxed);
    });
  }
}

// A thread that drops an entry of a shared page sees `any` set.  The page became shared under that
// entry's lock, or before that entry was made.
void SharedPages::Drop(absl::Span<const PageRun> runs, std::vector<PageRun>* last,
                       absl::FunctionRef<void()> left) {
  for (const PageRun& run : runs) {
    ForEachPiece(run, [&](Shard* shard, PageRun piece) {
      if (!shard->any.load(std::memory_order_acquire)) {
        last->push_back(piece);
        return;
      }
      MutexLock lock(&shard->mu);
      const size_t before = last->size();
      shard->references.Drop(piece, last);
      uint64_t gone = 0;
      for (size_t i = before; i < last->size(); ++i) gone += (*last)[i].count;
      if (gone < piece.count) left();
      shard->any.store(!shard->references.empty(), std::memory_order_release);
    });
  }
}

bool SharedPages::Shared(Pfn pfn) const {
  const Shard& shard = shards_[pfn.value() / kShardPages % shards_.size()];
  if (!shard.any.load(std::memory_order_acquire)) return false;
  MutexLock lock(&shard.mu);
  return shard.references.Shared(pfn);
}

}  // namespace pkram
