// Where a process gets pages of a region from that somebody else uses (loans.h).
#ifndef PKRAM_LENDER_H_
#define PKRAM_LENDER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/page_locks.h"
#include "pkram/types.h"

namespace pkram {

// The region's user, asked through its mount or as an object of this process.  Thread-safe.
class Lender {
 public:
  virtual ~Lender() = default;
  // 1 to `want` free pages, to be locked.  RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<PageRun> Lend(uint64_t want) = 0;
  // Whether pages that were locked are this process's, until it unlocks them.
  virtual absl::StatusOr<bool> Keep(PageRun run) = 0;
};

class Space;

// Whoever uses a region lends by itself.
class OwnLender final : public Lender {
 public:
  explicit OwnLender(Space* space) : space_(space) {}
  absl::StatusOr<PageRun> Lend(uint64_t want) override;
  absl::StatusOr<bool> Keep(PageRun run) override;

 private:
  Space* const space_;
};

// Pages that are this process's: locked through `fd`, its own opening of the region's file.
absl::StatusOr<PageRun> Borrow(Lender* lender, int fd, uint64_t want);

}  // namespace pkram

#endif  // PKRAM_LENDER_H_
