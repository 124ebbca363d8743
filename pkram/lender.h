// Where a process gets free pages from, of a region that another process serves (loans.h).
#ifndef PKRAM_LENDER_H_
#define PKRAM_LENDER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/page_locks.h"
#include "pkram/types.h"

namespace pkram {

// Asks the region's server for pages: through its mount, or as an object of this process.
// Thread-safe.
class Lender {
 public:
  virtual ~Lender() = default;
  // Returns 1 to `want` free pages, which the caller must lock next.  RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<PageRun> Lend(uint64_t want) = 0;
  // Whether pages that the caller has locked are its own from now on, until it unlocks them.
  virtual absl::StatusOr<bool> Keep(PageRun run) = 0;
};

class Space;

// For a process that has the region open itself.
class OwnLender final : public Lender {
 public:
  explicit OwnLender(Space* space) : space_(space) {}
  absl::StatusOr<PageRun> Lend(uint64_t want) override;
  absl::StatusOr<bool> Keep(PageRun run) override;

 private:
  Space* const space_;
};

// Gets 1 to `want` pages, and locks them through `fd`, the caller's own descriptor of the region's
// file.  They belong to the caller until it unlocks them.
absl::StatusOr<PageRun> Borrow(Lender* lender, int fd, uint64_t want);

}  // namespace pkram

#endif  // PKRAM_LENDER_H_
