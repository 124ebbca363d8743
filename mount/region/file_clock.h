// The clock by which the kernel stamps files.  It is neither CLOCK_REALTIME nor
// CLOCK_REALTIME_COARSE: times of this filesystem's files would be in the wrong order beside those
// of others, and beside those that the kernel sets itself (with writeback).
#ifndef MOUNT_REGION_FILE_CLOCK_H_
#define MOUNT_REGION_FILE_CLOCK_H_

#include "fs/types.h"

namespace pkramfs {

// What a file that is changed now gets as its ctime.  Never before what an earlier call returned,
// unless the clock was set back.  Thread-safe.
Timestamp FileTime();

}  // namespace pkramfs

#endif  // MOUNT_REGION_FILE_CLOCK_H_
