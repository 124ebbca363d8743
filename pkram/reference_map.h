// How many entries refer to a page, of those pages that several refer to: volatile,
// derived at open from what is reachable.  It keeps runs of pages that are referred to
// equally often, so that its memory follows what is shared, and a copy of a file in
// one piece is one run.
//
// Not thread-safe: SharedPages (shared_pages.h) puts locks around it.
#ifndef PKRAM_REFERENCE_MAP_H_
#define PKRAM_REFERENCE_MAP_H_

#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "pkram/types.h"

namespace pkram {

class ReferenceMap {
 public:
  // One reference more to each page of `run`, all of which have one at least.
  void Add(PageRun run);

  // One less; the pages that had only one are added to `last`.
  void Drop(PageRun run, std::vector<PageRun>* last);

  // Whether the page has more than one.
  bool Shared(Pfn pfn) const;

  bool empty() const { return runs_.empty(); }
  // fn(run, more) for each run of pages to which `more` entries refer besides one.
  template <typename Fn>
  void ForEachRun(Fn fn) const {
    for (const auto& [first, run] : runs_) fn(PageRun{Pfn(first), run.end - first}, run.more);
  }
  // How many runs it keeps.
  uint64_t runs() const { return runs_.size(); }

 private:
  struct Run {
    uint64_t end;
    uint64_t more;  // references than one, of each of its pages
  };
  using Runs = absl::btree_map<uint64_t, Run>;

  void SplitAt(uint64_t page);
  void Join(uint64_t from, uint64_t to);

  Runs runs_;  // by first page
};

}  // namespace pkram

#endif  // PKRAM_REFERENCE_MAP_H_
