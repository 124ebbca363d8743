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
  // These pages are about to be stored to, written, or given back to the system, by whoever calls,
  // who may hold any lock.  May wait.
  virtual void BeforeChange(PageRun run) = 0;
};

// The backing below, and `watch` hears of what changes in it.  (Stores through a mapping are the
// mapping's: see Mapping::set_watch.)  `watch` outlives it.
std::unique_ptr<Backing> Watched(std::unique_ptr<Backing> below, Watch* watch);

}  // namespace pkram

#endif  // PKRAM_WATCH_H_
