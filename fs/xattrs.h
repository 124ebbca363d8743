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
  // Of one inode, under its lock; exclusively, to change it.
  Xattrs(pkram::Region* region, Inode* inode) ABSL_SHARED_LOCKS_REQUIRED(inode->mu)
      : region_(region), inode_(inode) {}

  bool empty() const { return inode_->header().bytes == 0; }
  std::optional<std::string> Get(std::string_view name) const;
  void ForEachName(absl::FunctionRef<void(std::string_view)> fn) const;

  // The names and values of a blob.
  static void ForEachOf(std::string_view blob,
                        absl::FunctionRef<void(std::string_view, std::string_view)> fn);

  // The blob of some attributes, for a new inode.
  static void Append(std::string* blob, std::string_view name, std::string_view value);

  // Adds edits to `change`, once in its life.  ENOSPC.
  Result<void> Edit(Change* change, absl::Span<const XattrEdit> edits);

  // Of the namespaces user., trusted. and security., or a POSIX ACL: 0; else EINVAL, ERANGE
  // or EOPNOTSUPP.
  static int CheckName(std::string_view name);

  // Says that the blob of an inode of this mode is well-formed: whole entries, names that
  // can be asked for, none twice, values of a possible size, ACLs that are some, the access one as
  // the mode is, the default one a directory's.
  static bool Sound(std::string_view blob, uint32_t mode);

 private:
  std::string Blob() const;
  void Blot(Change* change, std::string_view name);

  pkram::Region* const region_;
  Inode* const inode_;
};

}  // namespace pkramfs

#endif  // FS_XATTRS_H_
