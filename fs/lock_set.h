// Exclusive locks of several inodes, taken in the order of their numbers, so that
// no two operations wait for each other.
#ifndef FS_LOCK_SET_H_
#define FS_LOCK_SET_H_

#include <algorithm>
#include <initializer_list>

#include "absl/container/inlined_vector.h"
#include "fs/inode.h"

namespace pkramfs {

// clang's checker cannot follow a lock that is chosen at run time.  So code that uses a set says
// what it holds by inode->mu.AssertHeld().
class LockSet {
 public:
  // Null pointers and repetitions are skipped.
  explicit LockSet(std::initializer_list<Inode*> inodes) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Inode* inode : inodes) {
      if (inode != nullptr) inodes_.push_back(inode);
    }
    std::sort(inodes_.begin(), inodes_.end(),
              [](const Inode* a, const Inode* b) { return a->ino() < b->ino(); });
    inodes_.erase(std::unique(inodes_.begin(), inodes_.end()), inodes_.end());
    for (Inode* inode : inodes_) inode->mu.Lock();
  }
  ~LockSet() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Inode* inode : inodes_) inode->mu.Unlock();
  }
  LockSet(const LockSet&) = delete;
  LockSet& operator=(const LockSet&) = delete;

 private:
  absl::InlinedVector<Inode*, 4> inodes_;
};

}  // namespace pkramfs

#endif  // FS_LOCK_SET_H_
