// Who is told before pages change.
#ifndef PKRAM_WATCH_H_
#define PKRAM_WATCH_H_

#include <memory>

#include "pkram/backing.h"
#include "pkram/types.h"

namespace pkram {

// Thread-safe.
class Watch {
 public:
  virtual ~Watch() = default;
  // Says that the caller is about to store to these pages, to write them, or to give them back to
  // the system.  The caller may hold any lock.  This may wait.
  virtual void BeforeChange(PageRun run) = 0;
};

// A backing that passes all to the one below, and tells `watch` of pages that change.  (For stores
// through a mapping see Mapping::set_watch.)  `watch` outlives it.
std::unique_ptr<Backing> Watched(std::unique_ptr<Backing> below, Watch* watch);

}  // namespace pkram

#endif  // PKRAM_WATCH_H_
