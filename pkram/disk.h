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
  // What stands there is not needed any more, and may be read as zeros.
  virtual void GiveBack(uint64_t offset, uint64_t bytes) = 0;
};

// Virtual, so that tests can have each call fail, or be the last one.
class Disk {
 public:
  virtual ~Disk() = default;
  // A new, empty file NAME + `suffix`, mode 0600; one of that name is no more.
  virtual absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& suffix) = 0;
  // One that is there, to be written to.
  virtual absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& suffix) = 0;
  // Replaces what has the second name.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status SyncNames() = 0;
  // RESOURCE_EXHAUSTED when so much will not go on it.
  virtual absl::Status RoomFor(uint64_t bytes) = 0;
  // It need not be there.
  virtual void Remove(const std::string& suffix) = 0;
};

// Of the file that `path` leads to (see FindPlace).
absl::StatusOr<std::unique_ptr<Disk>> OpenDisk(const std::string& path);

}  // namespace pkram

#endif  // PKRAM_DISK_H_
