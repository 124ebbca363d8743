// A directory: where its entries stand in the region, and a volatile index of them.
//
// Entries never move, so a slot number is a stable position for readdir.  An
// entry's bytes are written under a free header, where nothing reaches them; the
// header word, one store of a transaction, makes it live.
//
// Not thread-safe: the inode's lock covers it.
#ifndef FS_DIRECTORY_H_
#define FS_DIRECTORY_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "fs/inode.h"
#include "fs/layout.h"
#include "fs/result.h"

namespace pkramfs {

class Directory {
 public:
  // Indexes what is there.  All arguments outlive it.
  Directory(pkram::Region* region, Inode* inode, pkram::LinkMap* pages);
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  struct Found {
    Ino ino;
    uint32_t type;  // DT_*
  };
  std::optional<Found> Find(std::string_view name) const;
  bool empty() const { return entries_ == 0; }

  // Adds an entry to `change`, with the directory's size.  ENOSPC.  No other step of a change can
  // fail, so callers do this one first.
  // REQUIRES: no entry has that name.
  Result<void> Insert(Change* change, std::string_view name, Ino ino, uint32_t type);
  // Makes an entry lead to another inode.  REQUIRES: it exists.
  void Replace(Change* change, std::string_view name, Ino ino, uint32_t type);
  // Takes an entry out.  REQUIRES: it exists, and the change will be committed.
  void Remove(Change* change, std::string_view name);

  // Calls fn(slot number, slot) for the entries from slot number `from` on, in order, until it
  // returns false.
  template <typename Fn>
  void ForEach(uint64_t from, Fn fn) const {
    for (uint64_t block = from / kBlockSlots; block <= end_block(); ++block) {
      const Slot* const slots = BlockAt(block);
      if (slots == nullptr) continue;
      for (uint64_t place = 0; place < SlotsIn(block);) {
        const uint64_t header = slots[place].header;
        if (header == 0) break;
        const uint64_t number = block * kBlockSlots + place;
        if (!IsLive(header)) {
          place += header;
          continue;
        }
        if (number >= from && !fn(number, slots[place])) return;
        place += SlotsFor(SlotNameLen(header));
      }
    }
  }

 private:
  // Hash and equality of an entry are those of its name, read from the region.
  struct Name {
    using is_transparent = void;
    const Directory* directory;
    static std::string_view Of(std::string_view name) { return name; }
    std::string_view Of(uint64_t slot) const { return SlotName(*directory->SlotAt(slot)); }
    template <typename T>
    size_t operator()(const T& key) const {
      return absl::Hash<std::string_view>()(Of(key));
    }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return Of(a) == Of(b);
    }
  };

  static constexpr size_t kSizes = 5;  // an entry takes at most so many slots

  // The last block that may exist.
  uint64_t end_block() const { return inode_->header().allocated_end; }
  const Slot* BlockAt(uint64_t block) const;
  const Slot* SlotAt(uint64_t slot) const {
    return BlockAt(slot / kBlockSlots) + slot % kBlockSlots;
  }
  void IndexBlock(uint64_t block);
  void AddFree(uint64_t slot, uint64_t length);
  uint64_t TakeFree(uint64_t slot);  // its length
  Result<uint64_t> FindRoom(Change* change, uint64_t slots);
  uint64_t HeaderOfFree(uint64_t slot, uint64_t length) const;

  pkram::Region* const region_;
  Inode* const inode_;
  pkram::LinkMap* const pages_;
  uint64_t entries_ = 0;
  absl::flat_hash_set<uint64_t, Name, Name> names_;  // slots of live entries
  absl::btree_map<uint64_t, uint64_t> free_;         // slot -> length of its free run
  absl::btree_set<uint64_t> by_length_[kSizes + 1];  // its slot, by min(length, kSizes)
  absl::btree_set<uint64_t> absent_;                 // blocks that have no page
};

}  // namespace pkramfs

#endif  // FS_DIRECTORY_H_
