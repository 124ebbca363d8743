#include "fs/directory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "pkram/link_list.h"

namespace pkramfs {

using pkram::Pfn;
namespace format = pkram::format;

Directory::Directory(pkram::Region* region, Inode* inode, pkram::LinkMap* pages)
    : region_(region), inode_(inode), pages_(pages), names_(0, Name{this}, Name{this}) {
  names_.reserve((inode->size() - DirectorySize(0)) / 20);
  for (uint64_t block = 0; block <= end_block(); ++block) IndexBlock(block);
}

const Slot* Directory::BlockAt(uint64_t block) const {
  if (block == 0) return reinterpret_cast<const Slot*>(inode_->record().inline_area);
  const uint64_t entry = pages_->Get(block - 1);
  if (!format::IsPage(entry)) return nullptr;
  return region_->mapping().At<Slot>(format::EntryPfn(entry));
}

void Directory::IndexBlock(uint64_t block) {
  const Slot* const slots = BlockAt(block);
  if (slots == nullptr) {
    absent_.insert(block);
    return;
  }
  const uint64_t first = block * kBlockSlots;
  for (uint64_t place = 0; place < SlotsIn(block);) {
    const uint64_t header = slots[place].header;
    uint64_t length = header == 0 ? SlotsIn(block) - place : header;
    if (IsLive(header)) {
      length = SlotsFor(SlotNameLen(header));
      names_.insert(first + place);
      ++entries_;
    } else {
      AddFree(first + place, length);
    }
    place += length;
  }
}

void Directory::AddFree(uint64_t slot, uint64_t length) {
  free_[slot] = length;
  by_length_[std::min(length, kSizes)].insert(slot);
}

uint64_t Directory::TakeFree(uint64_t slot) {
  const auto it = free_.find(slot);
  const uint64_t length = it->second;
  by_length_[std::min(length, kSizes)].erase(slot);
  free_.erase(it);
  return length;
}

// Free slots that reach the end of their block are "the rest".
uint64_t Directory::HeaderOfFree(uint64_t slot, uint64_t length) const {
  return slot % kBlockSlots + length == SlotsIn(slot / kBlockSlots) ? 0 : length;
}

std::optional<Directory::Found> Directory::Find(std::string_view name) const {
  const auto it = names_.find(name);
  if (it == names_.end()) return std::nullopt;
  const uint64_t header = SlotAt(*it)->header;
  return Found{SlotIno(header), SlotType(header)};
}

// The first slot of a free run of at least `slots`; it is still free.
Result<uint64_t> Directory::FindRoom(Change* change, uint64_t slots) {
  for (uint64_t length = slots; length <= kSizes; ++length) {
    if (!by_length_[length].empty()) return *by_length_[length].begin();
  }
  const uint64_t block = absent_.empty() ? end_block() + 1 : *absent_.begin();
  const absl::StatusOr<Pfn> page = region_->space().AllocateMetadata();
  if (!page.ok()) return ToErrno(page.status());
  const absl::StatusOr<const uint64_t*> word = pages_->Word(block - 1);
  if (!word.ok()) {
    region_->space().Discard({*page, 1});
    return ToErrno(word.status());
  }
  // A page of free slots does not change the directory, so it may be published before.  It lies
  // behind the allocated end, so it counts only from the commit on.
  region_->journal().Publish(*word, format::MakeEntry(*page));
  absent_.erase(block);
  if (block > end_block()) change->SetAllocatedEnd(inode_, block);
  AddFree(block * kBlockSlots, kBlockSlots);
  return block * kBlockSlots;
}

Result<void> Directory::Insert(Change* change, std::string_view name, Ino ino, uint32_t type) {
  inode_->Unseal();
  const uint64_t slots = SlotsFor(name.size());
  const Result<uint64_t> room = FindRoom(change, slots);
  if (!room.ok()) return room.as_errno();
  const uint64_t slot = *room;
  const uint64_t rest = TakeFree(slot) - slots;
  const Slot* const at = SlotAt(slot);
  std::memcpy(region_->mapping().Writable(at)->name, name.data(), name.size());
  if (rest > 0) {
    region_->mapping().Writable(at + slots)->header = HeaderOfFree(slot + slots, rest);
    AddFree(slot + slots, rest);
  }
  change->Store(inode_, &at->header, MakeLive(ino, type, name.size()));
  change->AfterCommit([this, slot] { names_.insert(slot); });
  change->SetSize(inode_, DirectorySize(++entries_));
  return {};
}

void Directory::Replace(Change* change, std::string_view name, Ino ino, uint32_t type) {
  const Slot* const at = SlotAt(*names_.find(name));
  change->Store(inode_, &at->header, MakeLive(ino, type, name.size()));
}

void Directory::Remove(Change* change, std::string_view name) {
  const auto it = names_.find(name);
  uint64_t slot = *it;
  names_.erase(it);
  change->SetSize(inode_, DirectorySize(--entries_));
  const uint64_t block = slot / kBlockSlots;
  uint64_t length = SlotsFor(name.size());
  // Free neighbours in the block become one run.
  if (const auto next = free_.find(slot + length);
      next != free_.end() && next->first / kBlockSlots == block) {
    length += TakeFree(next->first);
  }
  if (const auto next = free_.lower_bound(slot); next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == slot && before->first / kBlockSlots == block) {
      slot = before->first;
      length += TakeFree(slot);
    }
  }
  if (block == 0 || length < kBlockSlots) {
    change->Store(inode_, &SlotAt(slot)->header, HeaderOfFree(slot, length));
    AddFree(slot, length);
  } else {
    // Nothing is left on the page.
    const uint64_t* const word = pages_->ExistingWord(block - 1);
    change->dropped()->push_back({format::EntryPfn(*word), 1});
    change->Store(inode_, word, format::MakeHole());
    absent_.insert(block);
  }
  if (entries_ == 0 && end_block() > 0) {
    // No page is left at all, so the links can go, too.
    change->SetAllocatedEnd(inode_, 0);
    absent_.clear();
    while (!free_.empty() && free_.rbegin()->first >= kBlockSlots) TakeFree(free_.rbegin()->first);
    change->AfterCommit([this] {
      std::vector<pkram::PageRun> links;
      pages_->Truncate(0, &links);
      region_->space().Retire(std::move(links));
    });
  }
}

}  // namespace pkramfs
