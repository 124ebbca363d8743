// The values that go into the filesystem's calls and come out of them.
#ifndef FS_TYPES_H_
#define FS_TYPES_H_

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pkram/receipt.h"
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

enum class Membership { kNo, kYes, kUnknown };

// Who calls, and when.
struct Context {
  uid_t uid = 0;
  gid_t gid = 0;
  Timestamp now;
  uint32_t umask = 0;  // for what is made
  // False: a change of contents sets no times, because a SetAttr follows that does.
  bool sets_times = true;
  // Where the request's outcome is noted, or null.  A request whose receipt is done was executed
  // before: it is not executed again, and is answered from the receipt.
  pkram::Receipt* receipt = nullptr;
  uint64_t done = 0;  // bytes, by earlier steps of the request
  // Questions that are asked rarely and are expensive to answer.  The defaults answer from `uid`
  // and `gid`.
  std::function<bool()> is_root{};
  std::function<bool()> keeps_set_id{};  // set-id bits of what it writes to stay: CAP_FSETID
  std::function<Membership(gid_t)> has_group{};  // as one of the caller's groups
};

// The outcome of a request that was executed before: an inode's number, bytes, or 0.  Nothing if it
// was not executed.
inline std::optional<uint64_t> Outcome(const Context& context) {
  if (context.receipt == nullptr || context.receipt->done == 0) return std::nullopt;
  return context.receipt->answer;
}

inline bool IsRoot(const Context& context) {
  return context.is_root ? context.is_root() : context.uid == 0;
}

inline bool KeepsSetId(const Context& context) {
  return context.keeps_set_id ? context.keeps_set_id() : context.uid == 0;
}

// A caller that keeps set-id bits counts as a member of all groups.
inline Membership InGroup(const Context& context, gid_t group) {
  if (context.gid == group || KeepsSetId(context)) return Membership::kYes;
  return context.has_group ? context.has_group(group) : Membership::kNo;
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

// Pages of a file that are held for a reader (pkram/loans.h), from `offset` of the file on. Between
// pieces the file has holes.
struct HeldPages {
  struct Piece {
    uint64_t offset;
    pkram::PageRun run;
  };
  uint64_t size = 0;  // of the file
  uint64_t next = 0;  // where to go on, because there were too many pieces; or the end
  std::vector<Piece> pieces{};
};

// The attributes that setattr changes.  The others stay.
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

// The answer to a read: where the bytes are.  They do not change as long as this lives, and no lock
// is held meanwhile.
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
