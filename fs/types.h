// What goes into the filesystem's calls and comes out of them: plain values.
#ifndef FS_TYPES_H_
#define FS_TYPES_H_

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pkram/space.h"

namespace pkramfs {

using Ino = uint64_t;
inline constexpr Ino kRootIno = 1;

inline constexpr size_t kMaxName = 255;
inline constexpr size_t kMaxSymlink = 4095;
inline constexpr uint32_t kMaxLinks = 0x7fffffff;

struct Timestamp {
  int64_t seconds = 0;
  uint32_t nanos = 0;
  friend auto operator<=>(const Timestamp&, const Timestamp&) = default;
};

// Who calls, and when.
struct Context {
  uid_t uid = 0;
  gid_t gid = 0;
  Timestamp now;
  uint32_t umask = 0;  // for what is made
  // Whether a group is one of the caller's besides `gid`: asked rarely, and dear to know.
  std::function<bool(gid_t)> has_group{};
};

// Root is in all groups.
inline bool InGroup(const Context& context, gid_t group) {
  return context.uid == 0 || context.gid == group ||
         (context.has_group && context.has_group(group));
}

struct Attr {
  Ino ino = 0;
  uint32_t generation = 0;
  uint32_t mode = 0;
  uint32_t nlink = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t rdev = 0;
  uint64_t size = 0;
  uint64_t blocks = 0;  // of 512 bytes
  Timestamp atime, mtime, ctime, btime;
};

// What setattr changes; the rest stays.
struct AttrChange {
  enum : uint32_t {
    kSetMode = 1,
    kSetUid = 2,
    kSetGid = 4,
    kSetSize = 8,
    kSetAtime = 16,
    kSetMtime = 32,
    kSetCtime = 64
  };
  uint32_t what = 0;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;
  Timestamp atime{}, mtime{}, ctime{};
};

// The answer to a read: where the bytes are.  They stay what they were for as
// long as this lives; no lock is held meanwhile.
struct ReadAnswer {
  std::vector<iovec> iov;
  size_t size = 0;
  std::unique_ptr<char[]> copied;  // what iov points into, if not into the region
  pkram::Space::Pin pin;
};

struct DirEntry {
  std::string_view name;
  Ino ino;
  uint32_t type;    // DT_*
  uint64_t cookie;  // to go on behind this entry
};

struct FsStats {
  uint64_t pages = 0;
  uint64_t free_pages = 0;
  uint64_t inodes = 0;  // as many as there may be
  uint64_t used_inodes = 0;
  uint64_t free_inodes = 0;
};

}  // namespace pkramfs

#endif  // FS_TYPES_H_
