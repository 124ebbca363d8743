// Reading the link lists of a region that has been accepted, and retiring them.
#ifndef PKRAM_LINK_LIST_H_
#define PKRAM_LINK_LIST_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "pkram/format.h"
#include "pkram/mapping.h"
#include "pkram/space.h"
#include "pkram/types.h"

namespace pkram {

// A link that stands somewhere in memory, and how many entries it has.
struct LinkRef {
  const format::Link* link;
  uint64_t size;

  const format::Link* operator->() const { return link; }
  bool is_short() const { return size == format::kShortLinkEntries; }
  absl::Span<const uint64_t> entries() const { return {link->entry, size}; }
};

// The link that an entry leads to.  `pages`: a Mapping or a PageView.
template <typename Pages>
LinkRef LinkAt(const Pages& pages, uint64_t entry) {
  const std::byte* const page = pages.At(format::EntryPfn(entry));
  const std::byte* const at = page + format::LinkOffset(entry) % kPageSize;
  return {reinterpret_cast<const format::Link*>(at), format::LinkEntries(entry)};
}

// Calls fn(const LinkRef&) for each link, in order.  It may retire the link.
template <typename Fn>
void ForEachLink(const Mapping& mapping, uint64_t head, Fn fn) {
  while (head != 0) {
    const LinkRef link = LinkAt(mapping, head);
    head = link->next;
    fn(link);
  }
}

// Calls fn(index, entry) for each entry that points at a page.
template <typename Fn>
void ForEachPageEntry(const LinkRef& link, Fn fn) {
  uint64_t index = link->index;
  for (const uint64_t entry : link.entries()) {
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

// Retires the pages that are added to it, in pieces, because a list may have more entries than fit
// into memory.
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
  }

 private:
  Space* const space_;
  std::vector<PageRun> runs_;
};

inline void AddRun(Retiring* retiring, Pfn first, uint64_t count = 1) {
  retiring->Add(first, count);
}

// Adds a link's page.  A short link has no page of its own.
template <typename Runs>
void AddLink(const Mapping& mapping, const LinkRef& link, Runs* runs) {
  if (!link.is_short()) AddRun(runs, mapping.PfnOf(link.link));
}

// Adds the links of a list, and the pages they point at, to `runs`.
template <typename Runs>
void CollectList(const Mapping& mapping, uint64_t head, Runs* runs) {
  ForEachLink(mapping, head, [&](const LinkRef& link) {
    ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
      AddRun(runs, format::EntryPfn(entry), uint64_t{1} << format::EntryOrder(entry));
    });
    AddLink(mapping, link, runs);
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
