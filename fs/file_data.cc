#include "fs/file_data.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "pkram/link_list.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::PageRun;
using pkram::PagesFor;
using pkram::Pfn;
namespace format = pkram::format;

namespace {

// Holes read as these bytes.
constexpr size_t kZeroBytes = 1 << 20;
alignas(kPageSize) const char kZeros[kZeroBytes] = {};

void Append(ReadAnswer* answer, const void* at, size_t size) {
  char* const from = static_cast<char*>(const_cast<void*>(at));
  if (!answer->iov.empty()) {
    iovec& last = answer->iov.back();
    if (static_cast<char*>(last.iov_base) + last.iov_len == from) {
      last.iov_len += size;
      return;
    }
  }
  answer->iov.push_back({from, size});
}

void AppendZeros(ReadAnswer* answer, size_t size) {
  for (; size > kZeroBytes; size -= kZeroBytes)
    answer->iov.push_back({const_cast<char*>(kZeros), kZeroBytes});
  answer->iov.push_back({const_cast<char*>(kZeros), size});
}

}  // namespace

Result<ReadAnswer> FileData::Read(uint64_t offset, size_t size) {
  inode_->mu.AssertReaderHeld();
  ReadAnswer answer;
  const uint64_t file_size = inode_->size();
  if (offset >= file_size) return answer;
  size = std::min<uint64_t>(size, file_size - offset);
  answer.size = size;
  if (inline_) {
    answer.copied.reset(new char[size]);
    std::memcpy(answer.copied.get(), inode_->record().inline_area + offset, size);
    Append(&answer, answer.copied.get(), size);
    return answer;
  }
  const uint64_t end = offset + size;
  uint64_t at = offset;
  inode_->pages().ForEachPage(
      offset / kPageSize, PagesFor(end), [&](uint64_t index, uint64_t entry) {
        const uint64_t from = std::max(offset, index * kPageSize);
        const uint64_t to = std::min(end, (index + 1) * kPageSize);
        if (at < from) AppendZeros(&answer, from - at);
        Append(&answer, region_->mapping().At(format::EntryPfn(entry)) + from % kPageSize,
               to - from);
        at = to;
      });
  if (at < end) AppendZeros(&answer, end - at);
  if (const Result<void> proven = MakeReadable(&answer); !proven.ok()) return proven.as_errno();
  answer.pin = pkram::Space::Pin(&region_->space());
  return answer;
}

// If a page is a hole of the region's file, and there is no space for it, the answer cannot be
// given from the mapping.  Then the bytes are copied.
Result<void> FileData::MakeReadable(ReadAnswer* answer) {
  const pkram::Mapping& mapping = region_->mapping();
  const auto offset_of = [&](const iovec& v) { return mapping.OffsetOf(v.iov_base); };
  const auto is_zeros = [](const iovec& v) { return v.iov_base == kZeros; };
  const bool all_readable = std::ranges::all_of(answer->iov, [&](const iovec& v) {
    return is_zeros(v) || region_->ProveReadable(offset_of(v), v.iov_len).ok();
  });
  if (all_readable) return {};
  std::unique_ptr<char[]> copy(new char[answer->size]());
  size_t at = 0;
  for (const iovec& v : answer->iov) {
    if (!is_zeros(v)) {
      const absl::Status s = region_->backing().Read(offset_of(v), {copy.get() + at, v.iov_len});
      if (!s.ok()) return ToErrno(s);
    }
    at += v.iov_len;
  }
  answer->copied = std::move(copy);
  answer->iov = {{answer->copied.get(), answer->size}};
  return {};
}

std::byte* FileData::InlineArea() {
  return reinterpret_cast<std::byte*>(region_->mapping().Writable(inode_->record().inline_area));
}

void FileData::WriteInline(Change* change, uint64_t offset, absl::Span<const std::byte> bytes) {
  const uint64_t size = inode_->size();
  if (offset > size) std::memset(InlineArea() + size, 0, offset - size);
  std::memcpy(InlineArea() + offset, bytes.data(), bytes.size());
  if (offset + bytes.size() > size) change->SetSize(inode_, offset + bytes.size());
}

// Gives an inline file its first page, if it needs one.  Its contents stand where its short link is
// to stand.  They make way for the link in a transaction of their own, which changes nothing that
// anybody sees.  ENOSPC.
Result<void> FileData::MoveToPages(Change* change) {
  inode_->mu.AssertHeld();
  if (inode_->size() > 0) {
    if (const Result<void> moved = MoveToFirstPage(); !moved.ok()) return moved;
  }
  change->SetInline(inode_, false);
  inline_ = false;
  return {};
}

// A page with these bytes, which nothing reaches.
absl::StatusOr<PageRun> FileData::FillOnePage(absl::Span<const std::byte> bytes) {
  const iovec iov{const_cast<std::byte*>(bytes.data()), bytes.size()};
  for (;;) {
    const uint64_t seen = region_->space().holds();
    const absl::StatusOr<PageRun> run = region_->space().AllocateData(1, Pfn());
    if (!run.ok()) return run;
    const absl::Status filled = region_->Fill(run->first.offset(), {&iov, 1});
    if (filled.ok()) return run;
    region_->space().Discard(*run);
    // As in FillFresh.
    region_->space().FollowBacking();
    if (region_->space().holds() == seen) return filled;
  }
}

Result<void> FileData::MoveToFirstPage() {
  inode_->mu.AssertHeld();
  pkram::LinkMap& pages = inode_->pages();
  const absl::Span<const std::byte> contents(InlineArea(), inode_->size());
  Change change(region_, {});
  change.SetAllocatedEnd(inode_, 1);
  change.SetInline(inode_, false);
  const format::Link* const link = pages.PlaceForShort();
  if (link == nullptr) {
    const Result<size_t> filled = FillFresh(0, contents);
    if (filled.ok()) {
      change.Commit();
      return {};
    }
    Trim();  // a link without a page
    return filled.as_errno();
  }
  const absl::StatusOr<PageRun> run = FillOnePage(contents);
  if (!run.ok()) return ToErrno(run.status());
  change.made()->push_back(*run);
  change.Store(inode_, &link->next, 0);
  change.Store(inode_, &link->index, 0);
  change.Store(inode_, &link->entry[0], format::MakeEntry(run->first));
  change.Store(inode_, &inode_->header().pages, format::MakeShort(inode_->page()));
  change.Commit();
  // The rest of the old contents stands behind the allocated end, where entries are garbage.
  for (uint64_t i = 1; i < format::kShortLinkEntries; ++i) {
    if (link->entry[i] != 0) region_->journal().Publish(&link->entry[i], 0);
  }
  pages.Adopt(0, 1);
  inode_->AddAllocated(1);
  return {};
}

// Whether a store to a page of the file would be seen in another file.
bool FileData::SeenByOthers(uint64_t index) {
  inode_->mu.AssertHeld();
  pkram::LinkMap& pages = inode_->pages();
  const uint64_t entry = pages.Get(index);
  if (!format::IsPage(entry)) return false;
  if (!format::IsShared(entry)) return region_->space().loans().Held(format::EntryPfn(entry));
  if (region_->space().Shared(format::EntryPfn(entry))) return true;
  // No other file or reader is left that could see it.
  region_->journal().Publish(pages.ExistingWord(index), format::MakeEntry(format::EntryPfn(entry)));
  return false;
}

// When there is no space for a copy: whether no other file has the page any more, once
// those who read it have been answered.
bool FileData::AwaitAlone(uint64_t index) {
  inode_->mu.AssertHeld();
  return region_->space().AwaitReaders(format::EntryPfn(inode_->pages().Get(index))) &&
         !SeenByOthers(index);
}

// Replaces a page that others see, too, by a copy that only this file sees.  ENOSPC.
Result<void> FileData::MakeOwn(uint64_t index) {
  inode_->mu.AssertHeld();
  if (inline_ || !SeenByOthers(index)) return {};
  const Pfn shared = format::EntryPfn(inode_->pages().Get(index));
  const std::byte* const bytes = region_->mapping().At(shared);
  const Result<size_t> filled = FillFresh(index * kPageSize, {bytes, kPageSize});
  if (!filled.ok() && !AwaitAlone(index)) return filled.as_errno();
  return {};
}

// Zeroes the pages of [offset, end) that exist.  Shared pages are left, because another page will
// replace them.  REQUIRES: a page of which only a part is zeroed is not shared.
void FileData::Zero(uint64_t offset, uint64_t end) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  if (inline_) {
    end = std::min(end, inode_->size());
    if (offset < end) std::memset(InlineArea() + offset, 0, end - offset);
    return;
  }
  if (offset >= end) return;
  inode_->pages().ForEachPage(offset / kPageSize, PagesFor(end), [&](uint64_t i, uint64_t entry) {
    if (format::IsShared(entry) || region_->space().loans().Held(format::EntryPfn(entry))) return;
    const uint64_t from = std::max(offset, i * kPageSize);
    const uint64_t to = std::min(end, (i + 1) * kPageSize);
    ZeroInPage(format::EntryPfn(entry), from % kPageSize, to - from);
  });
}

// If there is no space for a page that does not exist, nothing is to be done: it is all zeros
// anyway.
void FileData::ZeroInPage(Pfn pfn, uint64_t from, uint64_t size) {
  const uint64_t offset = pfn.offset() + from;
  const auto* const zeros = reinterpret_cast<const std::byte*>(kZeros);
  if (region_->Overwrite(offset, {zeros, size}).ok()) return;
  std::array<char, kPageSize> held;
  const absl::Status read = region_->backing().Read(offset, {held.data(), size});
  if (read.ok() && std::memcmp(held.data(), kZeros, size) == 0) return;
  std::memset(region_->mapping().WritableAt(pfn) + from, 0, size);
}

// Zeroes the bytes behind the end of the file, up to an offset that the file is about to reach: the
// rest of its last page, and pages that were allocated there.  (A write may have been on its way to
// these when a process died.)  ENOSPC.
Result<void> FileData::ZeroBehindEnd(uint64_t up_to) {
  const uint64_t size = inode_->size();
  if (size >= up_to) return {};
  if (const auto r = MakeOwn(size / kPageSize); !r.ok()) return r;
  Zero(size, up_to);
  return {};
}

// Writes where the file has no pages, or pages that others see.  Allocates pages, fills them, and
// publishes their entries.  Bytes around the written ones stay what they are.  Returns how many
// bytes were written.
Result<size_t> FileData::FillFresh(uint64_t offset, absl::Span<const std::byte> bytes) {
  inode_->mu.AssertHeld();
  pkram::LinkMap& pages = inode_->pages();
  const uint64_t first = offset / kPageSize;
  const uint64_t want = PagesFor(offset % kPageSize + bytes.size());
  Pfn goal;
  if (first > 0) {
    if (const uint64_t before = pages.Get(first - 1); format::IsPage(before)) {
      goal = format::EntryPfn(before) + 1;
    }
  }
  // The link first: the pages might be the last ones.
  if (const auto word = pages.Word(first); !word.ok()) return ToErrno(word.status());
  const uint64_t seen = region_->space().holds();
  const absl::StatusOr<PageRun> run = region_->space().AllocateData(want, goal);
  if (!run.ok()) return ToErrno(run.status());
  const size_t head = offset % kPageSize;
  const size_t taken = std::min<size_t>(bytes.size(), run->count * kPageSize - head);
  const auto old = [&](uint64_t at) -> const void* {
    const uint64_t entry = pages.Get(at / kPageSize);
    if (!format::IsPage(entry)) return kZeros;
    return region_->mapping().At(format::EntryPfn(entry)) + at % kPageSize;
  };
  const uint64_t end = offset + taken;
  const size_t tail = (kPageSize - end % kPageSize) % kPageSize;
  // Reads the bytes around the new ones.
  for (const auto& [edge, read] : {std::pair{offset, head}, {end, tail}}) {
    const uint64_t entry = pages.Get(edge / kPageSize);
    if (read == 0 || !format::IsPage(entry)) continue;
    if (absl::Status s = region_->ProveReadable(format::EntryPfn(entry).offset(), kPageSize);
        !s.ok()) {
      region_->space().Discard(*run);
      return ToErrno(s);
    }
  }
  const bool tail_is_there = format::IsPage(pages.Get((end - 1) / kPageSize));
  const iovec iov[] = {{const_cast<void*>(old(first * kPageSize)), head},
                       {const_cast<std::byte*>(bytes.data()), taken},
                       {const_cast<void*>(old(end)), tail_is_there ? tail : 0}};
  if (absl::Status s = region_->Fill(run->first.offset(), iov); !s.ok()) {
    region_->space().Discard(*run);
    // There may be pages that exist.
    region_->space().FollowBacking();
    return region_->space().holds() != seen ? FillFresh(offset, bytes) : ToErrno(s);
  }
  std::vector<PageRun> replaced;
  size_t done = taken;
  int error = 0;
  for (uint64_t i = 0; i < run->count; ++i) {
    const absl::StatusOr<const uint64_t*> word = pages.Word(first + i);
    if (!word.ok()) {
      region_->space().Discard({run->first + i, run->count - i});
      if (i == 0) error = ToErrno(word.status()).value;
      done = i == 0 ? 0 : std::min<size_t>(taken, i * kPageSize - head);
      break;
    }
    const uint64_t before = **word;
    region_->journal().Publish(*word, format::MakeEntry(run->first + i));
    if (format::IsPage(before)) {
      pkram::AddRun(&replaced, format::EntryPfn(before));
    } else {
      inode_->AddAllocated(1);
    }
  }
  region_->space().Retire(std::move(replaced));
  if (error != 0) return Errno{error};
  return done;
}

Result<size_t> FileData::Write(Change* change, uint64_t offset, absl::Span<const std::byte> bytes) {
  inode_->mu.AssertHeld();
  if (bytes.empty()) return size_t{0};
  inode_->Unseal();
  const uint64_t end = offset + bytes.size();
  if (inline_) {
    if (end <= kInlineBytes) {
      WriteInline(change, offset, bytes);
      return bytes.size();
    }
    if (const Result<void> moved = MoveToPages(change); !moved.ok()) return moved.as_errno();
  }
  if (const auto r = ZeroBehindEnd(offset); !r.ok()) return r.as_errno();
  pkram::LinkMap& pages = inode_->pages();
  size_t done = 0;
  int error = 0;
  while (done < bytes.size()) {
    const uint64_t at = offset + done;
    const bool copies = SeenByOthers(at / kPageSize);
    const uint64_t entry = pages.Get(at / kPageSize);
    if (format::IsPage(entry) && !copies) {
      // Pages that follow one another at once.
      const Pfn first = format::EntryPfn(entry);
      const uint64_t in_order =
          pages.CountInOrder(at / kPageSize, PagesFor(end), pkram::LinkMap::Sharing::kNone);
      const uint64_t count = region_->space().loans().CountNotHeld({first, in_order});
      const size_t n = std::min<size_t>(bytes.size() - done, count * kPageSize - at % kPageSize);
      const absl::Status s =
          region_->Overwrite(first.offset() + at % kPageSize, bytes.subspan(done, n));
      if (!s.ok()) {
        error = ToErrno(s).value;
        break;
      }
      done += n;
      continue;
    }
    uint64_t fresh_end = at / kPageSize + 1;
    while (fresh_end * kPageSize < end &&
           (copies ? SeenByOthers(fresh_end) : !format::IsPage(pages.Get(fresh_end)))) {
      ++fresh_end;
    }
    const size_t n = std::min(end, fresh_end * kPageSize) - at;
    const Result<size_t> filled = FillFresh(at, bytes.subspan(done, n));
    if (!filled.ok() && copies && AwaitAlone(at / kPageSize)) continue;
    if (!filled.ok()) {
      error = filled.error();
      break;
    }
    done += *filled;
  }
  const uint64_t allocated_end = PagesFor(offset + done);
  if (done > 0 && allocated_end > inode_->header().allocated_end) {
    change->SetAllocatedEnd(inode_, allocated_end);
  }
  if (done > 0 && offset + done > inode_->size()) change->SetSize(inode_, offset + done);
  if (done > 0) return done;
  Trim();  // a link without a page
  return Errno{error};
}

Result<void> FileData::Resize(Change* change, uint64_t size) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  const uint64_t old_size = inode_->size();
  if (size > old_size) {
    if (inline_ && old_size == 0) {
      change->SetInline(inode_, false);  // one hole, which takes no page
    } else if (inline_ && size <= kInlineBytes) {
      std::memset(InlineArea() + old_size, 0, size - old_size);
    } else if (inline_) {
      if (const Result<void> moved = MoveToPages(change); !moved.ok()) return moved.as_errno();
    } else if (const auto r = ZeroBehindEnd(size); !r.ok()) {
      return r;
    }
  } else if (!inline_) {
    const uint64_t keep = PagesFor(size);
    if (keep < inode_->header().allocated_end) change->SetAllocatedEnd(inode_, keep);
    if (size == 0) change->SetInline(inode_, true);
  }
  if (size != old_size) change->SetSize(inode_, size);
  return {};
}

uint64_t FileData::FindData(uint64_t offset) {
  inode_->mu.AssertReaderHeld();
  const uint64_t size = inode_->size();
  if (inline_ || offset >= size) return std::min(offset, size);
  const uint64_t page = inode_->pages().FindPage(offset / kPageSize, PagesFor(size));
  return std::min(size, std::max(offset, page * kPageSize));
}

uint64_t FileData::FindHole(uint64_t offset) {
  inode_->mu.AssertReaderHeld();
  const uint64_t size = inode_->size();
  if (inline_ || offset >= size) return size;
  const uint64_t page = inode_->pages().FindHole(offset / kPageSize, PagesFor(size));
  return std::min(size, std::max(offset, page * kPageSize));
}

void FileData::Trim() {
  inode_->mu.AssertHeld();
  pkram::Retiring retiring(&region_->space());
  pkram::LinkMap& pages = inode_->pages();
  const uint64_t gone = pages.Truncate(inode_->header().allocated_end, &retiring);
  inode_->AddAllocated(-static_cast<int64_t>(gone));
}

}  // namespace pkramfs
