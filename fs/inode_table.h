// The inode table: a node's list of objects.  Entry i is the object page of inode
// i; a hole keeps the slot's next generation, so that a stale file handle never
// reaches another file.  Which slots are free is derived when it is adopted.
//
// Each thread keeps some free slots at hand, and an inode's page is found without a lock.
//
// Thread-safe.
#ifndef FS_INODE_TABLE_H_
#define FS_INODE_TABLE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "fs/result.h"
#include "fs/types.h"
#include "pkram/link_map.h"
#include "pkram/mutex.h"
#include "pkram/region.h"

namespace pkramfs {

class InodeTable {
 public:
  // Adopts the table of `node`, which may have `limit` inodes.
  InodeTable(pkram::Region* region, pkram::Pfn node, uint64_t limit);

  // The inode's object page, or Pfn() if there is none.
  pkram::Pfn PageOf(Ino ino) const;

  // A slot for a new inode, with the word that makes it exist.  ENOSPC.
  struct Reservation {
    Ino ino;
    uint32_t generation;
    const uint64_t* word;
  };
  Result<Reservation> Reserve();
  // Gives a reserved slot back.
  void Cancel(const Reservation& reservation);

  // Clears the entry of an inode that is gone.  The slot is free again.
  void Clear(Ino ino, uint32_t generation);

  // --- A tree that was built elsewhere, with a table of its own (adoption.h) ---
  // Reserves so many whole links of this table, one behind the other, without any inode.  They stay
  // empty until they are replaced or returned.  `inodes` of their slots will be in use.  ENOSPC.
  struct Block {
    uint64_t first;  // the number of the first link
    uint64_t links;
    uint64_t inodes;
    Ino base() const { return first * pkram::format::kLinkEntries; }
  };
  Result<Block> ReserveBlock(uint64_t links, uint64_t inodes);
  void ReturnBlock(const Block& block);
  // The generation of a free slot's next inode.
  uint32_t NextGeneration(Ino slot) const;
  // Replaces these links by others, in one store.  The others are as many, chained, and have the
  // same indexes.
  void ReplaceBlock(const Block& block, pkram::Pfn first, pkram::Pfn last);

  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  // How many there may be.
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  void set_limit(uint64_t limit) { limit_.store(limit, std::memory_order_relaxed); }

  // All inodes that exist, in order; while nobody changes the table.
  std::vector<Ino> All() const;

 private:
  // Where the table's links stand, by their number.
  struct Index {
    explicit Index(uint64_t n) : size(n), links(new std::atomic<const pkram::format::Link*>[n]()) {}
    const uint64_t size;
    const std::unique_ptr<std::atomic<const pkram::format::Link*>[]> links;
  };
  // Free slots that some threads keep.
  struct alignas(64) Stock {
    pkram::Mutex mu;
    std::vector<Ino> slots ABSL_GUARDED_BY(mu);
  };

  Stock& Mine();
  // The word of a slot whose link exists, or null.
  const uint64_t* WordOf(Ino ino) const;
  void NoteLink(uint64_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<void> Grow(uint64_t links) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<Ino> TakeSlot();
  Result<void> TakeFromTable(std::vector<Ino>* slots);
  void Keep(Ino slot);
  bool AwaitFreed();
  void NoteFreed(uint64_t inodes);

  pkram::Region* const region_;
  const pkram::format::Node* const node_;
  std::atomic<uint64_t> limit_;
  std::atomic<uint64_t> used_{0};
  pkram::Mutex freed_mu_;
  pkram::CondVar freed_;
  std::atomic<int> awaiting_{0};  // threads in AwaitFreed
  std::array<Stock, 16> stocks_;
  std::atomic<const Index*> index_{nullptr};
  mutable pkram::Mutex mu_;
  pkram::LinkMap entries_ ABSL_GUARDED_BY(mu_);
  uint64_t end_ ABSL_GUARDED_BY(mu_) = 0;  // slots from here on were never used
  std::vector<Ino> free_ ABSL_GUARDED_BY(mu_);
  // Arrays that became too small are kept, because a reader may be looking at one of them.
  std::vector<std::unique_ptr<const Index>> indexes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pkramfs

#endif  // FS_INODE_TABLE_H_
