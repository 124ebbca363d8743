// The files of a checkpoint: NAME, and others beside it that begin with that name.
//
// What was written is on the disk when Sync has returned; a file's name, when SyncNames has.
#ifndef PKRAM_DISK_H_
#define PKRAM_DISK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace pkram {

// Errors name the file: RESOURCE_EXHAUSTED when the disk is full, INTERNAL for others.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  virtual absl::Status Write(uint64_t offset, absl::Span<const std::byte> bytes) = 0;
  // All of `bytes`.
  virtual absl::Status Read(uint64_t offset, absl::Span<std::byte> bytes) = 0;
  virtual absl::Status Sync() = 0;
  // Says that these bytes are not needed any more.  They may be read as zeros afterwards.
  virtual void GiveBack(uint64_t offset, uint64_t bytes) = 0;
};

// Its calls are virtual, so that tests can let each of them fail, or be the last one.
class Disk {
 public:
  virtual ~Disk() = default;
  // Makes a new, empty file NAME + `suffix`, mode 0600.  A file that had this name is deleted.
  virtual absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& suffix) = 0;
  // Opens a file that is there, for writing.
  virtual absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& suffix) = 0;
  // Renames the first file.  What had the second name is replaced.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status SyncNames() = 0;
  // RESOURCE_EXHAUSTED when the disk has no room for so many bytes.
  virtual absl::Status RoomFor(uint64_t bytes) = 0;
  // Deletes a file.  It need not be there.
  virtual void Remove(const std::string& suffix) = 0;
};

// The disk of the file that `path` leads to (see FindPlace).
absl::StatusOr<std::unique_ptr<Disk>> OpenDisk(const std::string& path);

}  // namespace pkram

#endif  // PKRAM_DISK_H_
