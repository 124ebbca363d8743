#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "pkram/stream.h"

namespace pkram {

using format::kLinkEntries;
using format::Link;

absl::StatusOr<std::unique_ptr<LoadStream>> LoadStream::Prepare(Region* region,
                                                                std::string_view name) {
  if (absl::Status s = CheckNodeName(name); !s.ok()) return s;
  if (!region->TakeName(name).ok()) {
    return absl::UnavailableError(absl::StrCat("node '", std::string(name), "' is in use"));
  }
  const Pfn pfn = region->FindNode(name);
  std::unique_ptr<LoadStream> stream(new LoadStream(region, name, pfn));
  if (!pfn) return absl::NotFoundError(absl::StrCat("no node '", std::string(name), "'"));
  const auto& node = *region->mapping().At<format::Node>(pfn);
  if (node.state != format::kSaved) {
    return absl::FailedPreconditionError(
        absl::StrCat("node '", std::string(name), "' is not a saved stream"));
  }
  MutexLock lock(&stream->mu_);
  stream->link_ = node.objects;
  return stream;
}

absl::StatusOr<std::unique_ptr<LoadObject>> LoadStream::NextObject() {
  MutexLock lock(&mu_);
  while (link_ != 0) {
    const auto& link = *region_->mapping().At<Link>(format::EntryPfn(link_));
    if (at_ < kLinkEntries && link.entry[at_] != 0) {
      const Pfn pfn = format::EntryPfn(link.entry[at_++]);
      const auto* header = &region_->mapping().At<format::Object>(pfn)->header;
      return std::unique_ptr<LoadObject>(new LoadObject(region_, header));
    }
    link_ = link.next;
    at_ = 0;
  }
  return absl::OutOfRangeError("no object is left");
}

void LoadStream::Finish() {
  region_->RemoveNode(std::exchange(node_, Pfn()));
  MutexLock lock(&mu_);
  link_ = 0;
}

LoadStream::~LoadStream() { region_->ReturnName(name_); }

LoadObject::Position LoadObject::NextLink() {
  MutexLock lock(&mu_);
  if (!returned_.empty()) {
    const Position position = returned_.back();
    returned_.pop_back();
    return position;
  }
  if (next_ == 0) return {};
  const auto* link = region_->mapping().At<Link>(format::EntryPfn(next_));
  next_ = link->next;
  return {link, 0, link->index};
}

void LoadObject::GiveBack(Position position) {
  if (position.link == nullptr) return;
  MutexLock lock(&mu_);
  returned_.push_back(position);
}

size_t LoadObject::ReadBytes(absl::Span<std::byte> into) {
  MutexLock lock(&mu_);
  size_t done = 0;
  while (done < into.size() && bytes_read_ < header_->bytes_len && byte_link_ != 0) {
    const auto& link = *region_->mapping().At<Link>(format::EntryPfn(byte_link_));
    if (byte_entry_ == kLinkEntries || link.entry[byte_entry_] == 0) {
      byte_link_ = link.next;
      byte_entry_ = 0;
      continue;
    }
    const uint64_t entry = link.entry[byte_entry_];
    const uint64_t size = kPageSize << format::EntryOrder(entry);
    const uint64_t n = std::min({size - byte_offset_, header_->bytes_len - bytes_read_,
                                 static_cast<uint64_t>(into.size() - done)});
    const std::byte* from = region_->mapping().At(format::EntryPfn(entry)) + byte_offset_;
    std::memcpy(into.data() + done, from, n);
    done += n;
    bytes_read_ += n;
    byte_offset_ += n;
    if (byte_offset_ == size) {
      byte_offset_ = 0;
      ++byte_entry_;
    }
  }
  return done;
}

// Moves position_ to an entry, in the next link if need be.
bool LoadAccess::HaveEntry() {
  while (position_.link == nullptr || position_.entry == kLinkEntries ||
         position_.link->entry[position_.entry] == 0) {
    position_ = object_->NextLink();
    if (position_.link == nullptr) return false;
  }
  return true;
}

std::optional<LoadAccess::Page> LoadAccess::LoadFilePage() {
  if (!HaveEntry()) return std::nullopt;
  const uint64_t entry = position_.link->entry[position_.entry++];
  const uint64_t order = format::EntryOrder(entry);
  const std::byte* const data = object_->region_->mapping().At(format::EntryPfn(entry));
  const Page page{LoadedPage(data, order), position_.index};
  position_.index += uint64_t{1} << order;
  return page;
}

std::optional<LoadAccess::Batch> LoadAccess::LoadFilePages(PageBuffer* pages) {
  if (!HaveEntry()) return std::nullopt;
  const Mapping& mapping = object_->region_->mapping();
  const Batch first{0, position_.index};
  uint64_t count = 0;
  for (const uint64_t* entry = &position_.link->entry[position_.entry];
       entry != std::end(position_.link->entry) && *entry != 0; ++entry) {
    (*pages)[count++] =
        LoadedPage(mapping.At(format::EntryPfn(*entry)), format::EntryOrder(*entry));
  }
  position_ = {};
  return Batch{count, first.index};
}

}  // namespace pkram
