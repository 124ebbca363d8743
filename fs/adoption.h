// Proving a tree that another program has built in lent pages, before it becomes a part of a
// filesystem.
//
// Such a tree is a node of its own, as a region has them: with a table of inodes whose first is the
// root, and everything that its inodes reach.  It is proven by the walk and the checks that a
// region is proven by when it is opened, and of nothing but lent pages.  Whoever has built it may
// be changing it meanwhile.  So each page of it but the files' data is read once, and what was
// proven is written back, with the numbers that its inodes will have.
#ifndef FS_ADOPTION_H_
#define FS_ADOPTION_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/types.h"
#include "pkram/region.h"

namespace pkramfs {

struct ProvenTree {
  pkram::Pfn first_link, last_link;            // of its table, chained but for the end
  std::vector<pkram::PageRun> metadata, data;  // that it reaches
};

// `links` and `inodes`: how many its table has.  Inode i of it becomes `base` + i, with the
// generation that `generation` says; its root has no links from then on.  Nothing outside the
// lent pages is changed, and of them only those that are proven.
// DATA_LOSS: which page is not sound, and why.  RESOURCE_EXHAUSTED: no space for a lent page.
// REQUIRES: no lent page is taken back meanwhile (Loans::BeginAdoption).
absl::StatusOr<ProvenTree> ProveTree(pkram::Region* region, pkram::Pfn node, uint64_t links,
                                     uint64_t inodes, Ino base,
                                     const std::function<uint32_t(Ino)>& generation);

}  // namespace pkramfs

#endif  // FS_ADOPTION_H_
