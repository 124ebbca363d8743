// Pages of a region that other processes work on.
//
// Who builds in a region's free pages, or reads a file's pages where they are, says so by a lock on
// these bytes of the region's file (fcntl, F_OFD_SETLK).  Such a lock belongs to an open file: it
// ends with the process that has it, it outlives the daemon that serves the region, and it is
// stored nowhere.  So it is all that there is to know about such work.
#ifndef PKRAM_PAGE_LOCKS_H_
#define PKRAM_PAGE_LOCKS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "pkram/types.h"

namespace pkram {

// kBuilding excludes everybody else, kReading those who build.
enum class PageUse { kBuilding, kReading };

struct LockedPages {
  PageRun run;
  PageUse use;
};

// The locks that others have on these pages, by another opening of the file than `fd`: in order.
// Of two who read the same pages, one is seen.
std::vector<LockedPages> FindLockedPages(int fd, PageRun within);

// Takes a lock; of pages that it has already, another kind.  UNAVAILABLE when somebody else has one
// that excludes it.
absl::Status LockPages(int fd, PageRun run, PageUse use);
void UnlockPages(int fd, PageRun run);

}  // namespace pkram

#endif  // PKRAM_PAGE_LOCKS_H_
