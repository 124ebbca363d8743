// Readers that may still look at pages which nothing leads to any more.  For each, the epoch in
// which it began.
//
// A reader takes no lock when it begins and ends: it writes to a word that no other thread writes
// to. Only if there are more than kSlots readers at once, the others take a lock.
//
// Thread-safe.
#ifndef PKRAM_PINS_H_
#define PKRAM_PINS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>

#include "pkram/mutex.h"
#include "pkram/thread_number.h"

namespace pkram {

class Pins {
 public:
  using Word = std::atomic<uint64_t>;
  static constexpr size_t kSlots = 64;
  static constexpr uint64_t kNone = ~uint64_t{0};

  // Returns the value that Leave takes.  `epoch` is not 0.
  Word* Enter(uint64_t epoch) {
    const size_t first = ThreadNumber();
    for (size_t i = 0; i < kSlots; ++i) {
      Word& word = slots_[(first + i) % kSlots].epoch;
      uint64_t nobody = 0;
      if (word.load(std::memory_order_relaxed) == 0 &&
          word.compare_exchange_strong(nobody, epoch)) {
        return &word;
      }
    }
    MutexLock lock(&mu_);
    ++others_[epoch];
    are_others_ = true;
    return nullptr;
  }

  void Leave(Word* word, uint64_t epoch) {
    if (word != nullptr) {
      word->store(0);
      return;
    }
    MutexLock lock(&mu_);
    const auto it = others_.find(epoch);
    if (--it->second == 0) others_.erase(it);
    are_others_ = !others_.empty();
  }

  // The earliest epoch of the readers that are there.  kNone when there are none.
  uint64_t Oldest() const {
    uint64_t oldest = kNone;
    for (const Slot& slot : slots_) {
      const uint64_t epoch = slot.epoch.load();
      if (epoch != 0) oldest = std::min(oldest, epoch);
    }
    if (!are_others_) return oldest;
    MutexLock lock(&mu_);
    return others_.empty() ? oldest : std::min(oldest, others_.begin()->first);
  }

 private:
  struct alignas(64) Slot {
    Word epoch{0};  // 0: free
  };
  std::array<Slot, kSlots> slots_;
  std::atomic<bool> are_others_{false};
  mutable Mutex mu_;
  std::map<uint64_t, uint64_t> others_ ABSL_GUARDED_BY(mu_);  // epoch -> how many
};

}  // namespace pkram

#endif  // PKRAM_PINS_H_
