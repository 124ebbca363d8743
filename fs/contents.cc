// Operations on contents.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "fs/file_data.h"
#include "fs/filesystem.h"
#include "fs/lock_set.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::ReaderLock;
using pkram::WriterLock;

namespace {

// How many bytes are copied at once.
constexpr size_t kPiece = 1 << 20;

constexpr auto kMaxSize = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

int CheckRange(uint64_t offset, uint64_t length) {
  return offset > kMaxSize || length > kMaxSize - offset ? EFBIG : 0;
}

}  // namespace

Result<std::string> Filesystem::ReadLink(Ino ino) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  if (!S_ISLNK(inode->mode())) return Errno{EINVAL};
  const Result<ReadAnswer> answer = FileData(region_, inode.get()).Read(0, inode->size());
  if (!answer.ok()) return answer.as_errno();
  std::string target;
  for (const iovec& v : answer->iov) target.append(static_cast<const char*>(v.iov_base), v.iov_len);
  return target;
}

Result<ReadAnswer> Filesystem::Read(Ino ino, uint64_t offset, size_t size) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  if (inode->is_directory()) return Errno{EISDIR};
  if (!inode->is_regular()) return Errno{EINVAL};
  return FileData(region_, inode.get()).Read(offset, size);
}

Result<size_t> Filesystem::Write(const Context& context, Ino ino, uint64_t offset,
                                 absl::Span<const std::byte> bytes, Sent sent) {
  if (const auto written = AlreadyWritten(context, ino)) return *written;
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  return WriteTo(context, inode.get(), offset, bytes, sent);
}

// For a request that a predecessor has executed: it may have died before it told the kernel about
// privileges that were dropped.
std::optional<uint64_t> Filesystem::AlreadyWritten(const Context& context, Ino ino) {
  const std::optional<uint64_t> bytes = Outcome(context);
  if (bytes && privileges_dropped_) privileges_dropped_(ino);
  return bytes;
}

Result<size_t> Filesystem::WriteTo(const Context& context, Inode* inode, uint64_t offset,
                                   absl::Span<const std::byte> bytes, Sent sent) {
  bool dropped = false;
  const Result<size_t> written = [&] {
    WriterLock lock(&inode->mu);
    return WriteLocked(context, inode, offset, bytes, sent, &dropped);
  }();
  if (dropped && privileges_dropped_) privileges_dropped_(inode->ino());
  return written;
}

// Adds the privileges that a change of contents takes away to `change`.  Returns whether there are
// any.
Result<bool> Filesystem::PrepareWrite(const Context& context, Inode* inode, Change* change) {
  std::vector<XattrEdit> edits;
  const uint32_t mode = DropPrivileges(context, inode, false, &edits);
  if (const auto r = EditInode(inode, change, mode, edits); !r.ok()) return r.as_errno();
  return mode != inode->mode() || !edits.empty();
}

Result<size_t> Filesystem::WriteLocked(const Context& context, Inode* inode, uint64_t offset,
                                       absl::Span<const std::byte> bytes, Sent sent,
                                       bool* dropped) {
  if (inode->is_directory()) return Errno{EISDIR};
  if (!inode->is_regular()) return Errno{EINVAL};
  if (const int error = CheckRange(offset, bytes.size()); error != 0) return Errno{error};
  if (bytes.empty()) return size_t{0};
  Change change(region_, context);
  Result<bool> drops = false;
  if (sent == Sent::kByCaller) drops = PrepareWrite(context, inode, &change);
  if (!drops.ok()) return drops.as_errno();
  const Result<size_t> written = FileData(region_, inode).Write(&change, offset, bytes);
  if (!written.ok()) return written;
  if (sent == Sent::kLater && inode->has_given_mtime()) {
    if (context.sets_times) change.SetTime(inode, kCtime, context.now);
  } else {
    change.Modified(inode, context);
  }
  change.Commit(context.done + *written);
  if (*written < bytes.size()) FileData(region_, inode).Trim();  // a link without a page
  *dropped = *drops;
  return written;
}

Result<void> Filesystem::Fallocate(const Context& context, Ino ino, uint64_t offset,
                                   uint64_t length, int mode) {
  if (AlreadyWritten(context, ino)) return {};
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  bool dropped = false;
  const Result<void> done = [&] {
    WriterLock lock(&inode->mu);
    return FallocateLocked(context, inode.get(), offset, length, mode, &dropped);
  }();
  if (dropped && privileges_dropped_) privileges_dropped_(ino);
  return done;
}

Result<void> Filesystem::FallocateLocked(const Context& context, Inode* inode, uint64_t offset,
                                         uint64_t length, int mode, bool* dropped) {
  if (inode->is_directory()) return Errno{EISDIR};
  if (!inode->is_regular()) return Errno{ENODEV};
  if (length == 0) return Errno{EINVAL};
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int what = mode & ~FALLOC_FL_KEEP_SIZE;
  if (what != 0 && what != FALLOC_FL_ZERO_RANGE && !(what == FALLOC_FL_PUNCH_HOLE && keep_size)) {
    return Errno{EOPNOTSUPP};
  }
  if (const int error = CheckRange(offset, length); error != 0) return Errno{error};
  const uint64_t end = offset + length;
  Change change(region_, context);
  const Result<bool> drops = PrepareWrite(context, inode, &change);
  if (!drops.ok()) return drops.as_errno();
  FileData data(region_, inode);
  if (what == FALLOC_FL_PUNCH_HOLE) {
    if (const auto r = data.PunchHole(&change, offset, end); !r.ok()) return r;
  } else {
    const bool zero = what == FALLOC_FL_ZERO_RANGE;
    if (const auto r = data.Allocate(&change, offset, end, keep_size, zero); !r.ok()) return r;
  }
  change.Modified(inode, context);
  change.Commit();
  *dropped = *drops;
  return {};
}

Result<uint64_t> Filesystem::Seek(Ino ino, uint64_t offset, int whence) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  if (!inode->is_regular() || (whence != SEEK_DATA && whence != SEEK_HOLE)) return Errno{EINVAL};
  const uint64_t size = inode->size();
  if (offset >= size) return Errno{ENXIO};
  FileData data(region_, inode.get());
  if (whence == SEEK_HOLE) return data.FindHole(offset);
  const uint64_t found = data.FindData(offset);
  if (found >= size) return Errno{ENXIO};
  return found;
}

Result<size_t> Filesystem::CopyRange(const Context& context, Ino from, uint64_t from_offset, Ino to,
                                     uint64_t to_offset, size_t size) {
  if (const auto copied = AlreadyWritten(context, to)) return *copied;
  const Gate::Pass pass(&gate_);
  const InodeRef source = cache_.Get(from);
  const InodeRef target = cache_.Get(to);
  if (!source || !target) return Errno{ESTALE};
  if (source->is_directory() || target->is_directory()) return Errno{EISDIR};
  if (!source->is_regular() || !target->is_regular()) return Errno{EINVAL};
  if (const int error = CheckRange(from_offset, size); error != 0) return Errno{error};
  {
    // Bytes that the copy itself adds to the file are not copied.
    ReaderLock lock(&source->mu);
    size = std::min(size, source->size() - std::min(source->size(), from_offset));
  }
  if (from == to && from_offset < to_offset + size && to_offset < from_offset + size) {
    return Errno{EINVAL};
  }
  // Whole pages are shared, and bytes around them are copied: no more than a caller would wait for.
  constexpr size_t kMostCopied = 64 << 20;
  size_t done = 0, copied = 0;
  bool shares = true;
  Context step_context = context;
  while (done < size && copied < kMostCopied) {
    step_context.done = done;
    const uint64_t at = from_offset + done, to_at = to_offset + done;
    const size_t left = size - done;
    Result<size_t> step = size_t{0};
    if (shares) step = SharePages(step_context, source.get(), at, target.get(), to_at, left);
    // Sharing takes new lists.  There may be no space for these, although the bytes have pages
    // already.
    shares = shares && step.error() != ENOSPC;
    if (!shares || (step.ok() && *step == 0)) {
      // Copies only up to the place where the next whole page may begin.
      const bool aligned = at % kPageSize == to_at % kPageSize && at % kPageSize != 0;
      const size_t most = aligned ? kPageSize - at % kPageSize : kPiece;
      step = CopyBytes(step_context, source.get(), at, target.get(), to_at, std::min(left, most));
      if (step.ok()) copied += *step;
    }
    if (!step.ok() && done == 0) return step;
    if (!step.ok() || *step == 0) break;
    done += *step;
  }
  return done;
}

// Shares the source's whole pages with the target, of `size` bytes.  The source's last page counts
// as whole if nothing of the target follows it.  Returns how many bytes were shared, or 0.
Result<size_t> Filesystem::SharePages(const Context& context, Inode* source, uint64_t from,
                                      Inode* target, uint64_t to, size_t size) {
  if (from % kPageSize != 0 || to % kPageSize != 0) return size_t{0};
  bool dropped = false;
  const Result<size_t> shared = [&]() -> Result<size_t> {
    const LockSet locks({source, target});
    source->mu.AssertHeld();
    target->mu.AssertHeld();
    const uint64_t source_size = source->size();
    if (source->is_inline() || from >= source_size) return size_t{0};
    size = std::min<uint64_t>(size, source_size - from);
    if (const int error = CheckRange(to, size); error != 0) return Errno{error};
    const bool to_the_end = from + size == source_size && to + size >= target->size();
    if (!to_the_end) size -= size % kPageSize;
    if (size == 0) return size_t{0};
    Change change(region_, context);
    const auto prepared = PrepareWrite(context, target, &change);
    if (!prepared.ok()) return prepared.as_errno();
    const auto r = FileData(region_, target)
                       .Share(&change, source, from / kPageSize, to / kPageSize,
                              pkram::PagesFor(size), to + size);
    if (!r.ok()) return r.as_errno();
    change.Modified(target, context);
    change.Commit(context.done + size);
    dropped = *prepared;
    return size;
  }();
  if (dropped && privileges_dropped_) privileges_dropped_(target->ino());
  return shared;
}

// Copies through a buffer, because a thread that waits for space must hold no pins.
Result<size_t> Filesystem::CopyBytes(const Context& context, Inode* source, uint64_t from,
                                     Inode* target, uint64_t to, size_t size) {
  std::vector<std::byte> buffer(size);
  size_t have = 0;
  {
    ReaderLock lock(&source->mu);
    const Result<ReadAnswer> answer = FileData(region_, source).Read(from, size);
    if (!answer.ok()) return answer.as_errno();
    for (const iovec& v : answer->iov) {
      std::memcpy(buffer.data() + have, v.iov_base, v.iov_len);
      have += v.iov_len;
    }
  }
  if (have == 0) return size_t{0};
  return WriteTo(context, target, to, {buffer.data(), have});
}

Result<HeldPages> Filesystem::Hold(Ino ino, uint64_t offset, uint64_t end, size_t most) {
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (!inode->is_regular()) return Errno{EINVAL};
  WriterLock lock(&inode->mu);
  if (inode->is_inline()) return Errno{EOPNOTSUPP};
  return FileData(region_, inode.get()).Hold(offset, end, most);
}

}  // namespace pkramfs
