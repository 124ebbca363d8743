// The kinds of backing, for those who open one: see backing.h.
#ifndef PKRAM_BACKING_KINDS_H_
#define PKRAM_BACKING_KINDS_H_

#include <memory>
#include <string>

#include "pkram/backing.h"

namespace pkram {

// A regular file; takes `fd` over.
std::unique_ptr<Backing> MakeFileBacking(std::string name, int fd);

// Memory that can be mapped and nothing else, as Linux's devdax: it is stored to through
// mappings, which are aligned; all of it exists, and stays.
struct DeviceShape {
  uint64_t bytes;
  uint64_t alignment;
};
// Takes `fd` over, and `lock_fd`: another node of the device, to be locked besides, or -1.
absl::StatusOr<std::unique_ptr<Backing>> MakeDeviceBacking(std::string name, int fd, int lock_fd,
                                                           DeviceShape shape, bool writable);

// RESOURCE_EXHAUSTED when it says that there is no space, INTERNAL otherwise.
absl::Status IoStatus(const std::string& name, const char* what, int error);
// As Backing::Lock.
absl::Status LockDescriptor(const std::string& name, int fd, bool exclusive);
// As Backing::Map; RESOURCE_EXHAUSTED when there is not so much address space.
absl::StatusOr<absl::Span<std::byte>> MapDescriptor(const std::string& name, int fd, size_t bytes,
                                                    bool writable);

}  // namespace pkram

#endif  // PKRAM_BACKING_KINDS_H_
