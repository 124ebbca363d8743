// The clock by which the kernel stamps files.  With any other clock, this filesystem's files would
// be in the wrong order beside files of other filesystems, and beside times that the kernel sets
// itself (with writeback).  CLOCK_REALTIME is another clock.  CLOCK_REALTIME_COARSE is the same one
// only where the kernel has no multigrain times.
#ifndef MOUNT_REGION_FILE_CLOCK_H_
#define MOUNT_REGION_FILE_CLOCK_H_

#include "fs/types.h"

namespace pkramfs {

// The ctime of a file that is changed now.  It is never before the result of an earlier call,
// unless the clock was set back.  Thread-safe.
Timestamp FileTime();

}  // namespace pkramfs

#endif  // MOUNT_REGION_FILE_CLOCK_H_
