#include "pkram/link_map.h"

#include <algorithm>

namespace pkram {

using format::kLinkEntries;
using format::Link;

LinkMap::LinkMap(Region* region, const uint64_t* head) : region_(region), head_(head) {
  ForEachLink(region->mapping(), *head, [&](const Link& link) {
    links_.emplace_hint(links_.end(), link.index / kLinkEntries, &link);
  });
}

uint64_t LinkMap::Get(uint64_t index) const {
  const auto it = links_.find(index / kLinkEntries);
  return it == links_.end() ? 0 : LoadWord(&it->second->entry[index % kLinkEntries]);
}

uint64_t LinkMap::CountInOrder(uint64_t index, uint64_t end) const {
  const Pfn first = format::EntryPfn(Get(index));
  uint64_t count = 1;
  const Link* link = nullptr;
  for (uint64_t at = index + 1; at < end; ++at, ++count) {
    const uint64_t place = at % kLinkEntries;
    if (link == nullptr || place == 0) link = FindLink(at / kLinkEntries);
    if (link == nullptr || LoadWord(&link->entry[place]) != format::MakeEntry(first + count)) break;
  }
  return count;
}

const uint64_t* LinkMap::ExistingWord(uint64_t index) const {
  return &links_.find(index / kLinkEntries)->second->entry[index % kLinkEntries];
}

absl::StatusOr<const uint64_t*> LinkMap::Word(uint64_t index) {
  const uint64_t number = index / kLinkEntries;
  const uint64_t place = index % kLinkEntries;
  const auto next = links_.lower_bound(number);
  if (next == links_.end() || next->first != number) {
    const absl::StatusOr<Pfn> pfn = region_->space().AllocateMetadata();
    if (!pfn.ok()) return pfn.status();
    Link* const fresh = region_->mapping().WritableAt<Link>(*pfn);
    const uint64_t* const before = next == links_.begin() ? head_ : &std::prev(next)->second->next;
    fresh->next = *before;
    fresh->index = number * kLinkEntries;
    std::fill_n(fresh->entry, place, format::MakeHole());
    region_->journal().Publish(before, format::MakeEntry(*pfn));
    const Link* const link = region_->mapping().At<Link>(*pfn);
    links_.emplace_hint(next, number, link);
    return &link->entry[place];
  }
  const Link* const link = next->second;
  uint64_t first_unused = place;
  while (first_unused > 0 && LoadWord(&link->entry[first_unused - 1]) == 0) --first_unused;
  for (; first_unused < place; ++first_unused) {
    region_->journal().Publish(&link->entry[first_unused], format::MakeHole());
  }
  return &link->entry[place];
}

const uint64_t* LinkMap::Joint(uint64_t from) const {
  const auto it = links_.lower_bound(from);
  return it == links_.begin() ? head_ : &std::prev(it)->second->next;
}

uint64_t LinkMap::Tail(uint64_t to) const {
  const auto it = links_.lower_bound(to);
  return it == links_.end() ? 0 : format::MakeEntry(region_->mapping().PfnOf(it->second));
}

void LinkMap::Adopt(uint64_t from, uint64_t to) {
  const uint64_t joint = LoadWord(Joint(from));
  const auto after = links_.erase(links_.lower_bound(from), links_.lower_bound(to));
  const uint64_t tail =
      after == links_.end() ? 0 : format::MakeEntry(region_->mapping().PfnOf(after->second));
  for (uint64_t word = joint; word != tail;) {
    const Link* const link = region_->mapping().At<Link>(format::EntryPfn(word));
    links_.emplace(link->index / kLinkEntries, link);
    word = link->next;
  }
}

uint64_t LinkMap::FindPage(uint64_t index, uint64_t end) const {
  for (auto it = links_.lower_bound(index / kLinkEntries); it != links_.end(); ++it) {
    const uint64_t base = it->first * kLinkEntries;
    if (base >= end) break;
    for (uint64_t k = base < index ? index - base : 0; k < kLinkEntries; ++k) {
      if (format::IsPage(LoadWord(&it->second->entry[k]))) return std::min(base + k, end);
    }
  }
  return end;
}

uint64_t LinkMap::FindHole(uint64_t index, uint64_t end) const {
  while (index < end) {
    const auto it = links_.find(index / kLinkEntries);
    if (it == links_.end()) return index;
    const uint64_t base = it->first * kLinkEntries;
    for (uint64_t k = index - base; k < kLinkEntries; ++k) {
      if (!format::IsPage(LoadWord(&it->second->entry[k]))) return std::min(base + k, end);
    }
    index = base + kLinkEntries;
  }
  return end;
}

uint64_t LinkMap::end() const {
  if (links_.empty()) return 0;
  const auto& [number, link] = *links_.rbegin();
  uint64_t k = kLinkEntries;
  while (k > 0 && link->entry[k - 1] == 0) --k;
  return number * kLinkEntries + k;
}

}  // namespace pkram
