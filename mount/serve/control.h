// What pkramctl asks of a running daemon, through the mount: ioctls on its
// root, unless something else is said.
#ifndef MOUNT_SERVE_CONTROL_H_
#define MOUNT_SERVE_CONTROL_H_

#include <sys/ioctl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pkramfs {

// A JSON document and its length.
struct ControlReply {
  uint32_t size;
  char json[8188];
};
static_assert(sizeof(ControlReply) == 8192);
// Any user may serve a mount: the length is no more than there is.
inline std::string_view JsonOf(const ControlReply& reply) {
  return {reply.json, std::min<size_t>(reply.size, sizeof(reply.json))};
}

inline constexpr uint64_t kControlAsItIs = ~uint64_t{0};

struct ControlResize {
  uint64_t size;    // in: bytes of contents, or kControlAsItIs
  uint64_t inodes;  // in: how many at most, 0 for no limit of their own, or kControlAsItIs
  char error[496];  // out: why nothing was changed, or ""; or a warning, which begins so
};
static_assert(sizeof(ControlResize) == 512);
inline constexpr char kControlWarning[] = "warning: ";

struct ControlUpgrade {
  char program[4096];  // in: path, as the daemon sees it
  char error[1024];    // out: why it still is as it was, or ""
};
static_assert(sizeof(ControlUpgrade) == 5120);

struct ControlLock {
  uint64_t locks;   // in: whether the region is kept from being swapped out
  char error[504];  // out: why it is as it was, or ""
};
static_assert(sizeof(ControlLock) == 512);

struct ControlCheckpoint {
  char file[4096];   // in: path of the image, as the daemon sees it
  uint64_t pages;    // out: in the image
  uint64_t written;  // out: of these
  uint64_t rest_us;  // out: how long nobody could change anything
  uint64_t took_us;  // out
  char error[992];   // out: why there is no new image, or ""
};
static_assert(sizeof(ControlCheckpoint) == 5120);

// --- For bulk work by the owner of a mount (docs/bulk.md) ---

// Lends pages of the region's file, to build in.  The caller locks them next (pkram/page_locks.h).
struct ControlLend {
  uint64_t want;    // in: how many, at most
  uint64_t first;   // out: pages from this one on
  uint64_t count;   // out
  char error[488];  // out: why there are none, or ""
};
static_assert(sizeof(ControlLend) == 512);

// Asks whether pages that the caller has locked are lent to it, or held for it.
struct ControlKeep {
  uint64_t first;
  uint64_t count;
  uint64_t reading;     // in: held, not lent
  uint64_t generation;  // in: of the ControlHold that named them
  uint64_t kept;        // out: 0 or 1; 0: begin anew
  uint64_t device;      // out: of the region's file, st_dev and
  uint64_t inode;       // out: st_ino: a lock on another file is none
};
static_assert(sizeof(ControlKeep) == 56);

// Finds the pages of a file, for the caller to lock and to read.  To be asked on the file itself.
// EMFILE when kControlMostHeld pieces of the region are held.
struct ControlHold {
  uint64_t offset;      // in: of a page; out: where to go on, or the end
  uint64_t end;         // in: of what is wanted
  uint64_t size;        // out: of the file
  uint64_t count;       // out: pieces
  uint64_t generation;  // out: for ControlKeep
  struct Piece {
    uint64_t offset;  // in the file
    uint64_t first;   // page of the region
    uint64_t pages;
  } piece[600];
};
static_assert(sizeof(ControlHold) == 14440);
inline constexpr uint64_t kControlMostHeld = 4096;

// Holds pages that the caller has locked for reading, so that it may read them from now on.  To be
// asked while the region rests for the caller (ControlRest).
struct ControlHoldPages {
  uint64_t count;
  uint64_t kept;  // out: 0 or 1; 0: it does not rest, or some are not locked
  struct Run {
    uint64_t first;
    uint64_t pages;
  } run[900];
};
static_assert(sizeof(ControlHoldPages) == 14416);

// Lets the region rest: nothing changes in it until the caller has unlocked a page that was lent to
// it. The answer comes then.  `token` stands at the beginning of that page as soon as the rest has
// begun.
struct ControlRest {
  uint64_t page;
  uint64_t token;  // in
};

// Proves and adopts a tree that was built in lent pages.  From then on, and until the caller
// unlocks the tree's node, a secret name leads to it in the directory that this is asked on.
struct ControlStage {
  uint64_t node;    // in: its page
  uint64_t links;   // in: of its table
  uint64_t inodes;  // in
  uint64_t token;   // in: the name is made of it; by chance, so that no two are the same
  char name[256];   // out
  char error[992];  // out: why it is not there, or ""
};
static_assert(sizeof(ControlStage) == 1280);

// Deletes what has that name now: the tree, or what it was exchanged for.
struct ControlDiscard {
  char name[256];
};

inline constexpr unsigned kControlStatistics = _IOR('P', 1, ControlReply);
// Only root and the user who mounted may ask for these.  Others get EPERM.
inline constexpr unsigned kControlResize = _IOWR('P', 2, ControlResize);
inline constexpr unsigned kControlFreeze = _IO('P', 3);  // EBUSY when it is frozen
inline constexpr unsigned kControlThaw = _IO('P', 4);    // EINVAL when it is not
inline constexpr unsigned kControlUpgrade = _IOWR('P', 5, ControlUpgrade);
inline constexpr unsigned kControlLock = _IOWR('P', 6, ControlLock);
inline constexpr unsigned kControlCheckpoint = _IOWR('P', 7, ControlCheckpoint);
inline constexpr unsigned kControlLend = _IOWR('P', 8, ControlLend);
inline constexpr unsigned kControlKeep = _IOWR('P', 9, ControlKeep);
inline constexpr unsigned kControlStage = _IOWR('P', 10, ControlStage);
inline constexpr unsigned kControlHold = _IOWR('P', 11, ControlHold);
inline constexpr unsigned kControlHoldPages = _IOWR('P', 12, ControlHoldPages);
inline constexpr unsigned kControlRest = _IOWR('P', 13, ControlRest);
inline constexpr unsigned kControlDiscard = _IOWR('P', 14, ControlDiscard);

}  // namespace pkramfs

#endif  // MOUNT_SERVE_CONTROL_H_
