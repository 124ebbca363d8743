// The contents of regular files and long symlinks: inline, or in pages.
//
// The order that keeps them whole: bytes into a page, then its entry, then size
// and times.  What stands behind the end of the file in its last page is not
// trusted to be zero; it is zeroed when the file grows over it.
#ifndef FS_FILE_DATA_H_
#define FS_FILE_DATA_H_

#include <cstdint>

#include "absl/types/span.h"
#include "fs/inode.h"
#include "fs/result.h"
#include "fs/types.h"
#include "pkram/link_builder.h"
#include "pkram/region.h"

namespace pkramfs {

class FileData {
 public:
  // Of one inode, under its lock; exclusively, to change it.
  FileData(pkram::Region* region, Inode* inode) ABSL_SHARED_LOCKS_REQUIRED(inode->mu)
      : region_(region), inode_(inode), inline_(inode->is_inline()) {}

  // EIO: the region's file cannot be read.
  Result<ReadAnswer> Read(uint64_t offset, size_t size);

  // Writes what there is space for and returns how much that was; ENOSPC when it
  // is nothing.  `change` gets the new size and what goes with it, and is to be
  // committed.
  Result<size_t> Write(Change* change, uint64_t offset, absl::Span<const std::byte> bytes);

  // `change` gets the new size.  After it is committed, Trim frees what is behind.
  Result<void> Resize(Change* change, uint64_t size);
  void Trim();

  // Gives [offset, end) pages where it has none; what they hold reads as zeros, as the
  // holes did.  `zero` makes all of the range so.  The file grows to `end`, unless the
  // size is kept.  ENOSPC.
  Result<void> Allocate(Change* change, uint64_t offset, uint64_t end, bool keep_size, bool zero);
  // Takes the pages of [offset, end) away; the rest of it is zeroed.  ENOSPC.
  Result<void> PunchHole(Change* change, uint64_t offset, uint64_t end);

  // Puts what `source` has in its pages [from, from + count) in place of the pages at
  // `to`: no byte is copied, until one of the two is written to.  The file grows to
  // `size`, if it is smaller.  ENOSPC.
  // REQUIRES: `source` is not inline; within one file the ranges do not overlap.
  Result<void> Share(Change* change, Inode* source, uint64_t from, uint64_t to, uint64_t count,
                     uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(source->mu);

  // Holds the pages of [offset, end), or as many of them as are `most` pieces.  What they hold
  // behind the file's end is zeros.  ENOSPC.
  // REQUIRES: it is not inline.
  Result<HeldPages> Hold(uint64_t offset, uint64_t end, size_t most);

  // The first byte at or behind `offset` of a page, or of a hole: at most the size.
  uint64_t FindData(uint64_t offset);
  uint64_t FindHole(uint64_t offset);

 private:
  Result<void> MakeReadable(ReadAnswer* answer);
  bool IsZeroBehindEnd();
  std::byte* InlineArea();
  void WriteInline(Change* change, uint64_t offset, absl::Span<const std::byte> bytes);
  Result<void> MoveToPages(Change* change);
  Result<void> MoveToFirstPage();
  bool SeenByOthers(uint64_t index);
  bool AwaitAlone(uint64_t index);
  Result<void> MakeOwn(uint64_t index);
  void Zero(uint64_t offset, uint64_t end);
  void ZeroInPage(pkram::Pfn pfn, uint64_t from, uint64_t size);
  Result<void> ZeroBehindEnd(uint64_t up_to);
  Result<size_t> FillFresh(uint64_t offset, absl::Span<const std::byte> bytes);
  template <typename Next, typename Edit>
  Result<void> Splice(Change* change, uint64_t first, uint64_t last, pkram::Urgency urgency,
                      Next next, Edit edit);

  pkram::Region* const region_;
  Inode* const inode_;
  bool inline_;  // also when that is still to be committed
};

}  // namespace pkramfs

#endif  // FS_FILE_DATA_H_
