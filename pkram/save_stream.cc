#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "pkram/link_list.h"
#include "pkram/stream.h"

namespace pkram {

using format::Link;

// --- The stream -----------------------------------------------------------------

absl::StatusOr<std::unique_ptr<SaveStream>> SaveStream::Prepare(Region* region,
                                                                std::string_view name) {
  if (absl::Status s = CheckNodeName(name); !s.ok()) return s;
  if (absl::Status s = region->TakeName(name); !s.ok()) return s;
  std::unique_ptr<SaveStream> stream(new SaveStream(region, name));
  if (region->FindNode(name)) {
    return absl::AlreadyExistsError(absl::StrCat("node '", stream->name_, "' exists"));
  }
  const absl::StatusOr<Pfn> node = region->space().AllocateMetadata();
  if (!node.ok()) return node.status();
  stream->node_ = *node;
  auto* page = region->mapping().WritableAt<format::Node>(*node);
  page->state = format::kSaved;
  std::copy(name.begin(), name.end(), page->name);
  return stream;
}

absl::StatusOr<SaveObject*> SaveStream::PrepareObject() {
  const absl::StatusOr<Pfn> page = region_->space().AllocateMetadata();
  if (!page.ok()) return page.status();
  MutexLock lock(&mu_);
  objects_.emplace_back(new SaveObject(region_, *page));
  return objects_.back().get();
}

absl::Status SaveStream::Finish() {
  MutexLock lock(&mu_);
  LinkBuilder table(region_);
  for (size_t i = 0; i < objects_.size(); ++i) {
    if (absl::Status s = objects_[i]->Finish(); !s.ok()) return s;
    if (absl::Status s = table.Append(i, format::MakeEntry(objects_[i]->page_)); !s.ok()) return s;
  }
  const std::vector<Pfn> links = table.TakeLinks();
  region_->mapping().WritableAt<format::Node>(node_)->objects = LinkBuilder::Chain(region_, links);
  if (absl::Status s = region_->PublishNode(node_); !s.ok()) {
    for (const Pfn link : links) region_->space().Discard({link, 1});
    return s;
  }
  for (auto& object : objects_) object->finished_ = true;
  objects_.clear();
  node_ = Pfn();
  return absl::OkStatus();
}

void SaveStream::Discard() {
  MutexLock lock(&mu_);
  objects_.clear();
  if (node_) region_->space().Discard({std::exchange(node_, Pfn()), 1});
}

SaveStream::~SaveStream() {
  Discard();
  region_->ReturnName(name_);
}

// --- Objects --------------------------------------------------------------------

SaveObject::~SaveObject() {
  if (finished_) return;
  for (const Pfn pfn : page_links_) {
    std::vector<PageRun> runs;
    ForEachPageEntry(
        LinkAt(region_->mapping(), format::MakeEntry(pfn)), [&](uint64_t, uint64_t entry) {
          AddRun(&runs, format::EntryPfn(entry), uint64_t{1} << format::EntryOrder(entry));
        });
    AddRun(&runs, pfn);
    for (const PageRun& run : runs) region_->space().Discard(run);
  }
  for (const PageRun& run : byte_runs_) region_->space().Discard(run);
  for (const Pfn link : byte_links_) region_->space().Discard({link, 1});
  region_->space().Discard({page_, 1});
}

void SaveObject::AddLinks(std::vector<Pfn> links) {
  MutexLock lock(&mu_);
  page_links_.insert(page_links_.end(), links.begin(), links.end());
}

// Puts the links of all accesses in order.
absl::Status SaveObject::Finish() {
  MutexLock lock(&mu_);
  const Mapping& mapping = region_->mapping();
  std::sort(page_links_.begin(), page_links_.end(),
            [&](Pfn a, Pfn b) { return mapping.At<Link>(a)->index < mapping.At<Link>(b)->index; });
  uint64_t next_index = 0;
  for (const Pfn pfn : page_links_) {
    const LinkRef link = LinkAt(mapping, format::MakeEntry(pfn));
    if (link->index < next_index) {
      return absl::InvalidArgumentError(absl::StrCat("page ", link->index, " was saved twice"));
    }
    ForEachPageEntry(link, [&](uint64_t index, uint64_t entry) {
      next_index = index + (uint64_t{1} << format::EntryOrder(entry));
    });
  }
  auto* header = &mapping.WritableAt<format::Object>(page_)->header;
  header->pages = LinkBuilder::Chain(region_, page_links_);
  header->bytes_len = bytes_len_;
  // Bytes fill their pages in order.  Pages that a failed write has left over are freed.
  for (const Pfn link : std::exchange(byte_links_, {})) region_->space().Discard({link, 1});
  std::vector<PageRun> used;
  uint64_t page = 0;
  const uint64_t pages = PagesFor(bytes_len_);
  for (const PageRun& run : std::exchange(byte_runs_, {})) {
    const uint64_t keep = std::min(run.count, pages - page);
    if (keep > 0) used.push_back({run.first, keep});
    region_->space().Discard({run.first + keep, run.count - keep});
    page += keep;
  }
  byte_runs_ = std::move(used);
  byte_pages_ = pages;
  page = 0;
  LinkBuilder links(region_);
  for (const PageRun& run : byte_runs_) {
    for (uint64_t i = 0; i < run.count; ++i) {
      const uint64_t entry = format::MakeEntry(run.first + i);
      if (absl::Status s = links.Append(page++, entry); !s.ok()) return s;
    }
  }
  byte_links_ = links.TakeLinks();
  header->bytes = LinkBuilder::Chain(region_, byte_links_);
  return absl::OkStatus();
}

absl::Status SaveObject::FillBytes(absl::Span<const std::byte> bytes, uint64_t offset) {
  const iovec iov{const_cast<std::byte*>(bytes.data()), bytes.size()};
  return region_->Fill(offset, {&iov, 1});
}

absl::Status SaveObject::WriteBytes(absl::Span<const std::byte> bytes) {
  MutexLock lock(&mu_);
  const uint64_t end = bytes_len_ + bytes.size();
  // Allocates all pages first, so that the rest cannot fail.
  while (byte_pages_ * kPageSize < end) {
    const uint64_t want = PagesFor(end) - byte_pages_;
    const Pfn goal = byte_runs_.empty() ? Pfn() : byte_runs_.back().first + byte_runs_.back().count;
    const absl::StatusOr<PageRun> run = region_->space().AllocateData(want, goal);
    if (!run.ok()) return run.status();
    AddRun(&byte_runs_, run->first, run->count);
    byte_pages_ += run->count;
  }
  uint64_t page = 0;  // of the first page of a run, in the byte stream
  for (const PageRun& run : byte_runs_) {
    const uint64_t run_end = (page + run.count) * kPageSize;
    const uint64_t from = std::max(bytes_len_, page * kPageSize);
    const uint64_t to = std::min(end, run_end);
    if (from < to) {
      const uint64_t offset = run.first.offset() + (from - page * kPageSize);
      if (absl::Status s = FillBytes(bytes.subspan(from - bytes_len_, to - from), offset);
          !s.ok()) {
        return s;
      }
    }
    page += run.count;
  }
  bytes_len_ = end;
  return absl::OkStatus();
}

// --- Accesses -------------------------------------------------------------------

absl::Status SaveAccess::SavePage(uint64_t index, absl::Span<const std::byte> bytes,
                                  uint64_t order) {
  if (order > format::kMaxOrder || bytes.size() != kPageSize << order ||
      index > ~uint64_t{0} - (uint64_t{1} << order)) {
    return absl::InvalidArgumentError(absl::StrCat("page ", index, " of order ", order, " and ",
                                                   bytes.size(), " bytes cannot be saved"));
  }
  Region* const region = object_->region_;
  const uint64_t want = uint64_t{1} << order;
  absl::StatusOr<PageRun> run = region->space().AllocateData(want, Pfn());
  if (!run.ok()) return run.status();
  if (run->count < want) {
    region->space().Discard(*run);
    const size_t half = bytes.size() / 2;
    if (absl::Status s = SavePage(index, bytes.first(half), order - 1); !s.ok()) return s;
    return SavePage(index + want / 2, bytes.subspan(half), order - 1);
  }
  absl::Status saved = object_->FillBytes(bytes, run->first.offset());
  if (saved.ok()) saved = links_.Append(index, format::MakeEntry(run->first, 0, order));
  if (!saved.ok()) region->space().Discard(*run);
  return saved;
}

}  // namespace pkram
