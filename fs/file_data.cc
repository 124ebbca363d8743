#include "fs/file_data.h"

#include <algorithm>
#include <cstring>

#include "pkram/link_list.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::PageRun;
using pkram::PagesFor;
using pkram::Pfn;
namespace format = pkram::format;

namespace {

// What holes read as.
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

ReadAnswer FileData::Read(uint64_t offset, size_t size) {
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
  pkram::LinkMap& pages = inode_->pages();
  size_t zeros = 0;
  for (size_t done = 0; done < size;) {
    const uint64_t at = offset + done;
    const size_t n = std::min<size_t>(size - done, kPageSize - at % kPageSize);
    const uint64_t entry = pages.Get(at / kPageSize);
    if (format::IsPage(entry)) {
      if (zeros > 0) AppendZeros(&answer, std::exchange(zeros, 0));
      Append(&answer, region_->mapping().At(format::EntryPfn(entry)) + at % kPageSize, n);
    } else {
      zeros += n;
    }
    done += n;
  }
  if (zeros > 0) AppendZeros(&answer, zeros);
  answer.pin = pkram::Space::Pin(&region_->space());
  return answer;
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

// Gives an inline file its first page.
Result<void> FileData::MoveToPages(Change* change) {
  if (const uint64_t size = inode_->size(); size > 0) {
    const auto* const area = reinterpret_cast<const std::byte*>(inode_->record().inline_area);
    const Result<size_t> filled = FillFresh(0, {area, size});
    if (!filled.ok()) return filled.as_errno();
    change->SetAllocatedEnd(inode_, 1);
  }
  change->SetInline(inode_, false);
  inline_ = false;
  return {};
}

// Zeroes what stands behind the end of the file, up to an offset that the file is about
// to reach: the rest of its last page, and pages that were allocated there, to which a
// write may have been on its way when the process died.
void FileData::ZeroBehindEnd(uint64_t up_to) { Zero(inode_->size(), up_to); }

// Writes where the file has no pages: allocates some, fills them, publishes their
// entries.  Returns how many of the bytes that took.
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
  const absl::StatusOr<PageRun> run = region_->space().AllocateData(want, goal);
  if (!run.ok()) return ToErrno(run.status());
  const size_t head = offset % kPageSize;
  const size_t taken = std::min<size_t>(bytes.size(), run->count * kPageSize - head);
  const iovec iov[] = {{const_cast<char*>(kZeros), head},
                       {const_cast<std::byte*>(bytes.data()), taken}};
  if (absl::Status s = region_->Fill(run->first.offset(), iov); !s.ok()) {
    region_->space().Discard(*run);
    return ToErrno(s);
  }
  for (uint64_t i = 0; i < run->count; ++i) {
    const absl::StatusOr<const uint64_t*> word = pages.Word(first + i);
    if (!word.ok()) {
      region_->space().Discard({run->first + i, run->count - i});
      if (i == 0) return ToErrno(word.status());
      return std::min<size_t>(taken, i * kPageSize - head);
    }
    region_->journal().Publish(*word, format::MakeEntry(run->first + i));
    inode_->AddAllocated(1);
  }
  return taken;
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
  ZeroBehindEnd(offset);
  pkram::LinkMap& pages = inode_->pages();
  size_t done = 0;
  int error = 0;
  while (done < bytes.size()) {
    const uint64_t at = offset + done;
    const uint64_t entry = pages.Get(at / kPageSize);
    if (format::IsPage(entry)) {
      const size_t n = std::min<size_t>(bytes.size() - done, kPageSize - at % kPageSize);
      std::memcpy(region_->mapping().WritableAt(format::EntryPfn(entry)) + at % kPageSize,
                  bytes.data() + done, n);
      done += n;
      continue;
    }
    uint64_t hole_end = at / kPageSize + 1;
    while (hole_end * kPageSize < end && !format::IsPage(pages.Get(hole_end))) ++hole_end;
    const size_t n = std::min(end, hole_end * kPageSize) - at;
    const Result<size_t> filled = FillFresh(at, bytes.subspan(done, n));
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
  Trim();  // what MoveToPages did, if it did
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
    } else {
      ZeroBehindEnd(size);
    }
  } else if (!inline_) {
    const uint64_t keep = PagesFor(size);
    if (keep < inode_->header().allocated_end) change->SetAllocatedEnd(inode_, keep);
    if (size == 0) change->SetInline(inode_, true);
  }
  if (size != old_size) change->SetSize(inode_, size);
  return {};
}

// Adds to `change` that `links` stand in place of those numbered [from, to).
void FileData::Splice(Change* change, uint64_t from, uint64_t to, pkram::LinkBuilder* links) {
  inode_->mu.AssertHeld();
  pkram::LinkMap& pages = inode_->pages();
  pages.ForEachLinkOf(from, to, [&](uint64_t, const format::Link& link) {
    pkram::AddRun(change->dropped(), region_->mapping().PfnOf(&link));
  });
  change->Store(inode_, pages.Joint(from), links->Finish(change->made(), pages.Tail(to)));
  change->AfterCommit([&pages, from, to] { pages.Adopt(from, to); });
}

Result<void> FileData::Allocate(Change* change, uint64_t offset, uint64_t end, bool keep_size) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  if (inline_) {
    if (const Result<void> moved = MoveToPages(change); !moved.ok()) return moved;
  }
  const uint64_t first = offset / kPageSize;
  const uint64_t last = PagesFor(end);
  pkram::LinkMap& pages = inode_->pages();
  const auto undo = [this](const absl::Status& status) {
    Trim();  // what MoveToPages did, if it did
    return ToErrno(status);
  };
  // More than there are is refused before any is taken from others.
  uint64_t missing = 0;
  const uint64_t free = region_->space().counts().free;
  for (uint64_t at = pages.FindHole(first, last); at < last && missing <= free;) {
    const uint64_t hole_end = pages.FindPage(at, last);
    missing += hole_end - at;
    at = pages.FindHole(hole_end, last);
  }
  if (missing > free) return undo(absl::ResourceExhaustedError("more than is free"));
  const uint64_t from = first / format::kLinkEntries;
  const uint64_t to = (last + format::kLinkEntries - 1) / format::kLinkEntries;
  pkram::LinkBuilder links(region_);
  PageRun fresh;  // those taken last; its first page is also where to go on
  if (const uint64_t before = first > 0 ? pages.Get(first - 1) : 0; format::IsPage(before)) {
    fresh.first = format::EntryPfn(before) + 1;
  }
  uint64_t added = 0;
  for (uint64_t number = from; number < to; ++number) {
    const uint64_t base = number * format::kLinkEntries;
    // Entries behind the last one that is used stay unused.
    uint64_t used = std::clamp<uint64_t>(last - std::min(base, last), 0, format::kLinkEntries);
    for (uint64_t k = used; k < format::kLinkEntries; ++k) {
      if (pages.Get(base + k) != 0) used = k + 1;
    }
    for (uint64_t k = 0; k < used; ++k) {
      const uint64_t index = base + k;
      uint64_t entry = pages.Get(index);
      if (index >= first && index < last && !format::IsPage(entry)) {
        if (fresh.count == 0) {
          const uint64_t want = pages.FindPage(index, last) - index;
          const absl::StatusOr<PageRun> run = region_->space().AllocateData(want, fresh.first);
          if (!run.ok()) return undo(run.status());
          if (absl::Status s = region_->FillZeros(*run); !s.ok()) {
            region_->space().Discard(*run);
            return undo(s);
          }
          fresh = *run;
          change->made()->push_back(fresh);
        }
        entry = format::MakeEntry(fresh.first);
        fresh = {fresh.first + 1, fresh.count - 1};
        ++added;
      }
      if (entry == 0) entry = format::MakeHole();
      if (absl::Status s = links.Append(index, entry); !s.ok()) return undo(s);
    }
  }
  if (added > 0) {
    Splice(change, from, to, &links);
    change->AfterCommit([inode = inode_, added] {
      inode->mu.AssertHeld();
      inode->AddAllocated(static_cast<int64_t>(added));
    });
  }
  if (last > change->transaction().Pending(&inode_->header().allocated_end)) {
    change->SetAllocatedEnd(inode_, last);
  }
  if (!keep_size && end > inode_->size()) {
    ZeroBehindEnd(end);
    change->SetSize(inode_, end);
  }
  return {};
}

Result<void> FileData::PunchHole(Change* change, uint64_t offset, uint64_t end) {
  inode_->mu.AssertHeld();
  inode_->Unseal();
  if (inline_) {
    // The page that it counts as goes only with all of it.
    Zero(offset, end);
    if (offset == 0 && end >= kPageSize && inode_->size() > 0) change->SetInline(inode_, false);
    return {};
  }
  end = std::min(end, inode_->header().allocated_end * kPageSize);
  if (offset >= end) return {};
  const uint64_t first = PagesFor(offset);
  const uint64_t last = end / kPageSize;
  pkram::LinkMap& pages = inode_->pages();
  if (first < last && pages.FindPage(first, last) < last) {
    const uint64_t from = first / format::kLinkEntries;
    const uint64_t to = (last + format::kLinkEntries - 1) / format::kLinkEntries;
    // Punching makes space, so it may use what is kept for that.
    pkram::LinkBuilder links(region_, pkram::Urgency::kMakesSpace);
    std::vector<PageRun> holes;
    absl::Status status;
    pages.ForEachLinkOf(from, to, [&](uint64_t number, const format::Link& link) {
      const uint64_t base = number * format::kLinkEntries;
      const auto keeps = [&](uint64_t k) {
        return format::IsPage(link.entry[k]) && (base + k < first || base + k >= last);
      };
      uint64_t used = format::kLinkEntries;
      while (used > 0 && !keeps(used - 1)) --used;
      for (uint64_t k = 0; k < used && status.ok(); ++k) {
        status = links.Append(base + k, keeps(k) ? link.entry[k] : format::MakeHole());
      }
    });
    if (!status.ok()) return ToErrno(status);
    pages.ForEachPage(first, last, [&](uint64_t, uint64_t entry) {
      pkram::AddRun(&holes, format::EntryPfn(entry));
    });
    int64_t removed = 0;
    for (const PageRun& run : holes) {
      removed += static_cast<int64_t>(run.count);
      change->dropped()->push_back(run);
    }
    Splice(change, from, to, &links);
    change->AfterCommit([inode = inode_, removed] {
      inode->mu.AssertHeld();
      inode->AddAllocated(-removed);
    });
  }
  if (first > last) {  // inside of one page
    Zero(offset, end);
  } else {
    Zero(offset, first * kPageSize);
    Zero(last * kPageSize, end);
  }
  return {};
}

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
    const uint64_t from = std::max(offset, i * kPageSize);
    const uint64_t to = std::min(end, (i + 1) * kPageSize);
    std::memset(region_->mapping().WritableAt(format::EntryPfn(entry)) + from % kPageSize, 0,
                to - from);
  });
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
  std::vector<PageRun> runs;
  pkram::LinkMap& pages = inode_->pages();
  const uint64_t links = pages.links();
  pages.Truncate(inode_->header().allocated_end, &runs);
  uint64_t freed = 0;
  for (const PageRun& run : runs) freed += run.count;
  inode_->AddAllocated(-static_cast<int64_t>(freed - (links - pages.links())));
  region_->space().Retire(std::move(runs));
}

}  // namespace pkramfs
