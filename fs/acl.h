// POSIX access control lists, in the form in which the kernel hands them over as
// extended attributes, and in which they are kept: a version word, then entries of
// {tag, permissions, id}, little-endian (include/uapi/linux/posix_acl_xattr.h).
//
// The rules are those of POSIX 1003.1e draft 17, as the kernel applies them.
#ifndef FS_ACL_H_
#define FS_ACL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pkramfs {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";
inline bool IsAcl(std::string_view name) { return name == kAccessAcl || name == kDefaultAcl; }

class Acl {
 public:
  enum Tag : uint16_t {
    kUserObj = 0x01,
    kUser = 0x02,
    kGroupObj = 0x04,
    kGroup = 0x08,
    kMask = 0x10,
    kOther = 0x20,
  };
  struct Entry {
    uint16_t tag;
    uint16_t perm;
    uint32_t id;
  };
  // Makes a list of entries in any order.  Nothing when they are no valid list.
  static std::optional<Acl> Of(std::vector<Entry> entries);
  const std::vector<Entry>& entries() const { return entries_; }

  // Nothing when the bytes are no valid list.  A list without entries takes an ACL away.
  static std::optional<Acl> Parse(std::string_view bytes);
  std::string Bytes() const;

  bool empty() const { return entries_.empty(); }

  // Whether it says no more than permission bits do.
  bool IsMode() const;
  // The permission bits (0777) that stand for it.
  uint32_t ModeBits() const;
  // Does what chmod does to a list.
  void SetModeBits(uint32_t mode);
  // Makes a directory's default list the access list of a new inode: it allows what both the list
  // and `mode`, with which the inode was asked for, allow.
  void Restrict(uint32_t mode);

 private:
  // The entry that the group bits of the mode stand for, and those of the others.
  const Entry* ForClass(uint32_t shift) const;
  Entry* ForClass(uint32_t shift) {
    return const_cast<Entry*>(static_cast<const Acl*>(this)->ForClass(shift));
  }

  std::vector<Entry> entries_;
};

}  // namespace pkramfs

#endif  // FS_ACL_H_
