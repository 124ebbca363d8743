// The contents of regular files and long symlinks: inline, or in pages.
//
// A write has this order, which keeps contents whole: bytes into a page, then its entry, then size
// and times.  Bytes behind the end of the file in its last page may be anything.  They are zeroed
// when the file grows over them.
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
  // The contents of one inode, under its lock.  To change them, the lock must be held exclusively.
  FileData(pkram::Region* region, Inode* inode) ABSL_SHARED_LOCKS_REQUIRED(inode->mu)
      : region_(region), inode_(inode), inline_(inode->is_inline()) {}

  // EIO: the region's file cannot be read.
  Result<ReadAnswer> Read(uint64_t offset, size_t size);

  // Writes as many bytes as there is space for, and returns how many; ENOSPC when that is none.
  // Adds the new size and what goes with it to `change`, which the caller must commit.
  Result<size_t> Write(Change* change, uint64_t offset, absl::Span<const std::byte> bytes);

  // Adds the new size to `change`.  After its commit, the caller calls Trim, which frees what lies
  // behind.
  Result<void> Resize(Change* change, uint64_t size);
  void Trim();

  // Allocates pages for the holes of [offset, end).  They read as zeros, as the holes did.  `zero`
  // makes the whole range zeros.  The file grows to `end`, unless the size is kept.  ENOSPC.
  Result<void> Allocate(Change* change, uint64_t offset, uint64_t end, bool keep_size, bool zero);
  // Takes the whole pages of [offset, end) away, and zeroes the rest of the range.  ENOSPC.
  Result<void> PunchHole(Change* change, uint64_t offset, uint64_t end);

  // Shares the pages [from, from + count) of `source`: they replace this file's pages from `to` on.
  // No byte is copied until one of the two files is written to.  The file grows to `size`, if it is
  // smaller.  ENOSPC.
  // REQUIRES: `source` is not inline; within one file the ranges do not overlap.
  Result<void> Share(Change* change, Inode* source, uint64_t from, uint64_t to, uint64_t count,
                     uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(source->mu);

  // Holds the pages of [offset, end) for a reader, or as many of them as make `most` pieces.  Their
  // bytes behind the file's end are zeroed first.  ENOSPC.
  // REQUIRES: it is not inline.
  Result<HeldPages> Hold(uint64_t offset, uint64_t end, size_t most);

  // The first byte from `offset` on that is in a page, or in a hole; the size at most.
  uint64_t FindData(uint64_t offset);
  uint64_t FindHole(uint64_t offset);

 private:
  Result<void> MakeReadable(ReadAnswer* answer);
  bool IsZeroBehindEnd();
  std::byte* InlineArea();
  void WriteInline(Change* change, uint64_t offset, absl::Span<const std::byte> bytes);
  Result<void> MoveToPages(Change* change);
  absl::StatusOr<pkram::PageRun> FillOnePage(absl::Span<const std::byte> bytes);
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
