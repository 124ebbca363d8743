#include "pkram/journal.h"

#include <cassert>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "pkram/checksum.h"
#include "pkram/thread_number.h"

namespace pkram {
namespace {

uint64_t CommitWord(const format::JournalStore* stores, size_t count) {
  return uint64_t{Crc32c(stores, count * sizeof(*stores))} << 32 | count;
}

}  // namespace

Journal::Journal(Mapping* mapping, Pfn first, uint64_t slots)
    : mapping_(mapping), first_(first), slots_(slots), taken_(slots) {}

void Journal::StoreWord(uint64_t* word, uint64_t value) {
  if (hook_) hook_();
  std::atomic_ref<uint64_t>(*word).store(value, std::memory_order_release);
  if (hook_) hook_();
}

void Journal::Publish(const uint64_t* word, uint64_t value) {
  StoreWord(mapping_->Writable(word), value);
  // Pages that this store makes unreachable may be used again only after it.
  std::atomic_thread_fence(std::memory_order_release);
}

bool Journal::TryAcquireSlot(uint64_t* slot) {
  const uint64_t first = ThreadNumber();
  for (uint64_t i = 0; i < slots_; ++i) {
    *slot = (first + i) % slots_;
    std::atomic<bool>& is_taken = taken_[*slot].is_taken;
    if (!is_taken.load() && !is_taken.exchange(true)) return true;
  }
  return false;
}

// A thread that waits for a slot first says so, and then looks at the slots.  A thread that
// releases a slot looks afterwards whether somebody waits.
uint64_t Journal::AcquireSlot() {
  uint64_t slot = 0;
  if (TryAcquireSlot(&slot)) return slot;
  waits_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(&mu_);
  ++waiting_;
  while (!TryAcquireSlot(&slot)) freed_.Wait(&mu_);
  --waiting_;
  return slot;
}

void Journal::ReleaseSlot(uint64_t slot) {
  taken_[slot].is_taken = false;
  if (waiting_.load() == 0) return;
  MutexLock lock(&mu_);
  freed_.NotifyOne();
}

// Until the slot is cleared, it tells whether a receipt that names it was committed.
void Journal::Execute(const format::JournalStore* stores, size_t count, Receipt* receipt,
                      uint64_t answer) {
  const uint64_t index = AcquireSlot();
  auto* slot = mapping_->WritableAt<format::JournalSlot>(first_ + index);
  for (size_t i = 0; i < count; ++i) slot->store[i] = stores[i];
  if (receipt != nullptr) {
    StoreWord(&receipt->next, answer);
    StoreWord(&receipt->committing, index + 1);
    std::atomic_thread_fence(std::memory_order_release);
  }
  StoreWord(&slot->commit, CommitWord(stores, count));
  std::atomic_thread_fence(std::memory_order_release);
  for (size_t i = 0; i < count; ++i) {
    auto* word = reinterpret_cast<const uint64_t*>(mapping_->base() + stores[i].offset);
    StoreWord(mapping_->Writable(word), stores[i].value);
  }
  std::atomic_thread_fence(std::memory_order_release);
  if (receipt != nullptr) {
    StoreWord(&receipt->answer, answer);
    StoreWord(&receipt->done, 1);
    StoreWord(&receipt->committing, 0);
    std::atomic_thread_fence(std::memory_order_release);
  }
  StoreWord(&slot->commit, 0);
  std::atomic_thread_fence(std::memory_order_release);
  ReleaseSlot(index);
}

void Journal::Settle(absl::Span<Receipt* const> receipts) {
  for (Receipt* const receipt : receipts) {
    const uint64_t index = receipt->committing - 1;
    if (receipt->committing == 0) continue;
    if (index < slots_ && mapping_->At<format::JournalSlot>(first_ + index)->commit != 0) {
      StoreWord(&receipt->answer, receipt->next);
      StoreWord(&receipt->done, 1);
    }
    StoreWord(&receipt->committing, 0);
  }
}

absl::Status Journal::ReadSlot(const format::JournalSlot& slot, uint64_t region_bytes,
                               std::vector<format::JournalStore>* stores) {
  stores->clear();
  const uint64_t commit = slot.commit;
  if (commit == 0) return absl::OkStatus();
  const uint64_t count = commit & 0xffffffff;
  if (count == 0 || count > format::kSlotStores) {
    return absl::DataLossError(
        absl::StrCat("a journal slot says that it holds ", count, " stores"));
  }
  if (CommitWord(slot.store, count) != commit) {
    return absl::DataLossError("a committed journal slot has a wrong checksum");
  }
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t offset = slot.store[i].offset;
    if (offset % 8 != 0 || offset >= region_bytes) {
      return absl::DataLossError(absl::StrCat("a journal slot stores to offset ", offset));
    }
    stores->push_back(slot.store[i]);
  }
  return absl::OkStatus();
}

void Journal::Replay() {
  for (uint64_t i = 0; i < slots_; ++i) {
    auto* slot = mapping_->WritableAt<format::JournalSlot>(first_ + i);
    const uint64_t count = slot->commit & 0xffffffff;
    for (uint64_t k = 0; k < count; ++k) {
      auto* word = reinterpret_cast<const uint64_t*>(mapping_->base() + slot->store[k].offset);
      StoreWord(mapping_->Writable(word), slot->store[k].value);
    }
    std::atomic_thread_fence(std::memory_order_release);
    if (count != 0) StoreWord(&slot->commit, 0);
  }
}

void Transaction::Store(const uint64_t* word, uint64_t value) {
  const uint64_t offset = journal_->mapping_->OffsetOf(word);
  assert(offset % 8 == 0 && offset < journal_->mapping_->pages() * kPageSize);
  for (format::JournalStore& s : stores_) {
    if (s.offset == offset) {
      s.value = value;
      return;
    }
  }
  // A longer list would be a fault of the program: every operation is made of a
  // constant number of words.
  if (stores_.size() == format::kSlotStores) std::abort();
  stores_.push_back({offset, value});
}

uint64_t Transaction::Pending(const uint64_t* word) const {
  const uint64_t offset = journal_->mapping_->OffsetOf(word);
  for (const format::JournalStore& s : stores_) {
    if (s.offset == offset) return s.value;
  }
  return LoadWord(word);
}

void Transaction::Commit() {
  if (!stores_.empty()) journal_->Execute(stores_.data(), stores_.size(), receipt_, answer_);
  stores_.clear();
}

}  // namespace pkram
