// One live list of a region (an object's pages, a node's objects), adopted: a
// pointer per link, nothing copied, so that entry i is found in O(log links).
//
// A live list is made of aligned links: entry i stands at place i % 510 of the
// link whose index is i - i % 510; an absent link is a hole.
//
// Not thread-safe: the lock that covers the list covers this.  Whoever changes
// the list has unsealed its owner before.
#ifndef PKRAM_LINK_MAP_H_
#define PKRAM_LINK_MAP_H_

#include <cstdint>
#include <iterator>
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
  // Adopts the list whose head is the word `head`.  `region` outlives the map.
  LinkMap(Region* region, const uint64_t* head);

  // The entry, or 0 where there is none.
  uint64_t Get(uint64_t index) const;

  // How many entries from `index` on, which has a page, have pages that follow one another, and are
  // not shared; at most up to `end`.
  uint64_t CountInOrder(uint64_t index, uint64_t end) const;

  // The word of an entry, for Publish or a Transaction: its link exists, and
  // every entry before it in its link is at least a hole.  RESOURCE_EXHAUSTED.
  absl::StatusOr<const uint64_t*> Word(uint64_t index);
  // The word of an entry that Get does not say 0 of.
  const uint64_t* ExistingWord(uint64_t index) const;

  // Clears all entries at and behind `end`; what they held, and the links that
  // are empty now, go to `runs`
  // (see AddRun).
  // REQUIRES: they are garbage already (behind the object's allocated end).
  template <typename Runs>
  void Truncate(uint64_t end, Runs* runs);

  // Swaps the links numbered [from, to) (entry i is link i / 510's) for others that were
  // built beside them, in one word: storing Tail's value behind the new links and the
  // entry of their first one to Joint is what swaps; Adopt takes note of it afterwards.
  const uint64_t* Joint(uint64_t from) const;
  uint64_t Tail(uint64_t to) const;
  void Adopt(uint64_t from, uint64_t to);
  // The number of the first link at or behind `number`, or `none`.
  uint64_t NextLink(uint64_t number, uint64_t none) const {
    const auto it = links_.lower_bound(number);
    return it == links_.end() ? none : it->first;
  }
  // The link of that number, or null.
  const format::Link* FindLink(uint64_t number) const {
    const auto it = links_.find(number);
    return it == links_.end() ? nullptr : it->second;
  }

  // The first index at or behind `index` that has a page, or none: at most `end`.
  uint64_t FindPage(uint64_t index, uint64_t end) const;
  uint64_t FindHole(uint64_t index, uint64_t end) const;

  // fn(index, entry) for the page entries of [from, to).
  template <typename Fn>
  void ForEachPage(uint64_t from, uint64_t to, Fn fn) const {
    for (auto it = links_.lower_bound(from / format::kLinkEntries); it != links_.end(); ++it) {
      const uint64_t base = it->first * format::kLinkEntries;
      if (base >= to) return;
      for (uint64_t k = base < from ? from - base : 0; k < format::kLinkEntries; ++k) {
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
  Region* const region_;
  const uint64_t* const head_;
  absl::btree_map<uint64_t, const format::Link*> links_;  // by index / 510
};

template <typename Runs>
void LinkMap::Truncate(uint64_t end, Runs* runs) {
  using format::kLinkEntries;
  const uint64_t keep = (end + kLinkEntries - 1) / kLinkEntries;  // links
  const auto cut = links_.lower_bound(keep);
  if (cut != links_.end()) {
    const uint64_t* const before = cut == links_.begin() ? head_ : &std::prev(cut)->second->next;
    region_->journal().Publish(before, 0);
    for (auto it = cut; it != links_.end(); ++it) {
      ForEachPageEntry(*it->second,
                       [&](uint64_t, uint64_t entry) { AddRun(runs, format::EntryPfn(entry)); });
      AddRun(runs, region_->mapping().PfnOf(it->second));
    }
    links_.erase(cut, links_.end());
  }
  if (end % kLinkEntries == 0) return;
  const auto partial = links_.find(end / kLinkEntries);
  if (partial == links_.end()) return;
  const format::Link& link = *partial->second;
  for (uint64_t k = kLinkEntries; k > end % kLinkEntries; --k) {
    const uint64_t entry = link.entry[k - 1];
    if (entry == 0) continue;
    region_->journal().Publish(&link.entry[k - 1], 0);
    if (format::IsPage(entry)) AddRun(runs, format::EntryPfn(entry));
  }
}

}  // namespace pkram

#endif  // PKRAM_LINK_MAP_H_
