// What the filesystem does with contents.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "fs/file_data.h"
#include "fs/filesystem.h"

namespace pkramfs {

using pkram::ReaderLock;
using pkram::WriterLock;

namespace {

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
  const ReadAnswer answer = FileData(region_, inode.get()).Read(0, inode->size());
  std::string target;
  for (const iovec& v : answer.iov) target.append(static_cast<const char*>(v.iov_base), v.iov_len);
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
                                 absl::Span<const std::byte> bytes) {
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  return WriteTo(context, inode.get(), offset, bytes);
}

Result<size_t> Filesystem::WriteTo(const Context& context, Inode* inode, uint64_t offset,
                                   absl::Span<const std::byte> bytes) {
  bool dropped = false;
  const Result<size_t> written = [&] {
    WriterLock lock(&inode->mu);
    return WriteLocked(context, inode, offset, bytes, &dropped);
  }();
  if (dropped && privileges_dropped_) privileges_dropped_(inode->ino());
  return written;
}

Result<size_t> Filesystem::WriteLocked(const Context& context, Inode* inode, uint64_t offset,
                                       absl::Span<const std::byte> bytes, bool* dropped) {
  if (inode->is_directory()) return Errno{EISDIR};
  if (!inode->is_regular()) return Errno{EINVAL};
  if (const int error = CheckRange(offset, bytes.size()); error != 0) return Errno{error};
  if (bytes.empty()) return size_t{0};
  Change change(region_);
  std::vector<XattrEdit> edits;
  const uint32_t mode = DropPrivileges(context, inode, false, &edits);
  if (const auto r = EditInode(inode, &change, mode, edits); !r.ok()) return r.as_errno();
  const bool drops = mode != inode->mode() || !edits.empty();
  const Result<size_t> written = FileData(region_, inode).Write(&change, offset, bytes);
  if (!written.ok()) return written;
  change.Modified(inode, context.now);
  change.Commit();
  *dropped = drops;
  return written;
}

Result<void> Filesystem::Fallocate(const Context& context, Ino ino, uint64_t offset,
                                   uint64_t length, int mode) {
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
  Change change(region_);
  std::vector<XattrEdit> edits;
  const uint32_t left = DropPrivileges(context, inode, false, &edits);
  if (const auto r = EditInode(inode, &change, left, edits); !r.ok()) return r;
  const bool drops = left != inode->mode() || !edits.empty();
  FileData data(region_, inode);
  if (what == FALLOC_FL_PUNCH_HOLE) {
    if (const auto r = data.PunchHole(&change, offset, end); !r.ok()) return r;
  } else {
    if (const auto r = data.Allocate(&change, offset, end, keep_size); !r.ok()) return r;
    if (what == FALLOC_FL_ZERO_RANGE) data.Zero(offset, std::min(end, inode->size()));
  }
  change.Modified(inode, context.now);
  change.Commit();
  *dropped = drops;
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
  const Gate::Pass pass(&gate_);
  const InodeRef source = cache_.Get(from);
  const InodeRef target = cache_.Get(to);
  if (!source || !target) return Errno{ESTALE};
  if (source->is_directory() || target->is_directory()) return Errno{EISDIR};
  if (!source->is_regular() || !target->is_regular()) return Errno{EINVAL};
  if (const int error = CheckRange(from_offset, size); error != 0) return Errno{error};
  if (from == to && from_offset < to_offset + size && to_offset < from_offset + size) {
    return Errno{EINVAL};
  }
  // Not for longer than somebody would wait, and never more than a reply can say.
  constexpr size_t kMost = 64 << 20;
  size = std::min(size, kMost);
  // By way of a buffer: whoever waits for space must hold no pages of a reader.
  constexpr size_t kPiece = 1 << 20;
  std::vector<std::byte> buffer(std::min(size, kPiece));
  size_t done = 0;
  while (done < size) {
    size_t have = 0;
    {
      ReaderLock lock(&source->mu);
      const ReadAnswer answer =
          FileData(region_, source.get()).Read(from_offset + done, std::min(size - done, kPiece));
      for (const iovec& v : answer.iov) {
        std::memcpy(buffer.data() + have, v.iov_base, v.iov_len);
        have += v.iov_len;
      }
    }
    if (have == 0) break;
    const Result<size_t> written =
        WriteTo(context, target.get(), to_offset + done, {buffer.data(), have});
    if (!written.ok() && done == 0) return written;
    if (!written.ok()) break;
    done += *written;
    if (*written < have) break;
  }
  return done;
}

}  // namespace pkramfs
