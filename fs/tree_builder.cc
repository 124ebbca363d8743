#include "fs/tree_builder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/unborn.h"
#include "fs/xattrs.h"
#include "pkram/link_builder.h"

namespace pkramfs {

namespace format = pkram::format;
using pkram::kPageSize;
using pkram::PageRun;
using pkram::PagesFor;
using pkram::Pfn;

namespace {

InodeRecord* RecordOf(format::Object* page) { return reinterpret_cast<InodeRecord*>(page->client); }

uint64_t WithLinks(uint64_t mode_nlink, uint32_t nlink) {
  return (mode_nlink & 0xffffffff) | uint64_t{nlink} << 32;
}

}  // namespace

Ino TreeBuilder::Reserve() {
  pkram::MutexLock lock(&mu_);
  pages_.push_back(Pfn());
  return pages_.size() - 1;
}

absl::StatusOr<format::Object*> TreeBuilder::MakeInode(Ino ino, Ino parent,
                                                       const Attributes& attributes,
                                                       std::string_view target) {
  const absl::StatusOr<Pfn> pfn = region_->space().AllocateMetadata();
  if (!pfn.ok()) return pfn.status();
  auto* const page = region_->mapping().WritableAt<format::Object>(*pfn);
  if (!attributes.xattrs.empty()) {
    std::vector<PageRun> built;
    const absl::StatusOr<uint64_t> bytes =
        pkram::BuildBytes(region_, attributes.xattrs, pkram::Urgency::kNormal, &built);
    if (!bytes.ok()) return bytes.status();
    page->header.bytes = *bytes;
    page->header.bytes_len = attributes.xattrs.size();
  }
  Birth birth;
  birth.mode = attributes.mode;
  birth.uid = attributes.uid;
  birth.gid = attributes.gid;
  birth.rdev = attributes.rdev;
  birth.parent = parent;
  birth.target = target;
  FillInode(page, birth, 0);
  InodeRecord* const record = RecordOf(page);
  const Timestamp times[] = {attributes.atime, attributes.mtime, attributes.ctime,
                             attributes.btime};
  for (const TimeIndex which : {kAtime, kMtime, kCtime, kBtime}) {
    record->seconds[which] = static_cast<uint64_t>(times[which].seconds);
  }
  record->nanos[0] = attributes.atime.nanos | uint64_t{attributes.mtime.nanos} << 32;
  record->nanos[1] = attributes.ctime.nanos | uint64_t{attributes.btime.nanos} << 32;
  if (!S_ISDIR(attributes.mode)) {
    record->mode_nlink = WithLinks(record->mode_nlink, attributes.nlink);
  }
  pkram::MutexLock lock(&mu_);
  pages_[ino] = *pfn;
  return page;
}

void TreeBuilder::SetLinks(Ino ino, uint32_t nlink) {
  pkram::MutexLock lock(&mu_);
  InodeRecord* const record = RecordOf(region_->mapping().WritableAt<format::Object>(pages_[ino]));
  record->mode_nlink = WithLinks(record->mode_nlink, nlink);
}

void TreeBuilder::Drop(Ino ino) {
  pkram::MutexLock lock(&mu_);
  pages_[ino] = Pfn();
  ++dropped_;
}

absl::Status TreeBuilder::MakeNode(Ino ino, const Attributes& attributes) {
  return MakeInode(ino, 0, attributes).status();
}

// --- Contents -------------------------------------------------------------------------

absl::StatusOr<std::vector<TreeBuilder::Piece>> TreeBuilder::FillPages(
    absl::Span<const Extent> extents, const Reader& reader) {
  std::vector<Piece> pieces;
  for (const Extent& extent : extents) {
    for (uint64_t done = 0; done < extent.size;) {
      const absl::StatusOr<PageRun> run =
          region_->space().AllocateData(PagesFor(extent.size - done), Pfn());
      if (!run.ok()) return run.status();
      const uint64_t size = std::min(extent.size - done, run->count * kPageSize);
      const absl::Status read = reader.to_pages(extent.offset + done, size, run->first.offset());
      if (!read.ok()) return read;
      pieces.push_back({(extent.offset + done) / kPageSize, *run});
      done += size;
    }
  }
  return pieces;
}

// A short link, or whole ones, each of which begins at its place and has holes where there are no
// pages.
absl::Status TreeBuilder::BuildList(absl::Span<const Piece> pieces, format::Object* page) {
  if (pieces.empty()) return absl::OkStatus();
  const Piece& last = pieces.back();
  const uint64_t end = last.index + last.run.count;
  page->header.allocated_end = end;
  if (end <= format::kShortLinkEntries) {
    const Pfn object = region_->mapping().PfnOf(page);
    auto* const link =
        reinterpret_cast<format::Link*>(reinterpret_cast<std::byte*>(page) + format::kShortLinkAt);
    std::fill_n(link->entry, end, format::MakeHole());
    for (const Piece& piece : pieces) {
      for (uint64_t i = 0; i < piece.run.count; ++i) {
        link->entry[piece.index + i] = format::MakeEntry(piece.run.first + i);
      }
    }
    page->header.pages = format::MakeShort(object);
    return absl::OkStatus();
  }
  pkram::LinkBuilder links(region_);
  uint64_t next = 0;  // index behind the last entry
  for (const Piece& piece : pieces) {
    // Holes in front of it, of its own link alone.
    for (uint64_t index = std::max(next, piece.index / format::kLinkEntries * format::kLinkEntries);
         index < piece.index; ++index) {
      if (absl::Status s = links.Append(index, format::MakeHole()); !s.ok()) return s;
    }
    for (uint64_t i = 0; i < piece.run.count; ++i) {
      const absl::Status s = links.Append(piece.index + i, format::MakeEntry(piece.run.first + i));
      if (!s.ok()) return s;
    }
    next = piece.index + piece.run.count;
  }
  std::vector<PageRun> built;
  page->header.pages = links.Finish(&built);
  return absl::OkStatus();
}

absl::Status TreeBuilder::MakeFile(Ino ino, const Attributes& attributes, uint64_t size,
                                   absl::Span<const Extent> extents, const Reader& reader) {
  if (size <= kInlineBytes) {
    char bytes[kInlineBytes] = {};
    if (!extents.empty()) {
      if (absl::Status s = reader.to_memory(0, {bytes, size}); !s.ok()) return s;
    }
    return MakeInode(ino, 0, attributes, {bytes, size}).status();
  }
  const absl::StatusOr<std::vector<Piece>> pieces = FillPages(extents, reader);
  if (!pieces.ok()) return pieces.status();
  const absl::StatusOr<format::Object*> page = MakeInode(ino, 0, attributes);
  if (!page.ok()) return page.status();
  InodeRecord* const record = RecordOf(*page);
  record->size = size;
  record->generation_flags &= ~(uint64_t{kInlineData} << 32);
  return BuildList(*pieces, *page);
}

absl::Status TreeBuilder::MakeSymlink(Ino ino, const Attributes& attributes,
                                      std::string_view target) {
  if (target.size() <= kInlineBytes) return MakeInode(ino, 0, attributes, target).status();
  pkram::LinkBuilder links(region_);
  if (absl::Status s = links.AppendFilledPage(0, target); !s.ok()) return s;
  const absl::StatusOr<format::Object*> page = MakeInode(ino, 0, attributes);
  if (!page.ok()) return page.status();
  std::vector<PageRun> built;
  (*page)->header.pages = links.Finish(&built);
  (*page)->header.allocated_end = 1;
  RecordOf(*page)->size = target.size();
  RecordOf(*page)->generation_flags &= ~(uint64_t{kInlineData} << 32);
  return absl::OkStatus();
}

// --- Directories ----------------------------------------------------------------------

absl::Status TreeBuilder::MakeDirectory(Ino ino, Ino parent, const Attributes& attributes,
                                        absl::Span<const Name> names) {
  const absl::StatusOr<format::Object*> made = MakeInode(ino, parent, attributes);
  if (!made.ok()) return made.status();
  InodeRecord* const record = RecordOf(*made);
  record->size = DirectorySize(names.size());
  pkram::LinkBuilder links(region_);
  auto* slots = reinterpret_cast<Slot*>(record->inline_area);
  uint64_t block = 0, place = 0;
  uint32_t subdirectories = 0;
  for (const Name& name : names) {
    const uint64_t length = SlotsFor(name.name.size());
    if (place + length > SlotsIn(block)) {
      const absl::StatusOr<Pfn> page = region_->space().AllocateMetadata();
      if (!page.ok()) return page.status();
      if (absl::Status s = links.Append(block, format::MakeEntry(*page)); !s.ok()) return s;
      slots = region_->mapping().WritableAt<Slot>(*page);
      ++block;
      place = 0;
    }
    slots[place].header = MakeLive(name.ino, (name.mode & S_IFMT) >> 12, name.name.size());
    // A long name goes on in the slots behind it.
    std::memcpy(reinterpret_cast<char*>(&slots[place]) + offsetof(Slot, name), name.name.data(),
                name.name.size());
    place += length;
    subdirectories += S_ISDIR(name.mode);
  }
  std::vector<PageRun> built;
  (*made)->header.pages = links.Finish(&built);
  (*made)->header.allocated_end = block;
  record->mode_nlink = WithLinks(record->mode_nlink, 2 + subdirectories);
  return absl::OkStatus();
}

// --- The whole -------------------------------------------------------------------------

absl::StatusOr<Filesystem::BuiltTree> TreeBuilder::Finish(Ino top, uint32_t mode) {
  Attributes root;
  root.mode = S_IFDIR | 0700;
  const Name name{std::string(Filesystem::kTreeName), top, mode};
  if (absl::Status s = MakeDirectory(kRootIno, kRootIno, root, {&name, 1}); !s.ok()) return s;
  const absl::StatusOr<Pfn> node = region_->space().AllocateMetadata();
  if (!node.ok()) return node.status();
  pkram::MutexLock lock(&mu_);
  pkram::LinkBuilder table(region_);
  for (Ino ino = 0; ino < pages_.size(); ++ino) {
    const uint64_t entry = pages_[ino] ? format::MakeEntry(pages_[ino]) : format::MakeHole();
    if (absl::Status s = table.Append(ino, entry); !s.ok()) return s;
  }
  auto* const page = region_->mapping().WritableAt<format::Node>(*node);
  page->state = format::kLive;
  page->client[0] = kFsMagic;
  page->client[1] = kFsVersion;
  std::memcpy(page->name, "built", 6);
  std::vector<PageRun> built;
  page->objects = table.Finish(&built);
  const uint64_t links = (pages_.size() + format::kLinkEntries - 1) / format::kLinkEntries;
  return Filesystem::BuiltTree{*node, links, pages_.size() - kRootIno - dropped_};
}

}  // namespace pkramfs
