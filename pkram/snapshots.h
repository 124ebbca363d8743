// The pages of a region as they were at one moment, while its users go on.
//
//   Snapshots snapshots;                     // Region::OpenOptions::watch
//   ... nothing changes the region ...
//   snapshots.Begin(mapping, in_use, kAll);  // the moment
//   ... everything changes it again ...
//   snapshots.Stream(sink);                  // each page that was in use, as it was then
//   snapshots.Settle();                      // the next one may leave out what has not changed
//
// A thread that is about to change a page which has not been streamed copies it aside first.  So a
// writer waits for one copy of each page that it touches.  When as many pages are aside as there
// may be, it waits for the stream.
//
// Thread-safe; one snapshot at a time.
#ifndef PKRAM_SNAPSHOTS_H_
#define PKRAM_SNAPSHOTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "pkram/bitmap.h"
#include "pkram/mapping.h"
#include "pkram/mutex.h"
#include "pkram/types.h"
#include "pkram/watch.h"

namespace pkram {

class Snapshots final : public Watch {
 public:
  // Is called with pages that follow one another: each page of the moment once, in no order.
  using Sink = std::function<absl::Status(Pfn first, absl::Span<const std::byte> bytes)>;
  static constexpr uint64_t kMostAside = 16384;  // pages: 64 MiB
  // Sets how many pages may be aside.  To be called before the first moment.
  void set_most_aside(uint64_t pages) { most_aside_ = pages; }

  // Makes now the moment.  Of the pages `in_use`, all are to be streamed, or those that have
  // changed since the last moment that was settled.  Returns how many pages that is.  Before the
  // first moment nobody notes what changes, and none of this takes memory. REQUIRES: nobody changes
  // the region meanwhile; no other snapshot is under way; `mapping` is the same each time.
  enum class Take { kAll, kChanged };
  uint64_t Begin(const Mapping& mapping, const Bitmap& in_use, Take take);
  // Delivers the pages, and ends the snapshot.  An error of the sink ends it, too, and is returned.
  absl::Status Stream(const Sink& sink);
  // Ends a snapshot that is not to be streamed, if there is one.
  void Cancel();
  // Says that the pages that were streamed are safe: the next snapshot may leave out what has not
  // changed since.
  void Settle();

  // How many pages have changed since the last moment that was settled, also pages that are free by
  // now.  Nothing before the first such moment.
  std::optional<uint64_t> Changed() const;

  void BeforeChange(PageRun run) override;

  // Counts of the last snapshot.
  struct Counts {
    uint64_t pages = 0;  // streamed
    uint64_t aside = 0;  // of them, copied aside by who was about to change them
    uint64_t waits = 0;  // times that somebody had to wait for the stream
  };
  Counts counts() const;

 private:
  // 64 pages.
  using Word = std::atomic<uint64_t>;
  struct Free {
    void operator()(Word* words) const { std::free(words); }
  };
  using Words = std::unique_ptr<Word[], Free>;
  struct Aside {
    Pfn pfn;
    std::unique_ptr<std::byte[]> bytes;
  };
  static constexpr size_t kStripes = 64;

  static Words NewWords(uint64_t count);
  Mutex& StripeOf(uint64_t word) { return stripes_[word % kStripes]; }
  void CopyAside(uint64_t word, uint64_t mask);
  absl::Status StreamWord(uint64_t word, const Sink& sink);
  absl::Status StreamAside(const Sink& sink);
  void WaitForRoom();
  void End();

  std::atomic<uint64_t> words_{0};  // as many as the mapping can have; 0 before the first moment
  uint64_t end_ = 0;                // words behind those of the moment
  const std::byte* base_ = nullptr;
  std::atomic<bool> active_{false};
  uint64_t most_aside_ = kMostAside;
  Words pending_;  // of the moment, and not streamed or copied aside yet
  Words changed_;  // since the moment
  Words before_;   // changed between the last that was settled and the moment
  // Whoever copies pages of a word, and clears their bits after that.
  std::array<Mutex, kStripes> stripes_;

  mutable Mutex mu_;
  CondVar room_;
  std::vector<Aside> aside_ ABSL_GUARDED_BY(mu_);
  uint64_t waiting_ ABSL_GUARDED_BY(mu_) = 0;  // pages in aside_ or in the sink
  Counts counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pkram

#endif  // PKRAM_SNAPSHOTS_H_
