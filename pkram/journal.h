// The two ways to change reachable metadata, and there is no third.
//
//   Publish      one word.  Fill fresh pages that nothing reaches, then make
//                them reachable with one release store.
//   Transaction  several words, all or none, through a redo log slot:
//
//     Transaction t(&journal);
//     t.Store(&directory_slot->word, entry);
//     t.Store(&inode->nlink, n);
//     t.Commit();                 // cannot fail
//
// REQUIRES, of both: the caller holds the locks that cover the words, from before the call until
// after it.  So no two committed slots store to the same word, and replay may apply slots in any
// order.
#ifndef PKRAM_JOURNAL_H_
#define PKRAM_JOURNAL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "pkram/format.h"
#include "pkram/mapping.h"
#include "pkram/mutex.h"
#include "pkram/receipt.h"
#include "pkram/types.h"

namespace pkram {

// Stores a word that other threads may be reading.
inline uint64_t LoadWord(const uint64_t* word) {
  return std::atomic_ref<uint64_t>(*const_cast<uint64_t*>(word)).load(std::memory_order_acquire);
}

class Journal {
 public:
  // `mapping` must outlive the journal.
  Journal(Mapping* mapping, Pfn first, uint64_t slots);

  void Publish(const uint64_t* word, uint64_t value);

  // For tests, to be set before use: a hook that is called before and after every store that
  // Publish and Transaction make, in the order in which a successor would see the stores.
  void set_store_hook(std::function<void()> hook) { hook_ = std::move(hook); }

  // How often a transaction had to wait for a slot.
  uint64_t waits() const { return waits_.load(std::memory_order_relaxed); }

  // Completes the receipts of a process that died: notes in them what it had committed.  To be
  // called before Replay.
  void Settle(absl::Span<Receipt* const> receipts);

  // Makes the stores of committed slots.  Open calls it when the region is proven sound.
  void Replay();

  // Reads one slot.  Returns its stores, none when the slot is free, or DATA_LOSS that says what is
  // wrong with it.
  static absl::Status ReadSlot(const format::JournalSlot& slot, uint64_t region_bytes,
                               std::vector<format::JournalStore>* stores);

 private:
  friend class Transaction;

  // A thread tries the slot that it used last first.  Nobody takes a lock while a slot is free.
  struct alignas(64) Slot {
    std::atomic<bool> is_taken{false};
  };
  uint64_t AcquireSlot();
  bool TryAcquireSlot(uint64_t* slot);
  void ReleaseSlot(uint64_t slot);
  void StoreWord(uint64_t* word, uint64_t value);
  void Execute(const format::JournalStore* stores, size_t count, Receipt* receipt, uint64_t answer);

  Mapping* const mapping_;
  const Pfn first_;
  const uint64_t slots_;
  std::function<void()> hook_;
  std::atomic<uint64_t> waits_{0};
  std::vector<Slot> taken_;
  Mutex mu_;
  CondVar freed_;
  std::atomic<uint64_t> waiting_{0};  // threads; changed under the lock
};

class Transaction {
 public:
  explicit Transaction(Journal* journal) : journal_(journal) {}
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  // A second store to a word replaces the first.  At most kSlotStores words.
  void Store(const uint64_t* word, uint64_t value);
  // What the word will hold: what Store gave it, or what it holds now.
  uint64_t Pending(const uint64_t* word) const;
  // Has the commit noted in `receipt`, with the answer.  It may be null, and outlives this.
  void set_receipt(Receipt* receipt, uint64_t answer) {
    receipt_ = receipt;
    answer_ = answer;
  }
  void Commit();

 private:
  Journal* const journal_;
  absl::InlinedVector<format::JournalStore, 24> stores_;
  Receipt* receipt_ = nullptr;
  uint64_t answer_ = 0;
};

}  // namespace pkram

#endif  // PKRAM_JOURNAL_H_
