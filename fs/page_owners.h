// Which file a page of a region is of, for who has to say what is damaged.
#ifndef FS_PAGE_OWNERS_H_
#define FS_PAGE_OWNERS_H_

#include <map>
#include <set>
#include <string>

#include "fs/survivors.h"
#include "pkram/page_view.h"
#include "pkram/types.h"

namespace pkramfs {

// The path of whose contents, names, attributes or lists each of those pages holds, from the root
// of the filesystem; "inode N" where no name leads to it.  One path, of what is shared or has
// several names.  What is nobody's (a super block, a list of all inodes) has none.
std::map<pkram::Pfn, std::string> OwnersOf(const std::set<pkram::Pfn>& wanted,
                                           const pkram::PageView& pages, const SurvivingTree& tree);

}  // namespace pkramfs

#endif  // FS_PAGE_OWNERS_H_
