// Extended attributes: one immutable blob per inode, replaced as a whole.
#ifndef FS_XATTRS_H_
#define FS_XATTRS_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "fs/inode.h"
#include "fs/result.h"
#include "pkram/region.h"

namespace pkramfs {

inline constexpr std::string_view kTrusted = "trusted.";

// `name` gets another value; without one it goes.
struct XattrEdit {
  std::string_view name;
  std::optional<std::string> value;
};

class Xattrs {
 public:
  // The attributes of one inode, under its lock.  To change them, the lock must be held
  // exclusively.
  Xattrs(pkram::Region* region, Inode* inode) ABSL_SHARED_LOCKS_REQUIRED(inode->mu)
      : region_(region), inode_(inode) {}

  bool empty() const { return inode_->header().bytes == 0; }
  std::optional<std::string> Get(std::string_view name) const;
  void ForEachName(absl::FunctionRef<void(std::string_view)> fn) const;

  // Calls fn(name, value) for each attribute of a blob.
  static void ForEachOf(std::string_view blob,
                        absl::FunctionRef<void(std::string_view, std::string_view)> fn);

  // Adds an attribute to a blob, for a new inode.
  static void Append(std::string* blob, std::string_view name, std::string_view value);

  // Adds edits to `change`.  To be called once for each change.  ENOSPC.
  Result<void> Edit(Change* change, absl::Span<const XattrEdit> edits);

  // 0 for a name of the namespaces user., trusted. and security., and for a POSIX ACL.  EINVAL,
  // ERANGE or EOPNOTSUPP for others.
  static int CheckName(std::string_view name);

  // Whether a blob is well-formed for an inode of this mode.  Entries are whole, names are allowed
  // and none stands there twice, values have a possible size, ACLs are valid.  An access ACL says
  // what the mode says, and only directories have a default ACL.
  static bool Sound(std::string_view blob, uint32_t mode);

 private:
  std::string Blob() const;
  void Blot(Change* change, std::string_view name);

  pkram::Region* const region_;
  Inode* const inode_;
};

}  // namespace pkramfs

#endif  // FS_XATTRS_H_
