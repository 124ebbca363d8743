// Reading the link lists of a region that has been accepted, and retiring them.
#ifndef PKRAM_LINK_LIST_H_
#define PKRAM_LINK_LIST_H_

#include <utility>
#include <vector>

#include "pkram/format.h"
#include "pkram/mapping.h"
#include "pkram/space.h"
#include "pkram/types.h"

namespace pkram {

// fn(const format::Link&) for each link, in order; it may retire the link.
template <typename Fn>
void ForEachLink(const Mapping& mapping, uint64_t head, Fn fn) {
  while (head != 0) {
    const auto& link = *mapping.At<format::Link>(format::EntryPfn(head));
    head = link.next;
    fn(link);
  }
}

// fn(index, entry) for each entry that points at a page.
template <typename Fn>
void ForEachPageEntry(const format::Link& link, Fn fn) {
  uint64_t index = link.index;
  for (const uint64_t entry : link.entry) {
    if (entry == 0) return;
    if (format::IsPage(entry)) fn(index, entry);
    index += uint64_t{1} << format::EntryOrder(entry);
  }
}

inline void AddRun(std::vector<PageRun>* runs, Pfn first, uint64_t count = 1) {
  if (!runs->empty() && runs->back().first + runs->back().count == first) {
    runs->back().count += count;
  } else {
    runs->push_back({first, count});
  }
}

// Retires what is added to it, in pieces: a list may have more entries than memory.
class Retiring {
 public:
  explicit Retiring(Space* space) : space_(space) {}
  ~Retiring() { space_->Retire(std::move(runs_)); }
  Retiring(const Retiring&) = delete;
  Retiring& operator=(const Retiring&) = delete;

  void Add(Pfn first, uint64_t count = 1) {
    constexpr size_t kPiece = 1 << 16;
    if (runs_.size() == kPiece) space_->Retire(std::exchange(runs_, {}));
    AddRun(&runs_, first, count);
    total_ += count;
  }
  // Pages added so far.
  uint64_t total() const { return total_; }

 private:
  Space* const space_;
  std::vector<PageRun> runs_;
  uint64_t total_ = 0;
};

inline void AddRun(Retiring* retiring, Pfn first, uint64_t count = 1) {
  retiring->Add(first, count);
}

// Adds the links of a list, and the pages they point at, to `runs`.
template <typename Runs>
void CollectList(const Mapping& mapping, uint64_t head, Runs* runs) {
  ForEachLink(mapping, head, [&](const format::Link& link) {
    ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
      AddRun(runs, format::EntryPfn(entry), uint64_t{1} << format::EntryOrder(entry));
    });
    AddRun(runs, mapping.PfnOf(&link));
  });
}

// Adds an object's page and everything it reaches.
template <typename Runs>
void CollectObject(const Mapping& mapping, Pfn object, Runs* runs) {
  const auto& header = mapping.At<format::Object>(object)->header;
  CollectList(mapping, header.pages, runs);
  CollectList(mapping, header.bytes, runs);
  AddRun(runs, object);
}

}  // namespace pkram

#endif  // PKRAM_LINK_LIST_H_
