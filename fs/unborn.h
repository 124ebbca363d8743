// An inode that is being made: a reserved slot of the table, and an object page that is filled but
// that nothing reaches.  If no change makes it reachable, both are given back.
#ifndef FS_UNBORN_H_
#define FS_UNBORN_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/inode.h"
#include "fs/inode_table.h"
#include "fs/layout.h"
#include "fs/result.h"
#include "fs/types.h"
#include "pkram/region.h"

namespace pkramfs {

struct Birth {
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t rdev = 0;
  Ino parent = 0;           // of a directory
  std::string_view target;  // of a symlink
  std::string xattrs{};     // as Xattrs::Append makes them
  bool linked = true;       // but for O_TMPFILE
  Timestamp now;
};

// Fills the object page of a new inode with one link (a directory: two) to it, or none.
void FillInode(pkram::format::Object* page, const Birth& birth, uint32_t generation);

class Unborn {
 public:
  // ENOSPC.
  static Result<Unborn> Conceive(pkram::Region* region, InodeTable* table, const Birth& birth);
  Unborn(Unborn&& other) noexcept
      : region_(other.region_),
        table_(std::exchange(other.table_, nullptr)),
        slot_(other.slot_),
        page_(other.page_),
        runs_(std::move(other.runs_)) {}
  ~Unborn();

  Ino ino() const { return slot_.ino; }

  // Does what InodeCache::AddLookup does, while nothing reaches the inode.
  void AddLookup();

  // Adds the store that makes the inode exist to `change`, which will be committed.
  void Deliver(Change* change);

 private:
  Unborn(pkram::Region* region, InodeTable* table, InodeTable::Reservation slot)
      : region_(region), table_(table), slot_(slot) {}

  pkram::Region* region_;
  InodeTable* table_;  // null when there is nothing to give back
  InodeTable::Reservation slot_;
  pkram::Pfn page_;
  std::vector<pkram::PageRun> runs_;  // to give back
};

}  // namespace pkramfs

#endif  // FS_UNBORN_H_
