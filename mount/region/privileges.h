// What a daemon does about itself once it serves.
#ifndef MOUNT_REGION_PRIVILEGES_H_
#define MOUNT_REGION_PRIVILEGES_H_

namespace pkramfs {

// Whether this process may mount by itself.
bool MayMount();

// For the rest of the process's life, and before it has other threads:
//   * every capability goes but CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, to unmount when it is
//     told to end, wherever that is, and CAP_IPC_LOCK, as mlock may be asked for later; programs
//     that it runs get no more, and only with `has_heirs` these: the program itself, started again.
//     (Without root there is none to lose.)
//   * with `writes_for_reclaim`, it does not wait for its own writing when it needs memory
//     (PR_SET_IO_FLUSHER); it cannot have anything swapped out for it then,
//   * it is the last that the kernel kills when memory is short: what it holds is in the region,
//     and killing it would give back nothing of that.
// Best effort: what this process may not do stays as it was.
void SettleDown(bool writes_for_reclaim, bool has_heirs);

}  // namespace pkramfs

#endif  // MOUNT_REGION_PRIVILEGES_H_
