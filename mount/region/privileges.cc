#include "mount/region/privileges.h"

#include <cap-ng.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <fstream>
#include <tuple>

namespace pkramfs {

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

bool MayMount() {
  if (capng_get_caps_process() != 0) return false;
  // Without /proc the daemon would not know which mount it has made.
  return geteuid() == 0 && capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN) != 0 &&
         access("/proc/self/mountinfo", R_OK) == 0;
}

void SettleDown(bool writes_for_reclaim, bool has_heirs) {
  // These two need capabilities that are given up next.  The score says "killed last", but not
  // "never": with -1000, a cgroup that has no memory left would wait for ever.
  std::ofstream("/proc/self/oom_score_adj") << -999;
  if (writes_for_reclaim) prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  if (capng_get_caps_process() != 0) return;
  const bool unmounts = capng_have_capability(CAPNG_PERMITTED, CAP_SYS_ADMIN) != 0;
  const bool locks = capng_have_capability(CAPNG_PERMITTED, CAP_IPC_LOCK) != 0;
  const auto kept = static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED |
                                              (has_heirs ? CAPNG_BOUNDING_SET : 0));
  capng_clear(CAPNG_SELECT_ALL);
  if (unmounts) {
    capng_update(CAPNG_ADD, kept, CAP_SYS_ADMIN);
    // The mount point may be in a directory of somebody else.
    capng_update(CAPNG_ADD, kept, CAP_DAC_READ_SEARCH);
  }
  if (locks) capng_update(CAPNG_ADD, kept, CAP_IPC_LOCK);
  // A call of its own, because not every process with capabilities may change those of its
  // programs.
  std::ignore = capng_apply(CAPNG_SELECT_BOUNDS);
  std::ignore = capng_apply(CAPNG_SELECT_CAPS);
  // An ordinary user's daemon ends its mount with fusermount3, which is set-user-id.
  if (unmounts) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

}  // namespace pkramfs
