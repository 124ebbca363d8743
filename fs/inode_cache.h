// The inodes in use, one object each, and the kernel's lookup counts.
//
// An inode stays while somebody holds an InodeRef, or the kernel a lookup.  When the last of these
// goes and the inode has no links, the cache hands it to the reclaimer.
#ifndef FS_INODE_CACHE_H_
#define FS_INODE_CACHE_H_

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "fs/inode.h"
#include "fs/inode_table.h"
#include "pkram/mutex.h"

namespace pkramfs {

class InodeCache;

// Keeps an inode in use.  Movable; empty when there was no such inode.
class InodeRef {
 public:
  InodeRef() = default;
  InodeRef(InodeRef&& other) noexcept
      : cache_(other.cache_), inode_(std::exchange(other.inode_, nullptr)) {}
  InodeRef& operator=(InodeRef&& other) noexcept {
    std::swap(cache_, other.cache_);
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~InodeRef();
  explicit operator bool() const { return inode_ != nullptr; }
  Inode* operator->() const { return inode_; }
  Inode* get() const { return inode_; }

 private:
  friend class InodeCache;
  InodeRef(InodeCache* cache, Inode* inode) : cache_(cache), inode_(inode) {}
  InodeCache* cache_ = nullptr;
  Inode* inode_ = nullptr;
};

class InodeCache {
 public:
  using Reclaimer = std::function<void(const Inode&)>;
  // `reclaim` is called for an inode that nobody can reach any more.  It must not call the cache.
  InodeCache(pkram::Region* region, InodeTable* table, Reclaimer reclaim);
  ~InodeCache();

  // Empty when there is no such inode, or it is on its way to the reclaimer.
  InodeRef Get(Ino ino) { return Find(ino, false); }
  // The same for an inode without links and lookups that nobody else has in use.  It stays until
  // the reference is gone.
  InodeRef GetOrphan(Ino ino) { return Find(ino, true); }

  // Raises the kernel's lookup count.  To be called before the reply that tells the kernel.
  void AddLookup(const InodeRef& inode);
  void Forget(Ino ino, uint64_t count);

 private:
  friend class InodeRef;
  struct Shard {
    pkram::Mutex mu;
    absl::flat_hash_map<Ino, std::unique_ptr<Inode>> inodes ABSL_GUARDED_BY(mu);
  };
  Shard& ShardOf(Ino ino) { return shards_[ino % shards_.size()]; }
  InodeRef Find(Ino ino, bool even_orphan);
  void Release(Inode* inode);
  void GiveBackMemory();

  pkram::Region* const region_;
  InodeTable* const table_;
  const Reclaimer reclaim_;
  std::array<Shard, 64> shards_;
  // How many inodes are in use, and the most that were since memory was given back.
  std::atomic<uint64_t> in_use_{0}, most_{0};
};

}  // namespace pkramfs

#endif  // FS_INODE_CACHE_H_
