#include "mount/serve/request_name.h"

#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"

namespace pkramfs {
namespace {

// The kernel's (linux/fuse.h), without FUSE_.
constexpr struct {
  uint32_t opcode;
  const char* name;
} kNames[] = {
    {FUSE_LOOKUP, "LOOKUP"},
    {FUSE_FORGET, "FORGET"},
    {FUSE_GETATTR, "GETATTR"},
    {FUSE_SETATTR, "SETATTR"},
    {FUSE_READLINK, "READLINK"},
    {FUSE_SYMLINK, "SYMLINK"},
    {FUSE_MKNOD, "MKNOD"},
    {FUSE_MKDIR, "MKDIR"},
    {FUSE_UNLINK, "UNLINK"},
    {FUSE_RMDIR, "RMDIR"},
    {FUSE_RENAME, "RENAME"},
    {FUSE_LINK, "LINK"},
    {FUSE_OPEN, "OPEN"},
    {FUSE_READ, "READ"},
    {FUSE_WRITE, "WRITE"},
    {FUSE_STATFS, "STATFS"},
    {FUSE_RELEASE, "RELEASE"},
    {FUSE_FSYNC, "FSYNC"},
    {FUSE_SETXATTR, "SETXATTR"},
    {FUSE_GETXATTR, "GETXATTR"},
    {FUSE_LISTXATTR, "LISTXATTR"},
    {FUSE_REMOVEXATTR, "REMOVEXATTR"},
    {FUSE_FLUSH, "FLUSH"},
    {FUSE_OPENDIR, "OPENDIR"},
    {FUSE_READDIR, "READDIR"},
    {FUSE_RELEASEDIR, "RELEASEDIR"},
    {FUSE_FSYNCDIR, "FSYNCDIR"},
    {FUSE_CREATE, "CREATE"},
    {FUSE_INTERRUPT, "INTERRUPT"},
    {FUSE_IOCTL, "IOCTL"},
    {FUSE_BATCH_FORGET, "FORGET"},
    {FUSE_FALLOCATE, "FALLOCATE"},
    {FUSE_READDIRPLUS, "READDIRPLUS"},
    {FUSE_RENAME2, "RENAME"},
    {FUSE_LSEEK, "LSEEK"},
    {FUSE_COPY_FILE_RANGE, "COPY_FILE_RANGE"},
};

// Where in the rest of a request its offset stands.
std::optional<size_t> PlaceOfOffset(uint32_t opcode) {
  switch (opcode) {
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return offsetof(fuse_read_in, offset);
    case FUSE_WRITE:
      return offsetof(fuse_write_in, offset);
    case FUSE_FALLOCATE:
      return offsetof(fuse_fallocate_in, offset);
    case FUSE_LSEEK:
      return offsetof(fuse_lseek_in, offset);
    case FUSE_COPY_FILE_RANGE:
      return offsetof(fuse_copy_file_range_in, off_in);
    default:
      return std::nullopt;
  }
}

}  // namespace

std::string NameOfRequest(const fuse_in_header& header) {
  std::string name = absl::StrCat("kind ", header.opcode);
  for (const auto& known : kNames) {
    if (known.opcode == header.opcode) name = known.name;
  }
  absl::StrAppend(&name, ", inode ", header.nodeid);
  if (const std::optional<size_t> place = PlaceOfOffset(header.opcode)) {
    uint64_t offset;
    std::memcpy(&offset, reinterpret_cast<const char*>(&header + 1) + *place, sizeof(offset));
    absl::StrAppend(&name, ", offset ", offset);
  }
  return name;
}

}  // namespace pkramfs
