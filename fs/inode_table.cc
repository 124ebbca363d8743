#include "fs/inode_table.h"

#include <algorithm>

#include "fs/layout.h"
#include "pkram/thread_number.h"

namespace pkramfs {

namespace format = pkram::format;

namespace {
// How many slots a thread takes at once (of a small table one, as slots that were never used are
// marked when they are taken), and how many it keeps at most.
constexpr uint64_t kAtOnce = 16, kKept = 32, kSmallTable = 1024;
}  // namespace

InodeTable::InodeTable(pkram::Region* region, pkram::Pfn node, uint64_t limit)
    : region_(region),
      node_(region->mapping().At<format::Node>(node)),
      limit_(limit),
      entries_(region, &node_->objects) {
  pkram::MutexLock lock(&mu_);
  constexpr uint64_t kNone = ~uint64_t{0};
  for (uint64_t number = 0; (number = entries_.NextLink(number, kNone)) != kNone; ++number) {
    NoteLink(number);
  }
  end_ = std::max<uint64_t>(entries_.end(), kRootIno);
  uint64_t used = 0;
  for (Ino ino = end_; ino-- > kRootIno;) {
    const uint64_t entry = entries_.Get(ino);
    if (format::IsPage(entry)) {
      ++used;
    } else if (format::EntryPfn(entry).value() <= kMaxGeneration) {
      free_.push_back(ino);
    }
  }
  used_ = used;
}

InodeTable::Stock& InodeTable::Mine() { return stocks_[pkram::ThreadNumber() % stocks_.size()]; }

const uint64_t* InodeTable::WordOf(Ino ino) const {
  const Index* const index = index_.load(std::memory_order_acquire);
  const uint64_t number = ino / format::kLinkEntries;
  if (index == nullptr || number >= index->size) return nullptr;
  const format::Link* const link = index->links[number].load(std::memory_order_acquire);
  return link == nullptr ? nullptr : &link->entry[ino % format::kLinkEntries];
}

// A link stays where it is as long as one of its slots is in use, or kept by a thread.
void InodeTable::NoteLink(uint64_t number) {
  const Index* index = index_.load(std::memory_order_relaxed);
  if (index == nullptr || number >= index->size) {
    auto larger = std::make_unique<const Index>(std::max<uint64_t>(16, 2 * (number + 1)));
    for (uint64_t i = 0; index != nullptr && i < index->size; ++i) {
      larger->links[i].store(index->links[i].load(std::memory_order_relaxed),
                             std::memory_order_relaxed);
    }
    index = larger.get();
    indexes_.push_back(std::move(larger));
    index_.store(index, std::memory_order_release);
  }
  index->links[number].store(entries_.FindLink(number)->link, std::memory_order_release);
}

pkram::Pfn InodeTable::PageOf(Ino ino) const {
  const pkram::Space::Pin pin(&region_->space());  // its link may be replaced
  const uint64_t* const word = WordOf(ino);
  const uint64_t entry = word == nullptr ? 0 : pkram::LoadWord(word);
  return format::IsPage(entry) ? format::EntryPfn(entry) : pkram::Pfn();
}

Result<InodeTable::Reservation> InodeTable::Reserve() {
  region_->Unseal(&node_->seal);
  for (;;) {
    uint64_t used = used_.load(std::memory_order_relaxed);
    if (used >= limit()) {
      if (!AwaitFreed()) return Errno{ENOSPC};
    } else if (used_.compare_exchange_weak(used, used + 1, std::memory_order_relaxed)) {
      break;
    }
  }
  const Result<Ino> ino = TakeSlot();
  if (!ino.ok()) {
    NoteFreed(1);
    return ino.as_errno();
  }
  const uint64_t* const word = WordOf(*ino);
  const uint64_t generation = format::EntryPfn(pkram::LoadWord(word)).value();
  return Reservation{*ino, static_cast<uint32_t>(generation), word};
}

// Waits for the number of a deleted file, if the kernel is about to forget one.
bool InodeTable::AwaitFreed() {
  const auto deadline = region_->space().expected_until();
  pkram::MutexLock lock(&freed_mu_);
  ++awaiting_;
  bool in_time = std::chrono::steady_clock::now() < deadline;
  while (in_time && used_ >= limit()) in_time = freed_.WaitUntil(&freed_mu_, deadline);
  --awaiting_;
  return used_ < limit();
}

void InodeTable::NoteFreed(uint64_t inodes) {
  used_ -= inodes;
  if (awaiting_ == 0) return;
  pkram::MutexLock lock(&freed_mu_);
  freed_.NotifyAll();
}

Result<Ino> InodeTable::TakeSlot() {
  const auto pop = [](std::vector<Ino>* slots) {
    const Ino ino = slots->back();
    slots->pop_back();
    return ino;
  };
  Result<void> taken;
  {
    Stock& mine = Mine();
    pkram::MutexLock lock(&mine.mu);
    if (mine.slots.empty()) taken = TakeFromTable(&mine.slots);
    if (taken.ok()) return pop(&mine.slots);
  }
  // The table cannot grow.  Other threads may keep some.
  for (Stock& stock : stocks_) {
    pkram::MutexLock lock(&stock.mu);
    if (!stock.slots.empty()) return pop(&stock.slots);
  }
  return taken.as_errno();
}

// Adds at least one slot to a thread's stock.  The slot that it uses first comes last.
Result<void> InodeTable::TakeFromTable(std::vector<Ino>* slots) {
  pkram::MutexLock lock(&mu_);
  const uint64_t want = std::clamp<uint64_t>(used() * kAtOnce / kSmallTable, 1, kAtOnce);
  while (slots->size() < want) {
    const bool fresh = free_.empty();
    const Ino slot = fresh ? end_ : free_.back();
    const absl::StatusOr<const uint64_t*> word = entries_.Word(slot);
    if (!word.ok()) {
      if (slots->empty()) return ToErrno(word.status());
      break;
    }
    NoteLink(slot / format::kLinkEntries);
    // From here on another thread may fill the slot, so it must not look unused to Word.
    if (pkram::LoadWord(*word) == 0) region_->journal().Publish(*word, format::MakeHole());
    slots->push_back(slot);
    fresh ? void(++end_) : free_.pop_back();
  }
  std::reverse(slots->begin(), slots->end());
  return {};
}

void InodeTable::Keep(Ino slot) {
  Stock& mine = Mine();
  pkram::MutexLock lock(&mine.mu);
  mine.slots.push_back(slot);
  if (mine.slots.size() <= kKept) return;
  pkram::MutexLock table(&mu_);
  free_.insert(free_.end(), mine.slots.begin(), mine.slots.begin() + kKept / 2);
  mine.slots.erase(mine.slots.begin(), mine.slots.begin() + kKept / 2);
}

void InodeTable::Cancel(const Reservation& reservation) {
  Keep(reservation.ino);
  NoteFreed(1);
}

void InodeTable::Clear(Ino ino, uint32_t generation) {
  region_->Unseal(&node_->seal);
  const uint64_t next = uint64_t{generation} + 1;
  region_->journal().Publish(WordOf(ino), format::MakeHole(next));
  if (next <= kMaxGeneration) Keep(ino);
  NoteFreed(1);
}

// --- Blocks -------------------------------------------------------------------

Result<InodeTable::Block> InodeTable::ReserveBlock(uint64_t links, uint64_t inodes) {
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (inodes > limit() || used > limit() - inodes) return Errno{ENOSPC};
  } while (!used_.compare_exchange_weak(used, used + inodes, std::memory_order_relaxed));
  region_->Unseal(&node_->seal);
  for (Stock& stock : stocks_) {
    pkram::MutexLock kept(&stock.mu);
    pkram::MutexLock lock(&mu_);
    free_.insert(free_.end(), stock.slots.begin(), stock.slots.end());
    stock.slots.clear();
  }
  pkram::MutexLock lock(&mu_);
  Block block{0, links, inodes};
  // Links all of whose slots are free.
  std::vector<uint32_t> free(entries_.links());
  for (const Ino slot : free_) {
    if (slot / format::kLinkEntries < free.size()) ++free[slot / format::kLinkEntries];
  }
  uint64_t in_order = 0;
  for (uint64_t number = 0; number < free.size() && in_order < links; ++number) {
    in_order = free[number] == format::kLinkEntries ? in_order + 1 : 0;
    block.first = number + 1 - in_order;
  }
  if (in_order < links) {
    if (const Result<void> grown = Grow(links); !grown.ok()) {
      NoteFreed(inodes);
      return grown.as_errno();
    }
    block.first = entries_.links() - links;
  }
  std::erase_if(free_, [&](Ino slot) {
    return slot >= block.base() && slot < block.base() + links * format::kLinkEntries;
  });
  return block;
}

// Adds links without any inode behind the others.
Result<void> InodeTable::Grow(uint64_t links) {
  for (uint64_t i = 0; i < links; ++i) {
    const uint64_t number = entries_.links();
    const absl::StatusOr<const uint64_t*> word = entries_.Word(number * format::kLinkEntries);
    if (!word.ok()) return ToErrno(word.status());
    NoteLink(number);
    for (; end_ < (number + 1) * format::kLinkEntries; ++end_) free_.push_back(end_);
  }
  return {};
}

void InodeTable::ReturnBlock(const Block& block) {
  pkram::MutexLock lock(&mu_);
  for (uint64_t i = 0; i < block.links * format::kLinkEntries; ++i) {
    free_.push_back(block.base() + i);
  }
  NoteFreed(block.inodes);
}

uint32_t InodeTable::NextGeneration(Ino slot) const {
  return static_cast<uint32_t>(format::EntryPfn(pkram::LoadWord(WordOf(slot))).value());
}

void InodeTable::ReplaceBlock(const Block& block, pkram::Pfn first, pkram::Pfn last) {
  std::vector<pkram::PageRun> replaced;
  {
    pkram::MutexLock lock(&mu_);
    const pkram::Mapping& mapping = region_->mapping();
    const uint64_t end = block.first + block.links;
    for (uint64_t number = block.first; number < end; ++number) {
      pkram::AddLink(mapping, *entries_.FindLink(number), &replaced);
    }
    mapping.WritableAt<format::Link>(last)->next = entries_.Tail(end);
    region_->journal().Publish(entries_.Joint(block.first), format::MakeEntry(first));
    entries_.Adopt(block.first, end);
    for (uint64_t number = block.first; number < end; ++number) NoteLink(number);
    for (uint64_t i = 0; i < block.links * format::kLinkEntries; ++i) {
      if (!format::IsPage(entries_.Get(block.base() + i))) free_.push_back(block.base() + i);
    }
  }
  region_->space().Retire(std::move(replaced));
}

std::vector<Ino> InodeTable::All() const {
  pkram::MutexLock lock(&mu_);
  std::vector<Ino> all;
  entries_.ForEachPage(0, ~uint64_t{0}, [&](uint64_t ino, uint64_t) { all.push_back(ino); });
  return all;
}

}  // namespace pkramfs
