// Counts how many entries refer to a page, for pages that several entries refer to.  The counts are
// volatile: open derives them from what is reachable.  The map keeps runs of pages with equal
// counts. So its memory grows with the number of runs, and a copied file that lies in one piece is
// one run.
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
  // Adds one reference to each page of `run`.  REQUIRES: each has one at least.
  void Add(PageRun run);

  // Takes one reference away from each page of `run`.  Pages that had only one are added to `last`.
  void Drop(PageRun run, std::vector<PageRun>* last);

  // Whether the page has more than one.
  bool Shared(Pfn pfn) const;

  bool empty() const { return runs_.empty(); }
  // Calls fn(run, more) for each run of pages that have `more` references besides one.
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
