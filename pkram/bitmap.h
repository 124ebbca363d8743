// A bitmap whose untouched parts cost no memory: a region may be sized for
// terabytes and hold little.
#ifndef PKRAM_BITMAP_H_
#define PKRAM_BITMAP_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace pkram {

class Bitmap {
 public:
  static constexpr uint64_t kNone = ~uint64_t{0};

  explicit Bitmap(uint64_t bits)
      : bits_(bits), words_(static_cast<uint64_t*>(std::calloc(bits / 64 + 1, 8))) {
    if (words_ == nullptr) throw std::bad_alloc();
  }

  // A copy of the first `bits` bits, or of all if there are fewer.
  Bitmap Copy(uint64_t bits = kNone) const {
    Bitmap copy(std::min(bits, bits_));
    std::copy_n(words_.get(), copy.bits_ / 64 + 1, copy.words_.get());
    return copy;
  }

  uint64_t size() const { return bits_; }
  // More bits, all clear.
  void Grow(uint64_t bits) {
    Bitmap larger(bits);
    std::copy_n(words_.get(), bits_ / 64 + 1, larger.words_.get());
    std::swap(*this, larger);
  }
  bool Test(uint64_t i) const { return words_[i / 64] >> (i % 64) & 1; }
  void Set(uint64_t i) { words_[i / 64] |= uint64_t{1} << (i % 64); }
  void Clear(uint64_t i) { words_[i / 64] &= ~(uint64_t{1} << (i % 64)); }
  void Assign(uint64_t i, bool value) { value ? Set(i) : Clear(i); }

  // Sets the bits of [from, from + count) up to the first that is set already.  Returns how many.
  uint64_t Claim(uint64_t from, uint64_t count) {
    return ForEachWord(from, count, [&](uint64_t at, uint64_t mask) {
      uint64_t& word = words_[at / 64];
      const uint64_t free = UpToTaken(mask, word);
      word |= free;
      return free;
    });
  }
  // The same, while other threads claim and set bits, too.  Each bit is claimed by one thread.
  uint64_t ClaimAmongOthers(uint64_t from, uint64_t count) {
    return ForEachWord(from, count, [&](uint64_t at, uint64_t mask) {
      const std::atomic_ref word(words_[at / 64]);
      uint64_t free, before = word.load(std::memory_order_relaxed);
      do {
        free = UpToTaken(mask, before);
      } while (!word.compare_exchange_weak(before, before | free, std::memory_order_relaxed));
      return free;
    });
  }
  void Set(uint64_t from, uint64_t count) {
    ForEachWord(from, count, [&](uint64_t at, uint64_t mask) {
      words_[at / 64] |= mask;
      return mask;
    });
  }
  // Sets the bits of `mask` in the 64 bits from `at` on, a multiple of 64, while other threads do
  // the same.  Returns the bits of `mask` that were set before.
  uint64_t SetWordAmongOthers(uint64_t from, uint64_t mask) {
    return std::atomic_ref(words_[from / 64]).fetch_or(mask, std::memory_order_relaxed) & mask;
  }

  // Other threads may set, clear and test bits of the same words meanwhile.
  void SetAmongOthers(uint64_t from, uint64_t count, bool value) {
    ForEachWord(from, count, [&](uint64_t at, uint64_t mask) {
      const std::atomic_ref word(words_[at / 64]);
      if (value) {
        word.fetch_or(mask, std::memory_order_relaxed);
      } else {
        word.fetch_and(~mask, std::memory_order_relaxed);
      }
      return mask;
    });
  }
  // Whether every bit of [from, from + count) is set.
  bool TestAmongOthers(uint64_t from, uint64_t count) const {
    return count == ForEachWord(from, count,
                                [&](uint64_t at, uint64_t mask) { return mask & Load(at / 64); });
  }

  // Calls take(at, mask) for each 64 bits of [from, from + count): `at` is a multiple of 64, and
  // `mask` has the bits that are in the range.  take returns the bits that it took, from the first
  // on.  Ends when take has not taken all, and returns how many bits were taken.
  template <typename Take>
  static uint64_t ForEachWord(uint64_t from, uint64_t count, Take take) {
    for (uint64_t done = 0; done < count;) {
      const uint64_t shift = (from + done) % 64;
      const uint64_t n = std::min(count - done, 64 - shift);
      const uint64_t mask = (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << shift;
      const uint64_t taken = take(from + done - shift, mask);
      if (taken != mask) return done + static_cast<uint64_t>(std::popcount(taken));
      done += n;
    }
    return count;
  }

  // 64 bits, from a multiple of 64 on.
  uint64_t Word(uint64_t from) const { return words_[from / 64]; }

  // The first set (clear) bit in [from, to), or kNone.
  uint64_t FindSet(uint64_t from, uint64_t to) const { return Find(from, to, 0); }
  uint64_t FindClear(uint64_t from, uint64_t to) const { return Find(from, to, ~uint64_t{0}); }

  // The last set bit below `to`, or kNone.
  uint64_t FindLastSet(uint64_t to) const {
    while (to > 0) {
      const uint64_t w = (to - 1) / 64;
      const uint64_t keep = to - w * 64;
      const uint64_t word = keep == 64 ? words_[w] : words_[w] & ((uint64_t{1} << keep) - 1);
      if (word != 0) return w * 64 + 63 - static_cast<uint64_t>(std::countl_zero(word));
      to = w * 64;
    }
    return kNone;
  }

 private:
  uint64_t Load(uint64_t word) const {
    return std::atomic_ref(words_[word]).load(std::memory_order_relaxed);
  }
  // The bits of `mask` below the first of them that `word` has.
  static uint64_t UpToTaken(uint64_t mask, uint64_t word) {
    const uint64_t taken = mask & word;
    return taken == 0 ? mask : mask & ((taken & -taken) - 1);
  }
  uint64_t Find(uint64_t from, uint64_t to, uint64_t flip) const {
    while (from < to) {
      const uint64_t w = from / 64;
      const uint64_t word = (Load(w) ^ flip) >> (from % 64) << (from % 64);
      if (word != 0) {
        const uint64_t at = w * 64 + static_cast<uint64_t>(std::countr_zero(word));
        return at < to ? at : kNone;
      }
      from = (w + 1) * 64;
    }
    return kNone;
  }

  struct Free {
    void operator()(uint64_t* p) const { std::free(p); }
  };
  uint64_t bits_;
  std::unique_ptr<uint64_t[], Free> words_;
};

}  // namespace pkram

#endif  // PKRAM_BITMAP_H_
