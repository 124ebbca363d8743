// Extended attributes: one immutable blob per inode, replaced as a whole.
#ifndef FS_XATTRS_H_
#define FS_XATTRS_H_

#include <optional>
#include <string>
#include <string_view>

#include "fs/inode.h"
#include "fs/result.h"
#include "pkram/region.h"

namespace pkramfs {

class Xattrs {
 public:
  // Of one inode, under its lock; exclusively, to change it.
  Xattrs(pkram::Region* region, Inode* inode) ABSL_SHARED_LOCKS_REQUIRED(inode->mu)
      : region_(region), inode_(inode) {}

  bool empty() const { return inode_->header().bytes == 0; }
  std::optional<std::string> Get(std::string_view name) const;
  // The names, each with a NUL behind it.
  std::string List() const;

  // Adds to `change` that `name` has another value; without one it goes.  ENOSPC.
  Result<void> Set(Change* change, std::string_view name, std::optional<std::string_view> value);

  // Says that a blob is well-formed: whole entries, no name twice.
  static bool Sound(std::string_view blob);

 private:
  std::string Blob() const;

  pkram::Region* const region_;
  Inode* const inode_;
};

}  // namespace pkramfs

#endif  // FS_XATTRS_H_
