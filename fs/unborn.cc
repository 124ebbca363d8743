#include "fs/unborn.h"

#include <algorithm>

#include "pkram/link_builder.h"

namespace pkramfs {

namespace format = pkram::format;
using pkram::Pfn;

void FillInode(format::Object* page, const Birth& birth, uint32_t generation) {
  const bool directory = S_ISDIR(birth.mode);
  format::ObjectHeader& header = page->header;
  header.client_bytes = format::kObjectClientBytes;
  header.flags = format::kBytesAreMetadata | (directory ? format::kPagesAreMetadata : 0);
  auto& record = *reinterpret_cast<InodeRecord*>(page->client);
  const uint32_t links = !birth.linked ? 0 : directory ? 2 : 1;
  record.mode_nlink = birth.mode | uint64_t{links} << 32;
  record.owner = birth.uid | uint64_t{birth.gid} << 32;
  record.rdev = birth.rdev;
  const bool inline_data = (S_ISREG(birth.mode) || S_ISLNK(birth.mode)) && header.pages == 0 &&
                           birth.target.size() <= kInlineBytes;
  const uint32_t flags = (inline_data ? kInlineData : 0) | (birth.linked ? 0 : kLinkable);
  record.generation_flags = generation | uint64_t{flags} << 32;
  record.parent = birth.parent;
  record.size = directory ? DirectorySize(0) : birth.target.size();
  if (inline_data) std::copy(birth.target.begin(), birth.target.end(), record.inline_area);
  for (uint64_t& seconds : record.seconds) seconds = static_cast<uint64_t>(birth.now.seconds);
  for (uint64_t& nanos : record.nanos) nanos = birth.now.nanos | uint64_t{birth.now.nanos} << 32;
}

Result<Unborn> Unborn::Conceive(pkram::Region* region, InodeTable* table, const Birth& birth) {
  const Result<InodeTable::Reservation> slot = table->Reserve();
  if (!slot.ok()) return slot.as_errno();
  Unborn unborn(region, table, *slot);
  const absl::StatusOr<Pfn> page = region->space().AllocateMetadata();
  if (!page.ok()) return ToErrno(page.status());
  unborn.page_ = *page;
  unborn.runs_.push_back({*page, 1});
  auto* object = region->mapping().WritableAt<format::Object>(*page);
  if (birth.target.size() > kInlineBytes) {
    pkram::LinkBuilder links(region);
    const absl::Status added = links.AppendFilledPage(0, birth.target);
    if (!added.ok()) return ToErrno(added);
    object->header.pages = links.Finish(&unborn.runs_);
    object->header.allocated_end = 1;
  }
  if (!birth.xattrs.empty()) {
    const absl::StatusOr<uint64_t> bytes =
        pkram::BuildBytes(region, birth.xattrs, pkram::Urgency::kNormal, &unborn.runs_);
    if (!bytes.ok()) return ToErrno(bytes.status());
    object->header.bytes = *bytes;
    object->header.bytes_len = birth.xattrs.size();
  }
  FillInode(object, birth, slot->generation);
  return unborn;
}

Unborn::~Unborn() {
  if (table_ == nullptr) return;
  for (const pkram::PageRun& run : runs_) region_->space().Discard(run);
  table_->Cancel(slot_);
}

void Unborn::AddLookup() {
  region_->mapping().WritableAt<format::Object>(page_)->header.lookups =
      uint64_t{region_->mount_epoch()} << 32 | 1;
}

void Unborn::Deliver(Change* change) {
  change->transaction().Store(slot_.word, format::MakeEntry(page_));
  table_ = nullptr;
}

}  // namespace pkramfs
