#include "pkram/link_map.h"

#include <algorithm>
#include <cstring>

namespace pkram {

using format::kLinkEntries;
using format::Link;

LinkMap::LinkMap(Region* region, const uint64_t* head, Short allowed)
    : region_(region), head_(head), allowed_(allowed) {
  ForEachLink(region->mapping(), *head, [&](const LinkRef& link) {
    links_.emplace_hint(links_.end(), link->index / kLinkEntries, link);
  });
}

uint64_t LinkMap::Get(uint64_t index) const {
  const auto it = links_.find(index / kLinkEntries);
  const uint64_t place = index % kLinkEntries;
  if (it == links_.end() || place >= it->second.size) return 0;
  return LoadWord(&it->second->entry[place]);
}

namespace {

// How many entries, from the beginning, lead to pages that follow `first`.  `ignored`: bits of an
// entry that do not matter.
uint64_t CountFollowing(const uint64_t* entry, uint64_t count, Pfn first, uint64_t ignored) {
  uint64_t at = 0;
  // Many at a time, for a compiler that has vectors.
  constexpr uint64_t kBlock = 32;
  for (; at + kBlock <= count; at += kBlock) {
    uint64_t differs = 0;
    for (uint64_t k = 0; k < kBlock; ++k) {
      differs |= entry[at + k] ^ format::MakeEntry(first + at + k);
    }
    if ((differs & ~ignored) != 0) break;
  }
  while (at < count && ((entry[at] ^ format::MakeEntry(first + at)) & ~ignored) == 0) {
    ++at;
  }
  return at;
}

}  // namespace

uint64_t LinkMap::CountInOrder(uint64_t index, uint64_t end, Sharing sharing) const {
  const uint64_t ignored = sharing == Sharing::kAllowed ? format::MakeShared(0) : 0;
  const Pfn first = format::EntryPfn(Get(index));
  uint64_t count = 1;
  for (uint64_t at = index + 1; at < end; at = index + count) {
    const std::optional<LinkRef> link = FindLink(at / kLinkEntries);
    const uint64_t place = at % kLinkEntries;
    if (!link || place >= link->size) break;
    const uint64_t here = std::min(link->size - place, end - at);
    const uint64_t following =
        CountFollowing(&link->link->entry[place], here, first + count, ignored);
    count += following;
    if (following < here) break;
  }
  return count;
}

const uint64_t* LinkMap::ExistingWord(uint64_t index) const {
  return &links_.find(index / kLinkEntries)->second->entry[index % kLinkEntries];
}

const Link* LinkMap::PlaceForShort() const {
  if (allowed_ == Short::kNever) return nullptr;
  if (const auto it = links_.find(0); it != links_.end() && it->second.is_short()) return nullptr;
  const Mapping& mapping = region_->mapping();
  return LinkAt(mapping, format::MakeShort(mapping.PfnOf(head_))).link;
}

absl::StatusOr<const uint64_t*> LinkMap::Word(uint64_t index) {
  const Mapping& mapping = region_->mapping();
  const uint64_t number = index / kLinkEntries;
  const uint64_t place = index % kLinkEntries;
  const auto next = links_.lower_bound(number);
  if (next == links_.end() || next->first != number) {
    const uint64_t* const before = next == links_.begin() ? head_ : &std::prev(next)->second->next;
    uint64_t entry = 0;
    if (index < format::kShortLinkEntries && PlaceForShort() != nullptr) {
      entry = format::MakeShort(mapping.PfnOf(head_));
      std::memset(mapping.Writable(PlaceForShort()), 0, kPageSize - format::kShortLinkAt);
    } else {
      const absl::StatusOr<Pfn> pfn = region_->space().AllocateMetadata();
      if (!pfn.ok()) return pfn.status();
      entry = format::MakeEntry(*pfn);
    }
    const LinkRef link = LinkAt(mapping, entry);
    Link* const fresh = mapping.Writable(link.link);
    fresh->next = *before;
    fresh->index = number * kLinkEntries;
    std::fill_n(fresh->entry, place, format::MakeHole());
    region_->journal().Publish(before, entry);
    links_.emplace_hint(next, number, link);
    return &link->entry[place];
  }
  if (place >= next->second.size) {
    const absl::StatusOr<Pfn> pfn = region_->space().AllocateMetadata();
    if (!pfn.ok()) return pfn.status();
    PutFirst(format::MakeEntry(*pfn), &next->second);
  }
  const Link* const link = next->second.link;
  uint64_t first_unused = place;
  while (first_unused > 0 && LoadWord(&link->entry[first_unused - 1]) == 0) --first_unused;
  for (; first_unused < place; ++first_unused) {
    region_->journal().Publish(&link->entry[first_unused], format::MakeHole());
  }
  return &link->entry[place];
}

// Copies the first link to where `entry` leads, and makes the copy the first link.
void LinkMap::PutFirst(uint64_t entry, LinkRef* first) {
  const Mapping& mapping = region_->mapping();
  const LinkRef to = LinkAt(mapping, entry);
  Link* const copy = mapping.Writable(to.link);
  copy->next = (*first)->next;
  copy->index = (*first)->index;
  std::copy_n((*first)->entry, std::min(to.size, first->size), copy->entry);
  region_->journal().Publish(head_, entry);
  *first = to;
}

uint64_t LinkMap::ToShorten(uint64_t entry) const {
  if (entry == 0 || allowed_ == Short::kNever) return entry;
  const LinkRef link = LinkAt(region_->mapping(), entry);
  const bool fits = link->index == 0 && link->entry[format::kShortLinkEntries] == 0;
  return fits ? format::MakeToShorten(entry) : entry;
}

void LinkMap::Shorten(std::vector<PageRun>* runs) {
  if (!format::IsToShorten(LoadWord(head_))) return;
  LinkRef& first = links_.find(0)->second;
  AddLink(region_->mapping(), first, runs);
  PutFirst(format::MakeShort(region_->mapping().PfnOf(head_)), &first);
}

const uint64_t* LinkMap::Joint(uint64_t from) const {
  const auto it = links_.lower_bound(from);
  return it == links_.begin() ? head_ : &std::prev(it)->second->next;
}

uint64_t LinkMap::Tail(uint64_t to) const {
  const auto it = links_.lower_bound(to);
  return it == links_.end() ? 0 : format::MakeEntry(region_->mapping().PfnOf(it->second.link));
}

void LinkMap::Adopt(uint64_t from, uint64_t to) {
  const uint64_t joint = LoadWord(Joint(from));
  const auto after = links_.erase(links_.lower_bound(from), links_.lower_bound(to));
  const uint64_t tail =
      after == links_.end() ? 0 : format::MakeEntry(region_->mapping().PfnOf(after->second.link));
  for (uint64_t word = joint; word != tail;) {
    const LinkRef link = LinkAt(region_->mapping(), word);
    links_.emplace(link->index / kLinkEntries, link);
    word = link->next;
  }
}

uint64_t LinkMap::FindPage(uint64_t index, uint64_t end) const {
  for (auto it = links_.lower_bound(index / kLinkEntries); it != links_.end(); ++it) {
    const uint64_t base = it->first * kLinkEntries;
    if (base >= end) break;
    for (uint64_t k = base < index ? index - base : 0; k < it->second.size; ++k) {
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
    const LinkRef& link = it->second;
    uint64_t k = index - base;
    while (k < link.size && format::IsPage(LoadWord(&link->entry[k]))) ++k;
    if (k < kLinkEntries) return std::min(base + k, end);
    index = base + kLinkEntries;
  }
  return end;
}

uint64_t LinkMap::end() const {
  if (links_.empty()) return 0;
  const auto& [number, link] = *links_.rbegin();
  uint64_t k = link.size;
  while (k > 0 && link->entry[k - 1] == 0) --k;
  return number * kLinkEntries + k;
}

}  // namespace pkram
