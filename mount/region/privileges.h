// What a daemon does about itself once it serves.
#ifndef MOUNT_REGION_PRIVILEGES_H_
#define MOUNT_REGION_PRIVILEGES_H_

namespace pkramfs {

// Whether this process may mount by itself.
bool MayMount();

// To be called before the process has other threads; holds for the rest of its life:
//   * It gives up every capability but three.  CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH let it unmount
//     when it is told to end, wherever the mount is.  CAP_IPC_LOCK is kept because mlock may be
//     asked for later.  Programs that it runs get none, or with `has_heirs` (the program itself,
//     started again) these three.  (Without root there is none to lose.)
//   * With `writes_for_reclaim`, it does not wait for its own writing when it needs memory
//     (PR_SET_IO_FLUSHER).  Then the kernel swaps nothing out on its behalf.
//   * The kernel kills it last when memory is short.  Its memory is the region's, so killing it
//   would
//     give back nothing.
// What this process may not do stays as it was.
void SettleDown(bool writes_for_reclaim, bool has_heirs);

}  // namespace pkramfs

#endif  // MOUNT_REGION_PRIVILEGES_H_
