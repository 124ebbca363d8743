// Finds entries of one live list of a region (an object's pages, a node's objects).  It keeps one
// pointer for each link and copies nothing.  Entry i is found in O(log links).
//
// A live list is made of aligned links: entry i stands at place i % 510 of the
// link whose index is i - i % 510; an absent link is a hole.  The first link may be short: indexes
// that it has no entry for are holes, too.
//
// Not thread-safe: the lock that covers the list covers this.  The caller unseals the list's owner
// before it changes the list.
#ifndef PKRAM_LINK_MAP_H_
#define PKRAM_LINK_MAP_H_

#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/format.h"
#include "pkram/link_list.h"
#include "pkram/region.h"
#include "pkram/types.h"

namespace pkram {

class LinkMap {
 public:
  enum class Short { kNever, kAllowed };

  // Adopts the list whose head is the word `head`.  `region` outlives the map.  kAllowed says that
  // the list is an object's, whose first link may be short.  Where the short link goes, nothing
  // that anybody needs may stand when Word or Shorten makes one.
  LinkMap(Region* region, const uint64_t* head, Short allowed = Short::kNever);

  // The entry, or 0 where there is none.
  uint64_t Get(uint64_t index) const;

  // How many entries from `index` on have pages that follow one another, up to `end` at most.  With
  // kNone, none but the first may be shared.  REQUIRES: the entry at `index` has a page.
  enum class Sharing { kNone, kAllowed };
  uint64_t CountInOrder(uint64_t index, uint64_t end, Sharing sharing) const;

  // The word of an entry, for Publish or a Transaction.  Makes its link, and makes every unused
  // entry before it in that link a hole.  RESOURCE_EXHAUSTED.  The pointer is valid until the next
  // call that may move the link: Word, Adopt, Shorten, Truncate.
  absl::StatusOr<const uint64_t*> Word(uint64_t index);
  // The word of an entry for which Get does not return 0.
  const uint64_t* ExistingWord(uint64_t index) const;

  // Clears all entries from `end` on.  Adds their pages, and the links that are empty now, to
  // `runs` (see AddRun).  Returns how many pages they held. REQUIRES: these entries are garbage
  // already, behind the object's allocated end.
  template <typename Runs>
  uint64_t Truncate(uint64_t end, Runs* runs);

  // The next three exchange the links with the numbers [from, to) for others that were built beside
  // them.  (Entry i is in the link with number i / 510.)  The caller puts Tail's value behind the
  // new links, and then stores the entry of the first new link to the word Joint: that one store
  // exchanges them.  Adopt takes note of it afterwards.
  const uint64_t* Joint(uint64_t from) const;
  uint64_t Tail(uint64_t to) const;
  void Adopt(uint64_t from, uint64_t to);
  // The number of the first link at or behind `number`, or `none`.
  uint64_t NextLink(uint64_t number, uint64_t none) const {
    const auto it = links_.lower_bound(number);
    return it == links_.end() ? none : it->first;
  }
  // The link of that number, or none.
  std::optional<LinkRef> FindLink(uint64_t number) const {
    const auto it = links_.find(number);
    return it == links_.end() ? std::nullopt : std::optional(it->second);
  }

  // The place for a short first link.  Null if there is a short link already, or none is allowed.
  const format::Link* PlaceForShort() const;
  // The value to store to the head in place of `entry`, which leads to a new first link.  It also
  // says that the link is to be made short, if it has few enough entries.
  uint64_t ToShorten(uint64_t entry) const;
  // Makes the first link short, if the head says so.  Adds the old link's page to `runs`.  If this
  // process dies before that, a successor does it at open.
  void Shorten(std::vector<PageRun>* runs);

  // The first index in [index, end) that has a page (or none), or `end`.
  uint64_t FindPage(uint64_t index, uint64_t end) const;
  uint64_t FindHole(uint64_t index, uint64_t end) const;

  // Calls fn(index, entry) for the entries of [from, to) that have a page.
  template <typename Fn>
  void ForEachPage(uint64_t from, uint64_t to, Fn fn) const {
    for (auto it = links_.lower_bound(from / format::kLinkEntries); it != links_.end(); ++it) {
      const uint64_t base = it->first * format::kLinkEntries;
      if (base >= to) return;
      for (uint64_t k = base < from ? from - base : 0; k < it->second.size; ++k) {
        const uint64_t entry = it->second->entry[k];
        if (entry == 0 || base + k >= to) break;
        if (format::IsPage(entry)) fn(base + k, entry);
      }
    }
  }

  // One past the last entry.
  uint64_t end() const;
  uint64_t links() const { return links_.size(); }

 private:
  void PutFirst(uint64_t entry, LinkRef* first);

  Region* const region_;
  const uint64_t* const head_;
  const Short allowed_;
  absl::btree_map<uint64_t, LinkRef> links_;  // by index / 510
};

template <typename Runs>
uint64_t LinkMap::Truncate(uint64_t end, Runs* runs) {
  using format::kLinkEntries;
  uint64_t pages = 0;
  const uint64_t keep = (end + kLinkEntries - 1) / kLinkEntries;  // links
  const auto cut = links_.lower_bound(keep);
  if (cut != links_.end()) {
    const uint64_t* const before = cut == links_.begin() ? head_ : &std::prev(cut)->second->next;
    region_->journal().Publish(before, 0);
    for (auto it = cut; it != links_.end(); ++it) {
      ForEachPageEntry(it->second, [&](uint64_t, uint64_t entry) {
        AddRun(runs, format::EntryPfn(entry));
        ++pages;
      });
      AddLink(region_->mapping(), it->second, runs);
    }
    links_.erase(cut, links_.end());
  }
  if (end % kLinkEntries == 0) return pages;
  const auto partial = links_.find(end / kLinkEntries);
  if (partial == links_.end()) return pages;
  const LinkRef& link = partial->second;
  for (uint64_t k = link.size; k > end % kLinkEntries; --k) {
    const uint64_t entry = link->entry[k - 1];
    if (entry == 0) continue;
    region_->journal().Publish(&link->entry[k - 1], 0);
    if (!format::IsPage(entry)) continue;
    AddRun(runs, format::EntryPfn(entry));
    ++pages;
  }
  return pages;
}

}  // namespace pkram

#endif  // PKRAM_LINK_MAP_H_
