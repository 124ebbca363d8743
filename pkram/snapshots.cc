#include "pkram/snapshots.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

namespace pkram {
namespace {

// The bits of a word whose pages lie in a run.
uint64_t MaskOf(PageRun run, uint64_t word) {
  const uint64_t from = std::max(run.first.value(), word * 64);
  const uint64_t to = std::min(run.first.value() + run.count, word * 64 + 64);
  if (from >= to) return 0;
  const uint64_t ones = to - from == 64 ? ~uint64_t{0} : (uint64_t{1} << (to - from)) - 1;
  return ones << (from % 64);
}

// Copies word by word, because words that mean nothing to the next mount may change meanwhile.
void CopyPage(std::byte* to, const std::byte* from) {
  for (size_t at = 0; at < kPageSize; at += sizeof(uint64_t)) {
    auto* const word = reinterpret_cast<uint64_t*>(const_cast<std::byte*>(from + at));
    const uint64_t value = std::atomic_ref<uint64_t>(*word).load(std::memory_order_relaxed);
    std::memcpy(to + at, &value, sizeof(value));
  }
}

}  // namespace

// All zeros; what is not touched takes no memory.
Snapshots::Words Snapshots::NewWords(uint64_t count) {
  Words words(static_cast<Word*>(std::calloc(count, sizeof(Word))));
  if (words == nullptr) throw std::bad_alloc();
  return words;
}

uint64_t Snapshots::Begin(const Mapping& mapping, const Bitmap& in_use, Take take) {
  base_ = mapping.base();
  if (words_.load(std::memory_order_relaxed) == 0) {
    const uint64_t words = mapping.pages() / 64 + 1;
    pending_ = NewWords(words);
    changed_ = NewWords(words);
    before_ = NewWords(words);
    words_.store(words, std::memory_order_release);
    take = Take::kAll;
  }
  end_ = std::min(words_.load(std::memory_order_relaxed), in_use.size() / 64 + 1);
  uint64_t pages = 0;
  for (uint64_t w = 0; w < end_; ++w) {
    // (All changes wait for this loop, so it skips words that are 0; most are.)
    uint64_t since = before_[w].load(std::memory_order_relaxed);
    if (changed_[w].load(std::memory_order_relaxed) != 0) {
      since |= changed_[w].exchange(0, std::memory_order_relaxed);
      before_[w].store(since, std::memory_order_relaxed);
    }
    const uint64_t wanted = take == Take::kAll ? ~uint64_t{0} : since;
    const uint64_t pending = in_use.Word(w * 64) & wanted;
    pending_[w].store(pending, std::memory_order_relaxed);
    pages += static_cast<uint64_t>(std::popcount(pending));
  }
  {
    MutexLock lock(&mu_);
    counts_ = {};
  }
  active_.store(true, std::memory_order_release);
  return pages;
}

std::optional<uint64_t> Snapshots::Changed() const {
  const uint64_t words = words_.load(std::memory_order_acquire);
  if (words == 0) return std::nullopt;
  uint64_t pages = 0;
  for (uint64_t w = 0; w < words; ++w) {
    pages += static_cast<uint64_t>(std::popcount(changed_[w].load(std::memory_order_relaxed) |
                                                 before_[w].load(std::memory_order_relaxed)));
  }
  return pages;
}

void Snapshots::BeforeChange(PageRun run) {
  const uint64_t words = words_.load(std::memory_order_acquire);
  const uint64_t last = (run.first.value() + run.count - 1) / 64;
  for (uint64_t w = run.first.value() / 64; run.count != 0 && w <= last && w < words; ++w) {
    const uint64_t mask = MaskOf(run, w);
    if (active_.load(std::memory_order_acquire) &&
        (pending_[w].load(std::memory_order_acquire) & mask) != 0) {
      WaitForRoom();
      CopyAside(w, mask);
    }
    if ((changed_[w].load(std::memory_order_relaxed) & mask) != mask) {
      changed_[w].fetch_or(mask, std::memory_order_relaxed);
    }
  }
}

// To be called before the stream takes any lock.
void Snapshots::WaitForRoom() {
  MutexLock lock(&mu_);
  if (waiting_ < most_aside_) return;
  ++counts_.waits;
  while (waiting_ >= most_aside_ && active_.load(std::memory_order_relaxed)) room_.Wait(&mu_);
}

void Snapshots::CopyAside(uint64_t word, uint64_t mask) {
  MutexLock stripe(&StripeOf(word));
  const uint64_t bits = pending_[word].load(std::memory_order_relaxed) & mask;
  if (bits == 0) return;
  std::vector<Aside> copies;
  for (uint64_t left = bits; left != 0; left &= left - 1) {
    const Pfn pfn(word * 64 + static_cast<uint64_t>(std::countr_zero(left)));
    copies.push_back({pfn, std::make_unique_for_overwrite<std::byte[]>(kPageSize)});
    CopyPage(copies.back().bytes.get(), base_ + pfn.offset());
  }
  {
    MutexLock lock(&mu_);
    waiting_ += copies.size();
    counts_.aside += copies.size();
    for (Aside& copy : copies) aside_.push_back(std::move(copy));
  }
  pending_[word].fetch_and(~bits, std::memory_order_release);
}

absl::Status Snapshots::StreamWord(uint64_t word, const Sink& sink) {
  // Pages are copied under the lock, and delivered without it.  So a thread that wants to
  // change them does not wait for a disk.
  thread_local std::vector<std::byte> copy(64 * kPageSize);
  uint64_t bits;
  {
    MutexLock stripe(&StripeOf(word));
    bits = pending_[word].load(std::memory_order_relaxed);
    for (uint64_t left = bits; left != 0; left &= left - 1) {
      const auto at = static_cast<uint64_t>(std::countr_zero(left));
      CopyPage(copy.data() + at * kPageSize, base_ + Pfn(word * 64 + at).offset());
    }
    pending_[word].store(0, std::memory_order_release);
  }
  for (uint64_t left = bits; left != 0;) {
    const auto from = static_cast<uint64_t>(std::countr_zero(left));
    const auto count = static_cast<uint64_t>(std::countr_one(left >> from));
    const absl::Status s =
        sink(Pfn(word * 64 + from), {copy.data() + from * kPageSize, count * kPageSize});
    if (!s.ok()) return s;
    left &= count == 64 ? 0 : ~(((uint64_t{1} << count) - 1) << from);
    MutexLock lock(&mu_);
    counts_.pages += count;
  }
  return absl::OkStatus();
}

absl::Status Snapshots::StreamAside(const Sink& sink) {
  std::vector<Aside> pages;
  {
    MutexLock lock(&mu_);
    pages.swap(aside_);
  }
  for (Aside& page : pages) {
    if (absl::Status s = sink(page.pfn, {page.bytes.get(), kPageSize}); !s.ok()) return s;
    page.bytes.reset();
    MutexLock lock(&mu_);
    ++counts_.pages;
    --waiting_;
    room_.NotifyAll();
  }
  return absl::OkStatus();
}

absl::Status Snapshots::Stream(const Sink& sink) {
  absl::Status status;
  for (uint64_t w = 0; w < end_ && status.ok(); ++w) {
    if (pending_[w].load(std::memory_order_acquire) != 0) status = StreamWord(w, sink);
    // Keeps the number of pages aside small.
    if (status.ok() && w % kStripes == 0) status = StreamAside(sink);
  }
  // No page is pending any more, so no more come aside.
  if (status.ok()) status = StreamAside(sink);
  End();
  return status;
}

void Snapshots::Cancel() {
  if (active_.load(std::memory_order_relaxed)) End();
}

void Snapshots::Settle() {
  // A page that was not in use is not in the snapshot.  It changes before it is in use again, so it
  // will be noted then.  (Bits that were never stored to take no memory.)
  const uint64_t words = words_.load(std::memory_order_relaxed);
  for (uint64_t w = 0; w < words; ++w) {
    if (before_[w].load(std::memory_order_relaxed) != 0) {
      before_[w].store(0, std::memory_order_relaxed);
    }
  }
}

void Snapshots::End() {
  active_.store(false, std::memory_order_release);
  for (uint64_t w = 0; w < end_; ++w) {
    MutexLock stripe(&StripeOf(w));
    pending_[w].store(0, std::memory_order_release);
  }
  MutexLock lock(&mu_);
  aside_.clear();
  waiting_ = 0;
  room_.NotifyAll();
}

Snapshots::Counts Snapshots::counts() const {
  MutexLock lock(&mu_);
  return counts_;
}

}  // namespace pkram
