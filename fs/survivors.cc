#include "fs/survivors.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>

#include "pkram/link_list.h"

namespace pkramfs {

namespace format = pkram::format;

std::string Survivors::BeginNode(const format::Node& node) {
  SurvivingTree tree;
  tree.node = node.name;
  // One byte of the first word may be what is damaged.
  const uint64_t wrong = node.client[0] ^ kFsMagic;
  const bool is_magic = wrong == 0 || wrong >> (std::countr_zero(wrong) / 8 * 8) <= 0xff;
  format::Node ours = node;
  ours.client[0] = kFsMagic;
  tree.filesystem = is_magic && node.client[1] == kFsVersion;
  trees_.push_back(std::move(tree));
  return check_.BeginNode(tree.filesystem ? ours : node);
}

std::string Survivors::Object(const pkram::WalkedObject& object) {
  SurvivingTree& tree = trees_.back();
  std::string what = check_.Object(object);
  if (!tree.filesystem) return what;
  TakeNames(object);
  if (what.empty()) {
    tree.inodes[object.index] = {object.pfn, object.object->header.seal != 0,
                                 std::string(object.bytes)};
  }
  return what;
}

void Survivors::Changed(const pkram::WalkedObject& object) {
  if (trees_.back().filesystem) TakeNames(object);
}

void Survivors::Damaged(uint64_t index, pkram::Pfn pfn, const std::string& what) {
  trees_.back().damaged[index] = {pfn, what};
}

// Reads names up to the first slot that is not valid.
void Survivors::TakeNames(const pkram::WalkedObject& object) {
  const auto& record = *reinterpret_cast<const InodeRecord*>(object.object->client);
  if (!S_ISDIR(static_cast<uint32_t>(record.mode_nlink))) return;
  std::vector<SurvivingName>& names = trees_.back().names[object.index];
  const auto take = [&](uint64_t block, const Slot* slots) {
    for (uint64_t place = 0; place < SlotsIn(block);) {
      const uint64_t word = slots[place].header;
      const uint64_t length = IsLive(word) ? SlotsFor(SlotNameLen(word)) : word;
      if (length == 0 || length > SlotsIn(block) - place) return;
      const std::string_view name = SlotName(slots[place]);
      const bool is_name = IsLive(word) && !name.empty() && name != "." && name != ".." &&
                           name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
      if (is_name) names.push_back({std::string(name), SlotIno(word), SlotType(word)});
      place += length;
    }
  };
  take(0, reinterpret_cast<const Slot*>(record.inline_area));
  for (const pkram::WalkedPage& page : object.metadata) {
    take(page.index + 1, reinterpret_cast<const Slot*>(page.bytes));
  }
}

std::vector<pkram::PageRun> Merged(std::vector<pkram::PageRun> runs) {
  std::sort(runs.begin(), runs.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<pkram::PageRun> merged;
  for (const pkram::PageRun& run : runs) {
    if (merged.empty() || merged.back().first + merged.back().count < run.first) {
      merged.push_back(run);
    } else {
      pkram::PageRun& last = merged.back();
      last.count = std::max(last.first.value() + last.count, run.first.value() + run.count) -
                   last.first.value();
    }
  }
  return merged;
}

const InodeRecord& RecordOf(const pkram::PageView& pages, const SurvivingTree::Inode& inode) {
  return *reinterpret_cast<const InodeRecord*>(pages.At<format::Object>(inode.page)->client);
}

bool ForEachPage(const pkram::PageView& pages, uint64_t head, uint64_t end,
                 absl::FunctionRef<bool(std::optional<uint64_t>, pkram::Pfn)> fn) {
  // The walk has found all of this sound.  But an image has no lock, and may be written to since.
  // So pointers that lead out of it, or back, are not followed.
  const auto is_there = [&](uint64_t entry) {
    return format::EntryPfn(entry).value() < pages.existing();
  };
  uint64_t next = 0;
  for (uint64_t word = head; word != 0 && is_there(word);) {
    const pkram::LinkRef link = pkram::LinkAt(pages, word);
    const uint64_t first = link->index;
    // Links that begin behind the end are garbage, and were not walked.
    if (first >= end || first < next) break;
    next = first + 1;
    if (!fn(std::nullopt, format::EntryPfn(word))) return false;
    for (uint64_t i = 0; i < link.size && first + i < end; ++i) {
      const uint64_t entry = link->entry[i];
      if (!format::IsPage(entry) || !is_there(entry)) continue;
      if (!fn(first + i, format::EntryPfn(entry))) return false;
    }
    word = link->next;
  }
  return true;
}

bool ForEachPiece(const pkram::PageView& pages, const std::vector<pkram::PageRun>& contested,
                  const SurvivingTree::Inode& inode,
                  absl::FunctionRef<bool(uint64_t, std::string_view)> fn) {
  const InodeRecord& record = RecordOf(pages, inode);
  const uint64_t size = record.size;
  const auto in_doubt = [&](pkram::Pfn page) {
    if (inode.sealed) return false;
    const auto behind =
        std::upper_bound(contested.begin(), contested.end(), page,
                         [](pkram::Pfn pfn, const pkram::PageRun& run) { return pfn < run.first; });
    return behind != contested.begin() && page < (behind - 1)->first + (behind - 1)->count;
  };
  if (in_doubt(inode.page)) return false;
  if ((record.generation_flags >> 32 & kInlineData) != 0) {
    const auto* const bytes = reinterpret_cast<const char*>(record.inline_area);
    return fn(0, {bytes, std::min(size, kInlineBytes)});
  }
  const format::ObjectHeader& header = pages.At<format::Object>(inode.page)->header;
  const uint64_t end = std::min(header.allocated_end, pkram::PagesFor(size));
  return ForEachPage(pages, header.pages, end, [&](std::optional<uint64_t> index, pkram::Pfn page) {
    if (in_doubt(page)) return false;
    if (!index) return true;
    const uint64_t offset = *index * pkram::kPageSize;
    const uint64_t n = std::min<uint64_t>(pkram::kPageSize, size - offset);
    return fn(offset, {pages.At<char>(page), n});
  });
}

}  // namespace pkramfs
