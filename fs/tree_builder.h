// Builds a tree of files in lent pages (Region::OpenToBuild), for Filesystem::AdoptTree.
//
//   TreeBuilder builder(region);
//   const Ino file = builder.Reserve(), top = builder.Reserve();
//   builder.MakeFile(file, attributes, size, extents, read);
//   builder.MakeDirectory(top, builder.root(), attributes, {{"name", file, DT_REG}});
//   Filesystem::BuiltTree tree = *builder.Finish(top, S_IFDIR);
//
// Nothing of the tree is reachable before it is adopted.  If it is not finished, nothing of it is
// left when the region is closed.
//
// Thread-safe, except for Finish.
#ifndef FS_TREE_BUILDER_H_
#define FS_TREE_BUILDER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "fs/filesystem.h"
#include "fs/layout.h"
#include "fs/types.h"
#include "pkram/mutex.h"
#include "pkram/region.h"

namespace pkramfs {

// All errors are RESOURCE_EXHAUSTED, where nothing else is said.
class TreeBuilder {
 public:
  explicit TreeBuilder(pkram::Region* region) : region_(region), pages_(kRootIno + 1) {}

  struct Attributes {
    uint32_t mode = 0;  // with the type
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint64_t rdev = 0;  // major << 32 | minor
    Timestamp atime, mtime, ctime, btime;
    std::string xattrs{};  // as Xattrs::Append makes them
    uint32_t nlink = 1;    // of what is no directory: how many names it will have
  };
  struct Name {
    std::string name;
    Ino ino;
    uint32_t mode;
  };
  // Bytes of a file from the beginning of a page.  Between its extents the file has holes.
  struct Extent {
    uint64_t offset;
    uint64_t size;
  };
  // Reads bytes of the file, exactly as many as asked for: to memory, or to an offset of the
  // region's file.  An error ends the making of the file, and is returned.
  struct Reader {
    std::function<absl::Status(uint64_t offset, absl::Span<char> bytes)> to_memory;
    std::function<absl::Status(uint64_t offset, uint64_t size, uint64_t region_offset)> to_pages;
  };

  // Reserves a number for an inode that the caller will make.
  Ino Reserve();

  absl::Status MakeFile(Ino ino, const Attributes& attributes, uint64_t size,
                        absl::Span<const Extent> extents, const Reader& reader);
  absl::Status MakeSymlink(Ino ino, const Attributes& attributes, std::string_view target);
  // A device, fifo or socket.
  absl::Status MakeNode(Ino ino, const Attributes& attributes);
  // `parent` is the number of the directory that has its name, or root().
  absl::Status MakeDirectory(Ino ino, Ino parent, const Attributes& attributes,
                             absl::Span<const Name> names);
  static Ino root() { return kRootIno; }
  // Takes an inode that was made out of the tree again.
  void Drop(Ino ino);
  // Sets the number of links of an inode that was made.
  void SetLinks(Ino ino, uint32_t nlink);

  // Ends the making.  `top`, of that mode, is the tree.  REQUIRES: every reserved inode was made.
  absl::StatusOr<Filesystem::BuiltTree> Finish(Ino top, uint32_t mode);

 private:
  // Pages of a file from `index` on.
  struct Piece {
    uint64_t index;
    pkram::PageRun run;
  };
  absl::StatusOr<pkram::format::Object*> MakeInode(Ino ino, Ino parent,
                                                   const Attributes& attributes,
                                                   std::string_view target = {});
  absl::StatusOr<std::vector<Piece>> FillPages(absl::Span<const Extent> extents,
                                               const Reader& reader);
  absl::Status BuildList(absl::Span<const Piece> pieces, pkram::format::Object* page);

  pkram::Region* const region_;
  pkram::Mutex mu_;
  std::vector<pkram::Pfn> pages_ ABSL_GUARDED_BY(mu_);  // by number; Pfn(): not made yet
  uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace pkramfs

#endif  // FS_TREE_BUILDER_H_
