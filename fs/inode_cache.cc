#include "fs/inode_cache.h"

#include <malloc.h>

#include <algorithm>

#include "fs/directory.h"

namespace pkramfs {

InodeRef::~InodeRef() {
  if (inode_ != nullptr) cache_->Release(inode_);
}

InodeCache::InodeCache(pkram::Region* region, InodeTable* table, Reclaimer reclaim)
    : region_(region), table_(table), reclaim_(std::move(reclaim)) {}

InodeCache::~InodeCache() = default;

InodeRef InodeCache::Find(Ino ino, bool even_orphan) {
  Shard& shard = ShardOf(ino);
  pkram::MutexLock lock(&shard.mu);
  std::unique_ptr<Inode>& inode = shard.inodes[ino];
  if (inode == nullptr) {
    const pkram::Pfn page = table_->PageOf(ino);
    if (page) inode = std::make_unique<Inode>(region_, ino, page);
    // Without links and lookups it is on its way to the reclaimer.
    if (inode == nullptr || (inode->nlink() == 0 && inode->lookups() == 0 && !even_orphan)) {
      shard.inodes.erase(ino);
      return {};
    }
    const uint64_t now = in_use_.fetch_add(1, std::memory_order_relaxed) + 1;
    uint64_t most = most_.load(std::memory_order_relaxed);
    while (now > most && !most_.compare_exchange_weak(most, now, std::memory_order_relaxed)) {
    }
  }
  ++inode->references_;
  return InodeRef(this, inode.get());
}

void InodeCache::AddLookup(const InodeRef& inode) {
  pkram::MutexLock lock(&ShardOf(inode->ino()).mu);
  inode->SetLookups(inode->lookups() + 1);
}

void InodeCache::Forget(Ino ino, uint64_t count) {
  const InodeRef inode = Get(ino);
  if (!inode) return;
  pkram::MutexLock lock(&ShardOf(ino).mu);
  inode->SetLookups(inode->lookups() - std::min(inode->lookups(), count));
}

void InodeCache::Release(Inode* inode) {
  {
    Shard& shard = ShardOf(inode->ino());
    pkram::MutexLock lock(&shard.mu);
    if (--inode->references_ > 0 || inode->lookups() > 0) return;
    // Under the lock: nobody gets the inode between its last use and its end.
    if (inode->nlink() == 0) reclaim_(*inode);
    shard.inodes.erase(inode->ino());
  }
  // After a flood of inodes, memory is given back once half of them are gone; then it is worth the
  // time.
  constexpr uint64_t kFlood = 1 << 16;
  const uint64_t left = in_use_.fetch_sub(1, std::memory_order_relaxed) - 1;
  uint64_t most = most_.load(std::memory_order_relaxed);
  if (most > kFlood && left < most / 2 &&
      most_.compare_exchange_strong(most, left, std::memory_order_relaxed)) {
    GiveBackMemory();
  }
}

// The allocator keeps what was freed, unless it is asked.
void InodeCache::GiveBackMemory() {
  for (Shard& shard : shards_) {
    pkram::MutexLock lock(&shard.mu);
    shard.inodes.rehash(0);
  }
  malloc_trim(0);
}

}  // namespace pkramfs
