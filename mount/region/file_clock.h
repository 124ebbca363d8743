// The clock by which the kernel stamps files.  With any other, times of this filesystem's files
// would be in the wrong order beside those of other filesystems, and beside those that the kernel
// sets itself (with writeback).  CLOCK_REALTIME is another one.  CLOCK_REALTIME_COARSE is this one,
// but not where the kernel has multigrain times.
#ifndef MOUNT_REGION_FILE_CLOCK_H_
#define MOUNT_REGION_FILE_CLOCK_H_

#include "fs/types.h"

namespace pkramfs {

// What a file that is changed now gets as its ctime.  Never before what an earlier call returned,
// unless the clock was set back.  Thread-safe.
Timestamp FileTime();

}  // namespace pkramfs

#endif  // MOUNT_REGION_FILE_CLOCK_H_
