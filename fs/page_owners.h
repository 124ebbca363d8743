// Finds out which file a page of a region belongs to, for messages about damage.
#ifndef FS_PAGE_OWNERS_H_
#define FS_PAGE_OWNERS_H_

#include <map>
#include <set>
#include <string>

#include "fs/survivors.h"
#include "pkram/page_view.h"
#include "pkram/types.h"

namespace pkramfs {

// For each of these pages, the path of the file whose contents, names, attributes or lists it
// holds, from the root of the filesystem.  "inode N" if no name leads to that file.  One of the
// paths, if the page is shared or the file has several names.  A page that belongs to no file (a
// super block, a list of all inodes) has none.
std::map<pkram::Pfn, std::string> OwnersOf(const std::set<pkram::Pfn>& wanted,
                                           const pkram::PageView& pages, const SurvivingTree& tree);

}  // namespace pkramfs

#endif  // FS_PAGE_OWNERS_H_
