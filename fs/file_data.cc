#include "fs/file_data.h"

#include <algorithm>
#include <cstring>

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
  if (inode_->is_inline()) {
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
  return {};
}

// Zeroes what stands behind the end of the file in its last page, up to an offset
// that the file is about to reach.
void FileData::ZeroBehindEnd(uint64_t up_to) {
  inode_->mu.AssertHeld();
  const uint64_t size = inode_->size();
  if (up_to <= size || size % kPageSize == 0) return;
  const uint64_t entry = inode_->pages().Get(size / kPageSize);
  if (!format::IsPage(entry)) return;
  const uint64_t in_page = size % kPageSize;
  std::byte* const page = region_->mapping().WritableAt(format::EntryPfn(entry));
  std::memset(page + in_page, 0, std::min(up_to - size, kPageSize - in_page));
}

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
  if (inode_->is_inline()) {
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
    if (inode_->is_inline() && size <= kInlineBytes) {
      std::memset(InlineArea() + old_size, 0, size - old_size);
    } else if (inode_->is_inline()) {
      if (const Result<void> moved = MoveToPages(change); !moved.ok()) return moved.as_errno();
    } else {
      ZeroBehindEnd(size);
    }
  } else if (!inode_->is_inline()) {
    const uint64_t keep = PagesFor(size);
    if (keep < inode_->header().allocated_end) change->SetAllocatedEnd(inode_, keep);
    if (size == 0) change->SetInline(inode_, true);
  }
  if (size != old_size) change->SetSize(inode_, size);
  return {};
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
