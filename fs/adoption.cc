#include "fs/adoption.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "fs/layout.h"
#include "pkram/bitmap.h"
#include "pkram/link_list.h"
#include "pkram/page_map.h"
#include "pkram/page_view.h"
#include "pkram/walk.h"

namespace pkramfs {

namespace format = pkram::format;
using pkram::PageRun;
using pkram::PageView;
using pkram::Pfn;

namespace {

// What a filesystem is checked by, for one that gets other numbers: when an object is found sound,
// its pages are written back, renumbered.
class Renumbering final : public pkram::WalkClient {
 public:
  Renumbering(pkram::Mapping* mapping, PageView* view, uint64_t links, uint64_t inodes, Ino base,
              const StagedAt& staged, const std::function<uint32_t(Ino)>& generation)
      : mapping_(mapping),
        view_(view),
        links_(links),
        inodes_(inodes),
        base_(base),
        staged_(staged),
        generation_(generation) {}

  std::string BeginNode(const format::Node& node) override {
    if (node.client[0] != kFsMagic || node.client[1] != kFsVersion) {
      return "is no filesystem";
    }
    first_link_ = format::EntryPfn(node.objects);
    return check_.BeginNode(node);
  }
  std::string Hole(uint64_t index, uint64_t payload) override {
    return check_.Hole(index, payload);
  }

  std::string BeginObjects(uint64_t end) override {
    if (end > links_ * format::kLinkEntries) return "has more inodes than were announced";
    // What was read so far: the node, which is not needed any more, and the table.
    uint64_t word = format::MakeEntry(first_link_);
    for (uint64_t number = 0; number < links_; ++number) {
      if (word == 0) return "has fewer links than were announced";
      last_link_ = format::EntryPfn(word);
      auto* link = reinterpret_cast<format::Link*>(view_->CopyOf(last_link_));
      word = link->next;
      const uint64_t at = link->index;
      link->index = base_ + at;
      for (uint64_t k = 0; k < format::kLinkEntries; ++k) {
        if (format::IsPage(link->entry[k])) {
          ++found_;
        } else {
          link->entry[k] = format::MakeHole(generation_(base_ + at + k));
        }
      }
    }
    if (word != 0) return "has more links than were announced";
    if (found_ != inodes_) return "has another number of inodes than was announced";
    has_table_ = true;
    WriteBack();
    return check_.BeginObjects(end);
  }

  std::string Object(const pkram::WalkedObject& object) override {
    std::string problem = check_.Object(object);
    if (!problem.empty()) return problem;
    auto* const page = reinterpret_cast<format::Object*>(view_->CopyOf(object.pfn));
    auto* const record = reinterpret_cast<InodeRecord*>(page->client);
    page->header.seal = 0;
    page->header.lookups = 0;
    record->generation_flags = generation_(base_ + object.index) | (record->generation_flags >> 32)
                                                                       << 32;
    if (S_ISDIR(record->mode_nlink)) {
      record->parent += base_;
      Renumber(reinterpret_cast<Slot*>(record->inline_area), 0);
      for (const pkram::WalkedPage& block : object.metadata) {
        Renumber(reinterpret_cast<Slot*>(view_->CopyOf(block.pfn)), block.index + 1);
      }
    }
    if (object.index == kRootIno) {
      record->mode_nlink &= 0xffffffff;
      record->parent = kRootIno;
      staged_.NoteIn(record);
    }
    WriteBack();
    return "";
  }

  std::string EndNode(const format::Node& node) override { return check_.EndNode(node); }

  // A walk asks its client nothing about a node of saved bytes.
  bool has_table() const { return has_table_; }
  Pfn first_link() const { return first_link_; }
  Pfn last_link() const { return last_link_; }

 private:
  void Renumber(Slot* slots, uint64_t block) {
    for (uint64_t place = 0; place < SlotsIn(block);) {
      uint64_t& header = slots[place].header;
      if (header == 0) return;
      place += IsLive(header) ? SlotsFor(SlotNameLen(header)) : header;
      if (IsLive(header)) header += base_;
    }
  }

  // Nothing reaches these pages, so that nobody has to be told.
  void WriteBack() {
    view_->ForEachCopy([&](Pfn pfn, const std::byte* bytes) {
      std::memcpy(mapping_->Unwatched(mapping_->At(pfn)), bytes, pkram::kPageSize);
    });
    view_->ForgetCopies();
  }

  pkram::Mapping* const mapping_;
  PageView* const view_;
  const uint64_t links_, inodes_;
  const Ino base_;
  const StagedAt& staged_;
  const std::function<uint32_t(Ino)>& generation_;
  FsCheck check_;
  Pfn first_link_, last_link_;
  uint64_t found_ = 0;
  bool has_table_ = false;
};

}  // namespace

absl::StatusOr<ProvenTree> ProveTree(pkram::Region* region, Pfn node, uint64_t links,
                                     uint64_t inodes, Ino base, const StagedAt& staged,
                                     const std::function<uint32_t(Ino)>& generation) {
  const std::vector<PageRun> lent = region->space().loans().Lent();
  // Reading a page that is a hole takes one.
  for (const PageRun& run : lent) {
    if (absl::Status s = region->MakeExist(run); !s.ok()) return s;
  }
  const uint64_t pages = region->super().page_count;
  pkram::Bitmap readable(pages);
  for (const PageRun& run : lent) readable.Set(run.first.value(), run.count);
  PageView view(&region->mapping(), pages, &readable);
  pkram::PageMap map = pkram::PageMap::WithFree(pages, lent);
  Renumbering renumbering(&region->mapping(), &view, links, inodes, base, staged, generation);
  pkram::Walk walk(&view, &map, &renumbering, pkram::Walk::Mode::kStopAtFirst, {.threads = 1});
  walk.RunNode(node);
  if (!walk.problems().empty()) {
    const pkram::Problem& problem = walk.problems().front();
    return absl::DataLossError(
        absl::StrCat("the tree is not sound: page ", problem.page.value(), ": ", problem.what));
  }
  if (!renumbering.has_table()) {
    return absl::DataLossError("the tree is not sound: it has no table");
  }
  // What an open would mend, and pages that files have in common, no builder makes.
  if (!walk.repairs().empty() || !walk.to_shorten().empty() || !map.references().empty()) {
    return absl::DataLossError("the tree is not sound: it is not finished");
  }
  ProvenTree tree{renumbering.first_link(), renumbering.last_link(), {}, {}};
  for (const PageRun& run : lent) {
    for (uint64_t i = 0; i < run.count; ++i) {
      const Pfn pfn = run.first + i;
      if (!map.InUse(pfn) || pfn == node) continue;  // the node's own page is left over
      pkram::AddRun(map.IsData(pfn) ? &tree.data : &tree.metadata, pfn);
    }
  }
  return tree;
}

}  // namespace pkramfs
