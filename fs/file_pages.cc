// The calls of FileData that change which pages a file has.  They replace some of its links by
// others.
#include <algorithm>
#include <array>

#include "fs/file_data.h"
#include "pkram/link_list.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::PageRun;
using pkram::PagesFor;
using pkram::Pfn;
namespace format = pkram::format;
using format::kLinkEntries;

namespace {
using Entries = std::array<uint64_t, kLinkEntries>;
}  // namespace

// Adds to `change` that other links replace those of [first, last).  `next` finds the first number,
// from a number on, of a link that is to be edited.  `edit` gets the index of the link's first
// entry and all its entries, and changes them.  ENOSPC.
template <typename Next, typename Edit>
Result<void> FileData::Splice(Change* change, uint64_t first, uint64_t last, pkram::Urgency urgency,
                              Next next, Edit edit) {
  inode_->mu.AssertHeld();
  pkram::LinkMap& pages = inode_->pages();
  const uint64_t from = first / kLinkEntries;
  const uint64_t to = (last + kLinkEntries - 1) / kLinkEntries;
  pkram::LinkBuilder links(region_, urgency);
  int64_t added = 0;
  for (uint64_t number = next(from); number < to; number = next(number + 1)) {
    Entries old{};
    if (const std::optional<pkram::LinkRef> link = pages.FindLink(number)) {
      std::ranges::copy(link->entries(), old.begin());
      pkram::AddLink(region_->mapping(), *link, change->dropped());
    }
    Entries entries = old;
    const uint64_t base = number * kLinkEntries;
    if (const Result<void> r = edit(base, &entries); !r.ok()) return r;
    // Entries behind the last page stay unused.
    uint64_t used = kLinkEntries;
    while (used > 0 && !format::IsPage(entries[used - 1])) --used;
    for (uint64_t k = 0; k < kLinkEntries; ++k) {
      const bool was_page = format::IsPage(old[k]), is_page = format::IsPage(entries[k]);
      added += is_page - was_page;
      if (was_page && format::EntryPfn(old[k]) != format::EntryPfn(entries[k])) {
        pkram::AddRun(change->dropped(), format::EntryPfn(old[k]));
      }
      if (k >= used) continue;
      const absl::Status s = links.Append(base + k, is_page ? entries[k] : format::MakeHole());
      if (!s.ok()) return ToErrno(s);
    }
  }
  const uint64_t spliced = links.Finish(change->made(), pages.Tail(to));
  change->Store(inode_, pages.Joint(from), from == 0 ? pages.ToShorten(spliced) : spliced);
  change->AfterCommit([region = region_, inode = inode_, &pages, from, to, added] {
    inode->mu.AssertHeld();
    pages.Adopt(from, to);
    inode->AddAllocated(added);
    std::vector<PageRun> link;
    pages.Shorten(&link);
    region->space().Retire(std::move(link));
  });
  return {};
}

// Whether the bytes behind the file's end, in its last page, are zeros already.
bool FileData::IsZeroBehindEnd() {
  inode_->mu.AssertHeld();
  const uint64_t from = inode_->size() % kPageSize;
  const uint64_t entry = inode_->pages().Get(inode_->size() / kPageSize);
  if (from == 0 || !format::IsPage(entry)) return true;
  const uint64_t offset = format::EntryPfn(entry).offset() + from, size = kPageSize - from;
  if (!region_->ProveReadable(offset, size).ok()) return false;
  const std::byte* const bytes = region_->mapping().At(format::EntryPfn(entry)) + from;
  return std::all_of(bytes, bytes + size, [](std::byte b) { return b == std::byte{0}; });
}

Result<HeldPages> FileData::Hold(uint64_t offset, uint64_t end, size_t most) {
  inode_->mu.AssertHeld();
  HeldPages held;
  held.size = inode_->size();
  end = std::min(end, held.size);
  if (end == held.size && !IsZeroBehindEnd()) {
    const auto zeroed = ZeroBehindEnd((held.size + kPageSize - 1) / kPageSize * kPageSize);
    if (!zeroed.ok()) return zeroed.as_errno();
  }
  const pkram::LinkMap& pages = inode_->pages();
  const uint64_t last = PagesFor(end);
  uint64_t index = offset / kPageSize;
  while ((index = pages.FindPage(index, last)) < last && held.pieces.size() < most) {
    const PageRun run{format::EntryPfn(pages.Get(index)),
                      pages.CountInOrder(index, last, pkram::LinkMap::Sharing::kAllowed)};
    region_->space().loans().Hold(run);
    held.pieces.push_back({index * kPageSize, run});
    index += run.count;
  }
  held.next = std::min(end, index * kPageSize);
  return held;
}

Result<void> FileData::Allocate(Change* change, uint64_t offset, uint64_t end, bool keep_size,
                                bool zero) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  const uint64_t first = offset / kPageSize;
  const uint64_t last = PagesFor(end);
  const uint64_t free = region_->space().counts().free;
  if (inline_) {
    // If there is no space, the file stays in its inode.
    if (last - first > free) return Errno{ENOSPC};
    if (const Result<void> moved = MoveToPages(change); !moved.ok()) return moved;
  }
  const uint64_t old_size = inode_->size();
  pkram::LinkMap& pages = inode_->pages();
  // Pages of which only a part is zeroed.
  const bool grows = !keep_size && end > old_size;
  for (const auto& [edge, zeroed] : {std::pair{old_size, grows}, {offset, zero}, {end, zero}}) {
    if (edge % kPageSize == 0 || !zeroed) continue;
    if (const auto r = MakeOwn(edge / kPageSize); !r.ok()) return r;
  }
  // These pages are zeroed as a whole, which other files must not see.
  const auto replaces = [&](uint64_t index) {
    return zero && index >= PagesFor(offset) && index < end / kPageSize && SeenByOthers(index);
  };
  // If it needs more pages than there are, it is refused before it takes any.
  uint64_t missing = 0;
  for (uint64_t at = pages.FindHole(first, last); at < last && missing <= free;) {
    const uint64_t hole_end = pages.FindPage(at, last);
    missing += hole_end - at;
    at = pages.FindHole(hole_end, last);
  }
  if (zero) {
    pages.ForEachPage(first, last, [&](uint64_t i, uint64_t) { missing += replaces(i); });
  }
  if (missing > free) return Errno{ENOSPC};
  PageRun fresh;  // those taken last; its first page is also where to go on
  if (const uint64_t before = first > 0 ? pages.Get(first - 1) : 0; format::IsPage(before)) {
    fresh.first = format::EntryPfn(before) + 1;
  }
  const auto fill = [&](uint64_t base, Entries* entries) -> Result<void> {
    const uint64_t stop = std::min(last - base, kLinkEntries);
    for (uint64_t k = first > base ? first - base : 0; k < stop; ++k) {
      const uint64_t index = base + k;
      // A run that was taken is used for pages that follow one another, even if another file has
      // given up one of them meanwhile.
      if (fresh.count == 0 && format::IsPage((*entries)[k]) && !replaces(index)) continue;
      if (fresh.count == 0) {
        uint64_t want = std::max<uint64_t>(1, pages.FindPage(index, last) - index);
        while (index + want < last && replaces(index + want)) ++want;
        const absl::StatusOr<PageRun> run = region_->space().AllocateData(want, fresh.first);
        if (!run.ok()) return ToErrno(run.status());
        if (absl::Status s = region_->FillZeros(*run); !s.ok()) {
          region_->space().Discard(*run);
          return ToErrno(s);
        }
        fresh = *run;
        change->made()->push_back(fresh);
      }
      (*entries)[k] = format::MakeEntry(fresh.first);
      fresh = {fresh.first + 1, fresh.count - 1};
    }
    return {};
  };
  if (missing > 0) {
    const auto every = [](uint64_t number) { return number; };
    const auto spliced = Splice(change, first, last, pkram::Urgency::kNormal, every, fill);
    if (!spliced.ok()) return spliced;
  }
  if (last > change->transaction().Pending(&inode_->header().allocated_end)) {
    change->SetAllocatedEnd(inode_, last);
  }
  if (grows) {
    Zero(old_size, end);
    change->SetSize(inode_, end);
  }
  if (zero) Zero(offset, std::min(end, old_size));
  return {};
}

Result<void> FileData::PunchHole(Change* change, uint64_t offset, uint64_t end) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  if (inline_) {
    // An inline file counts as one page, which goes only if all of it goes.
    Zero(offset, end);
    if (offset == 0 && end >= kPageSize && inode_->size() > 0) change->SetInline(inode_, false);
    return {};
  }
  end = std::min(end, inode_->header().allocated_end * kPageSize);
  if (offset >= end) return {};
  const uint64_t first = PagesFor(offset);
  const uint64_t last = end / kPageSize;
  pkram::LinkMap& pages = inode_->pages();
  for (const uint64_t edge : {offset, end}) {
    if (edge % kPageSize == 0) continue;
    if (const auto r = MakeOwn(edge / kPageSize); !r.ok()) return r;
  }
  if (first < last && pages.FindPage(first, last) < last) {
    // This makes space, so it may use what is kept for that.
    const auto next = [&](uint64_t number) { return pages.NextLink(number, last); };
    const auto clear = [&](uint64_t base, Entries* entries) -> Result<void> {
      const uint64_t from = std::max(first, base) - base;
      const uint64_t to = std::min(last - base, kLinkEntries);
      std::fill(entries->begin() + from, entries->begin() + to, 0);
      return {};
    };
    const auto r = Splice(change, first, last, pkram::Urgency::kMakesSpace, next, clear);
    if (!r.ok()) return r;
  }
  if (first > last) {  // inside of one page
    Zero(offset, end);
  } else {
    Zero(offset, first * kPageSize);
    Zero(last * kPageSize, end);
  }
  return {};
}

Result<void> FileData::Share(Change* change, Inode* source, uint64_t from, uint64_t to,
                             uint64_t count, uint64_t size) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  if (inline_) {
    if (const Result<void> moved = MoveToPages(change); !moved.ok()) return moved;
  }
  if (const auto r = ZeroBehindEnd(to * kPageSize); !r.ok()) return r;
  // The source's entries are marked first: a flag too many does no harm.
  pkram::LinkMap& theirs = source->pages();
  source->Unseal();
  theirs.ForEachPage(from, from + count, [&](uint64_t index, uint64_t entry) {
    if (format::IsShared(entry)) return;
    region_->journal().Publish(theirs.ExistingWord(index), format::MakeShared(entry));
  });
  pkram::LinkMap& pages = inode_->pages();
  const uint64_t last = to + count;
  std::vector<PageRun> shared;
  const auto next = [&](uint64_t number) {
    const uint64_t begin = std::max(to, number * kLinkEntries);
    if (begin >= last) return last;
    const uint64_t page = theirs.FindPage(begin - to + from, from + count) - from + to;
    const uint64_t none = page < last ? page / kLinkEntries : last;
    return std::min(none, pages.NextLink(number, none));
  };
  const auto take = [&](uint64_t base, Entries* entries) -> Result<void> {
    const uint64_t begin = std::max(to, base), end = std::min(last, base + kLinkEntries);
    Entries taken{};
    theirs.ForEachPage(begin - to + from, end - to + from, [&](uint64_t index, uint64_t entry) {
      taken[index - from + to - base] = entry;
    });
    for (uint64_t k = begin - base; k < end - base; ++k) {
      const bool same = format::EntryPfn(taken[k]) == format::EntryPfn((*entries)[k]);
      if (format::IsPage(taken[k]) && !same) pkram::AddRun(&shared, format::EntryPfn(taken[k]));
      (*entries)[k] = taken[k];
    }
    return {};
  };
  const auto r = Splice(change, to, last, pkram::Urgency::kNormal, next, take);
  if (!r.ok()) return r;
  change->AfterCommit([region = region_, shared] { region->space().Share(shared); });
  if (last > change->transaction().Pending(&inode_->header().allocated_end)) {
    change->SetAllocatedEnd(inode_, last);
  }
  if (size > inode_->size()) change->SetSize(inode_, size);
  return {};
}

}  // namespace pkramfs
