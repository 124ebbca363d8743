#include "mount/tools/archive_writer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace pkramfs {

absl::Status ArchiveError(struct archive* archive, const std::string& path) {
  const char* const why = archive_error_string(archive);
  return absl::InternalError(absl::StrCat(path, ": ", why != nullptr ? why : "cannot be written"));
}

namespace {

TreeBuilder::Attributes AttributesIn(const InodeRecord& record, const SurvivingTree::Inode& inode) {
  TreeBuilder::Attributes a;
  a.mode = static_cast<uint32_t>(record.mode_nlink);
  a.uid = static_cast<uint32_t>(record.owner);
  a.gid = static_cast<uint32_t>(record.owner >> 32);
  a.rdev = record.rdev;
  const auto time = [&](TimeIndex which) {
    const uint64_t nanos = record.nanos[which / 2];
    return Timestamp{static_cast<int64_t>(record.seconds[which]),
                     static_cast<uint32_t>(which % 2 == 0 ? nanos : nanos >> 32)};
  };
  a.atime = time(kAtime);
  a.mtime = time(kMtime);
  a.ctime = time(kCtime);
  a.btime = time(kBtime);
  a.xattrs = inode.xattrs;
  return a;
}

}  // namespace

absl::Status ArchiveWriter::Write(Ino top, const std::string& name) {
  struct Step {
    Ino ino;
    std::string path;
  };
  std::vector<Step> steps{{top, IsDirectory(top) ? "." : name}};
  while (!steps.empty()) {
    const Step step = std::move(steps.back());
    steps.pop_back();
    if (absl::Status s = WriteOne(step.ino, step.path); !s.ok()) return s;
    const auto names = tree_.names.find(step.ino);
    if (names == tree_.names.end()) continue;
    // Added with the last one first, so that they are written in their order.
    for (auto it = names->second.rbegin(); it != names->second.rend(); ++it) {
      steps.push_back({it->ino, absl::StrCat(step.path, "/", it->name)});
    }
  }
  return absl::OkStatus();
}

void ArchiveWriter::SetTimes(Ino ino) const {
  const SurvivingTree::Inode& inode = tree_.inodes.at(ino);
  const TreeBuilder::Attributes a = AttributesIn(RecordOf(pages_, inode), inode);
  if (!S_ISDIR(a.mode)) return;
  const timespec times[] = {{a.atime.seconds, static_cast<long>(a.atime.nanos)},
                            {a.mtime.seconds, static_cast<long>(a.mtime.nanos)}};
  utimensat(AT_FDCWD, ".", times, 0);
}

bool ArchiveWriter::IsDirectory(Ino ino) const {
  return S_ISDIR(static_cast<uint32_t>(RecordOf(pages_, tree_.inodes.at(ino)).mode_nlink));
}

absl::Status ArchiveWriter::WriteOne(Ino ino, const std::string& path) {
  const SurvivingTree::Inode& inode = tree_.inodes.at(ino);
  const InodeRecord& record = RecordOf(pages_, inode);
  const auto mode = static_cast<uint32_t>(record.mode_nlink);
  if (S_ISSOCK(mode)) {
    skipped_(absl::StrCat(path, ": a socket, which archives know nothing of"));
    return absl::OkStatus();
  }
  const EntryPtr entry(archive_entry_new());
  archive_entry_set_pathname(entry.get(), path.c_str());
  ToEntry(AttributesIn(record, inode), entry.get());
  ++progress_->inodes;
  if (!S_ISDIR(mode) && record.mode_nlink >> 32 > 1) {
    const auto [first, is_first] = links_.emplace(ino, path);
    if (!is_first) {
      archive_entry_set_hardlink(entry.get(), first->second.c_str());
      archive_entry_unset_size(entry.get());
      return Finish(archive_write_header(out_, entry.get()), path);
    }
  }
  if (S_ISLNK(mode)) {
    std::string target;
    ForEachPiece(pages_, {}, inode, [&](uint64_t, std::string_view bytes) {
      target.append(bytes);
      return true;
    });
    archive_entry_set_symlink(entry.get(), target.c_str());
  }
  archive_entry_set_size(entry.get(), S_ISREG(mode) ? static_cast<la_int64_t>(record.size) : 0);
  if (!S_ISREG(mode) || record.size == 0) {
    return Finish(archive_write_header(out_, entry.get()), path);
  }
  return WriteContents(inode, record.size, entry.get(), path);
}

// Pieces that follow one another in the file and in the region are written at once.
absl::Status ArchiveWriter::WriteContents(const SurvivingTree::Inode& inode, uint64_t size,
                                          struct archive_entry* entry, const std::string& path) {
  struct Piece {
    uint64_t offset;
    std::string_view bytes;
  };
  std::vector<Piece> pieces;
  ForEachPiece(pages_, {}, inode, [&](uint64_t offset, std::string_view bytes) {
    if (!pieces.empty()) {
      Piece& last = pieces.back();
      if (last.offset + last.bytes.size() == offset &&
          last.bytes.data() + last.bytes.size() == bytes.data()) {
        last.bytes = {last.bytes.data(), last.bytes.size() + bytes.size()};
        return true;
      }
    }
    pieces.push_back({offset, bytes});
    return true;
  });
  // Where it has data: pieces that touch are one.
  uint64_t from = 0, end = 0, extents = 0;
  const auto add = [&] {
    if (end > from) {
      archive_entry_sparse_add_entry(entry, static_cast<la_int64_t>(from),
                                     static_cast<la_int64_t>(end - from));
      ++extents;
    }
  };
  for (const Piece& piece : pieces) {
    if (piece.offset != end) {
      add();
      from = piece.offset;
    }
    end = piece.offset + piece.bytes.size();
  }
  const bool whole = extents == 0 && from == 0 && end == size;
  if (!whole) add();
  if (!whole && extents == 0)
    archive_entry_sparse_add_entry(entry, static_cast<la_int64_t>(size), 0);
  if (absl::Status s = Finish(archive_write_header(out_, entry), path); !s.ok()) return s;
  for (const Piece& piece : pieces) {
    if (absl::Status s = WritePiece(piece.offset, piece.bytes, path); !s.ok()) return s;
  }
  return Finish(archive_write_finish_entry(out_), path);
}

absl::Status ArchiveWriter::WritePiece(uint64_t offset, std::string_view bytes,
                                       const std::string& path) {
  static const char kZeros[65536] = {};
  if (archive_format(out_) == 0) {  // to a disk
    const la_ssize_t n =
        archive_write_data_block(out_, bytes.data(), bytes.size(), static_cast<la_int64_t>(offset));
    if (n < ARCHIVE_OK) return ArchiveError(out_, path);
    progress_->bytes += bytes.size();
    at_ = offset + bytes.size();
    return absl::OkStatus();
  }
  // An archive format gets all bytes in order, and leaves out those of the holes itself.
  if (offset == 0) at_ = 0;
  for (; at_ < offset;) {
    const size_t n = std::min<uint64_t>(sizeof(kZeros), offset - at_);
    if (archive_write_data(out_, kZeros, n) < 0) return ArchiveError(out_, path);
    at_ += n;
  }
  if (archive_write_data(out_, bytes.data(), bytes.size()) < 0) return ArchiveError(out_, path);
  progress_->bytes += bytes.size();
  at_ = offset + bytes.size();
  return absl::OkStatus();
}

absl::Status ArchiveWriter::Finish(int result, const std::string& path) {
  at_ = 0;
  return result < ARCHIVE_WARN ? ArchiveError(out_, path) : absl::OkStatus();
}

}  // namespace pkramfs
