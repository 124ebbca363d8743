#include "pkram/link_builder.h"

#include <cstring>
#include <utility>

#include "pkram/link_list.h"

namespace pkram {

using format::Link;

absl::Status LinkBuilder::Append(uint64_t index, uint64_t entry) {
  if (links_.empty() || used_ == format::kLinkEntries || index != next_index_) {
    const absl::StatusOr<Pfn> pfn = region_->space().AllocateMetadata(urgency_);
    if (!pfn.ok()) return pfn.status();
    region_->mapping().WritableAt<Link>(*pfn)->index = index;
    links_.push_back(*pfn);
    used_ = 0;
  }
  region_->mapping().WritableAt<Link>(links_.back())->entry[used_++] = entry;
  next_index_ = index + (uint64_t{1} << format::EntryOrder(entry));
  return absl::OkStatus();
}

absl::Status LinkBuilder::AppendFilledPage(uint64_t index, std::string_view bytes) {
  const absl::StatusOr<Pfn> pfn = region_->space().AllocateMetadata(urgency_);
  if (!pfn.ok()) return pfn.status();
  pages_.push_back(*pfn);
  std::memcpy(region_->mapping().WritableAt(*pfn), bytes.data(), bytes.size());
  return Append(index, format::MakeEntry(*pfn));
}

uint64_t LinkBuilder::Chain(Region* region, const std::vector<Pfn>& links, uint64_t tail) {
  uint64_t next = tail;
  for (auto it = links.rbegin(); it != links.rend(); ++it) {
    region->mapping().WritableAt<Link>(*it)->next = next;
    next = format::MakeEntry(*it);
  }
  return next;
}

uint64_t LinkBuilder::Finish(std::vector<PageRun>* built, uint64_t tail) {
  for (const Pfn page : std::exchange(pages_, {})) AddRun(built, page);
  for (const Pfn link : links_) AddRun(built, link);
  return Chain(region_, TakeLinks(), tail);
}

std::vector<Pfn> LinkBuilder::TakeLinks() { return std::exchange(links_, {}); }

void LinkBuilder::Discard() {
  for (const Pfn link : TakeLinks()) region_->space().Discard({link, 1});
  for (const Pfn page : std::exchange(pages_, {})) region_->space().Discard({page, 1});
}

absl::StatusOr<uint64_t> BuildBytes(Region* region, std::string_view bytes, Urgency urgency,
                                    std::vector<PageRun>* built) {
  LinkBuilder links(region, urgency);
  for (size_t at = 0; at < bytes.size(); at += kPageSize) {
    const absl::Status added = links.AppendFilledPage(at / kPageSize, bytes.substr(at, kPageSize));
    if (!added.ok()) return added;
  }
  return links.Finish(built);
}

}  // namespace pkram
