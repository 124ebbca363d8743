// Writes a tree of a region through libarchive.
#ifndef MOUNT_TOOLS_ARCHIVE_WRITER_H_
#define MOUNT_TOOLS_ARCHIVE_WRITER_H_

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "fs/survivors.h"
#include "mount/tools/archive.h"
#include "mount/tools/tree_source.h"
#include "pkram/page_view.h"

namespace pkramfs {

// The error that libarchive reports.
absl::Status ArchiveError(struct archive* archive, const std::string& path);

// Writes one tree of a filesystem that was found sound into an archive, or to a disk.
class ArchiveWriter {
 public:
  // `out`: of archive_write_new or archive_write_disk_new.  All outlive it.
  ArchiveWriter(const pkram::PageView& pages, const SurvivingTree& tree, struct archive* out,
                ImportProgress* progress, const std::function<void(const std::string&)>& skipped)
      : pages_(pages), tree_(tree), out_(out), progress_(progress), skipped_(skipped) {}

  // Writes `top`.  A directory is called ".", and its contents stand below; a file is called
  // `name`.
  absl::Status Write(Ino top, const std::string& name);
  // Sets the times of the current directory of this process to those of the inode.
  void SetTimes(Ino ino) const;

 private:
  bool IsDirectory(Ino ino) const;
  absl::Status WriteOne(Ino ino, const std::string& path);
  absl::Status WriteContents(const SurvivingTree::Inode& inode, uint64_t size,
                             struct archive_entry* entry, const std::string& path);
  absl::Status WritePiece(uint64_t offset, std::string_view bytes, const std::string& path);
  absl::Status Finish(int result, const std::string& path);

  const pkram::PageView& pages_;
  const SurvivingTree& tree_;
  struct archive* const out_;
  ImportProgress* const progress_;
  const std::function<void(const std::string&)>& skipped_;
  std::map<Ino, std::string> links_;
  uint64_t at_ = 0;  // of the file that is being written
};

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_ARCHIVE_WRITER_H_
