#include "pkram/reference_map.h"

#include <algorithm>
#include <iterator>

namespace pkram {

// Splits the run of `page`, if it has one, so that a run begins with `page`.
void ReferenceMap::SplitAt(uint64_t page) {
  const auto next = runs_.lower_bound(page);
  if (next == runs_.begin()) return;
  Run& before = std::prev(next)->second;
  if (before.end <= page) return;
  const Run rest = before;
  before.end = page;
  runs_.emplace_hint(next, page, rest);
}

// Joins neighbouring runs with equal counts, between the pages `from` and `to`.
void ReferenceMap::Join(uint64_t from, uint64_t to) {
  auto it = runs_.lower_bound(from);
  if (it != runs_.begin()) --it;
  while (it != runs_.end() && it->first <= to) {
    const auto next = std::next(it);
    if (next == runs_.end()) return;
    if (it->second.end != next->first || it->second.more != next->second.more) {
      it = next;
      continue;
    }
    const uint64_t first = it->first;
    it->second.end = next->second.end;
    runs_.erase(next);
    it = runs_.find(first);
  }
}

void ReferenceMap::Add(PageRun run) {
  const uint64_t first = run.first.value(), end = first + run.count;
  SplitAt(first);
  SplitAt(end);
  for (uint64_t at = first; at < end;) {
    const auto it = runs_.lower_bound(at);
    if (it != runs_.end() && it->first == at) {
      ++it->second.more;
      at = it->second.end;
      continue;
    }
    const uint64_t gap_end = it == runs_.end() ? end : std::min(end, it->first);
    runs_.emplace_hint(it, at, Run{gap_end, 1});
    at = gap_end;
  }
  Join(first, end);
}

void ReferenceMap::Drop(PageRun run, std::vector<PageRun>* last) {
  const uint64_t first = run.first.value(), end = first + run.count;
  SplitAt(first);
  SplitAt(end);
  for (uint64_t at = first; at < end;) {
    const auto it = runs_.lower_bound(at);
    const uint64_t gap_end = it == runs_.end() ? end : std::min(end, it->first);
    if (at < gap_end) last->push_back({Pfn(at), gap_end - at});
    if (gap_end == end) break;
    at = it->second.end;
    if (--it->second.more == 0) runs_.erase(it);
  }
  Join(first, end);
}

bool ReferenceMap::Shared(Pfn pfn) const {
  const auto next = runs_.upper_bound(pfn.value());
  return next != runs_.begin() && std::prev(next)->second.end > pfn.value();
}

}  // namespace pkram
