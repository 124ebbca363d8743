// Converts between entries of archives, as libarchive has them, and inodes of a region.
#ifndef MOUNT_TOOLS_ARCHIVE_H_
#define MOUNT_TOOLS_ARCHIVE_H_

#include <archive.h>
#include <archive_entry.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/tree_builder.h"
#include "mount/tools/tree_source.h"
#include "pkram/region.h"

namespace pkramfs {

struct ArchiveDeleter {
  void operator()(struct archive* archive) const { archive_free(archive); }
  void operator()(struct archive_entry* entry) const { archive_entry_free(entry); }
};
using ArchivePtr = std::unique_ptr<struct archive, ArchiveDeleter>;
using EntryPtr = std::unique_ptr<struct archive_entry, ArchiveDeleter>;

// All of an entry but its path, size, target and links.
void ToEntry(const TreeBuilder::Attributes& attributes, struct archive_entry* entry);
TreeBuilder::Attributes FromEntry(struct archive_entry* entry);

// Builds the tree of an archive of any format, which is read from `fd`, called `name`.  Errors name
// the path: the archive is damaged or ends too early, a path leads upwards, or there is no space.
absl::StatusOr<Filesystem::BuiltTree> BuildFromArchive(int fd, const std::string& name,
                                                       pkram::Region* region,
                                                       ImportProgress* progress);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_ARCHIVE_H_
