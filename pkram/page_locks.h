// Locks on pages of a region that other processes work on.
//
// A process that builds in a region's free pages, or reads a file's pages in place, locks these
// bytes of the region's file (fcntl, F_OFD_SETLK).  Such a lock belongs to an open file.  It ends
// with the process that has it, it outlives the daemon that serves the region, and it is stored
// nowhere.  It is the only lasting record of such work.
#ifndef PKRAM_PAGE_LOCKS_H_
#define PKRAM_PAGE_LOCKS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "pkram/types.h"

namespace pkram {

// kBuilding is an exclusive lock, kReading a shared one.
enum class PageUse { kBuilding, kReading };

struct LockedPages {
  PageRun run;
  PageUse use;
};

// The locks on these pages that were taken through other open files than `fd`, in order.  If two
// processes read the same pages, one of them is seen.
std::vector<LockedPages> FindLockedPages(int fd, PageRun within);

// Takes a lock.  If `fd` has a lock on these pages already, its kind changes.  UNAVAILABLE when
// another process has a lock that excludes it.
absl::Status LockPages(int fd, PageRun run, PageUse use);
void UnlockPages(int fd, PageRun run);

}  // namespace pkram

#endif  // PKRAM_PAGE_LOCKS_H_
