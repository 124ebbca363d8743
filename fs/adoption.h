// Proving a tree that another program has built in lent pages, before it becomes a part of a
// filesystem.
//
// Such a tree is a node of its own: a table of inodes whose first is the root, and everything that
// these inodes reach.  The walk and the checks that prove a region when it is opened prove the
// tree, too.  It must consist of lent pages only.  The program that built it may be changing it
// meanwhile. So each of its pages, except files' contents, is read once, into memory of this
// process.  What was proven there is written back, with the numbers that the inodes will have.
#ifndef FS_ADOPTION_H_
#define FS_ADOPTION_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/layout.h"
#include "fs/types.h"
#include "pkram/region.h"

namespace pkramfs {

struct ProvenTree {
  pkram::Pfn first_link, last_link;            // of its table, chained but for the end
  std::vector<pkram::PageRun> metadata, data;  // that it reaches
};

// Proves the tree, whose table has `links` links and `inodes` inodes.  Inode i of it gets the
// number `base` + i, and the generation that `generation` returns.  Its root has no links from then
// on, and notes `staged`.  Nothing changes except proven pages of the tree. DATA_LOSS says which
// page is not sound, and why.  RESOURCE_EXHAUSTED: no space for a lent page. REQUIRES: no lent page
// is taken back meanwhile (Loans::BeginAdoption).
absl::StatusOr<ProvenTree> ProveTree(pkram::Region* region, pkram::Pfn node, uint64_t links,
                                     uint64_t inodes, Ino base, const StagedAt& staged,
                                     const std::function<uint32_t(Ino)>& generation);

}  // namespace pkramfs

#endif  // FS_ADOPTION_H_
