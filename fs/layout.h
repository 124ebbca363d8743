// The filesystem's own bytes in a region: what stands in an object's client part
// and in the pages of a directory.  docs/format.md describes every field.
#ifndef FS_LAYOUT_H_
#define FS_LAYOUT_H_

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "pkram/format.h"
#include "pkram/types.h"

namespace pkramfs {

// Node.client[0] and [1] of a live node that is a filesystem.
inline constexpr uint64_t kFsMagic = 0x0073666d61726b70;  // "pkramfs"
inline constexpr uint64_t kFsVersion = 1;

// A slot of the inode table whose generations are used up is never used again.
inline constexpr uint64_t kMaxGeneration = 0xffffffff;

inline constexpr uint64_t kInlineBytes = 3920;

// An inode: the client part of its object's page.
struct InodeRecord {
  uint64_t mode_nlink;        // mode | nlink << 32
  uint64_t owner;             // uid | gid << 32
  uint64_t size;              // bytes; of a directory 40 + 20 per entry
  uint64_t rdev;              // major << 32 | minor
  uint64_t generation_flags;  // generation | flags << 32
  uint64_t parent;            // inode number; directories only, the root's is its own
  uint64_t seconds[4];        // signed; kAtime, kMtime, kCtime, kBtime
  uint64_t nanos[2];          // atime | mtime << 32, ctime | btime << 32
  uint64_t reserved[2];
  uint8_t inline_area[kInlineBytes];
};
static_assert(sizeof(InodeRecord) == pkram::format::kObjectClientBytes);
// A short link of a file's pages stands where its contents stand while they are inline.
static_assert(offsetof(pkram::format::Object, client) + offsetof(InodeRecord, inline_area) ==
              pkram::format::kShortLinkAt);
static_assert(std::has_unique_object_representations_v<InodeRecord>);

enum TimeIndex { kAtime, kMtime, kCtime, kBtime };

// Where a tree that was built elsewhere is staged (Filesystem::StageTree).  The directory that
// holds it has no links, and notes this in fields that it does not need otherwise.
struct StagedAt {
  pkram::Pfn node;     // whose builder has it locked; Pfn(): nowhere
  uint64_t parent;     // inode number
  uint64_t token = 0;  // of the secret name

  static StagedAt Of(const InodeRecord& record) {
    return {pkram::Pfn(record.rdev), record.seconds[kAtime], record.seconds[kBtime]};
  }
  void NoteIn(InodeRecord* record) const {
    record->rdev = node.value();
    record->seconds[kAtime] = parent;
    record->seconds[kBtime] = token;
  }
};

// InodeRecord flags.
inline constexpr uint32_t kInlineData = 1;  // contents stand in inline_area
inline constexpr uint32_t kLinkable = 2;    // was made without a name, and has had none yet

// --- Directories ----------------------------------------------------------------
// An array of 64-byte slots: block 0 is the inode's inline area, block b > 0 is
// page b - 1.  A slot number is block * 64 + place.  An entry takes consecutive
// slots of one block: its header word, then its name.  The header word of free
// slots says how many they are; 0 says "the rest of the block".
inline constexpr uint64_t kSlotBytes = 64;
inline constexpr uint64_t kBlockSlots = pkram::kPageSize / kSlotBytes;
inline constexpr uint64_t kInlineSlots = kInlineBytes / kSlotBytes;

constexpr uint64_t SlotsIn(uint64_t block) { return block == 0 ? kInlineSlots : kBlockSlots; }

//   live:  1 << 63 | type << 48 | name length << 40 | inode number
//   free:  run length, in slots
constexpr uint64_t kLiveSlot = uint64_t{1} << 63;
constexpr uint64_t MakeLive(uint64_t ino, uint32_t type, size_t name_len) {
  return kLiveSlot | uint64_t{type} << 48 | uint64_t{name_len} << 40 | ino;
}
constexpr bool IsLive(uint64_t header) { return (header & kLiveSlot) != 0; }
constexpr uint64_t SlotIno(uint64_t header) { return header & ((uint64_t{1} << 40) - 1); }
constexpr size_t SlotNameLen(uint64_t header) { return header >> 40 & 0xff; }
constexpr uint32_t SlotType(uint64_t header) { return header >> 48 & 0xf; }
constexpr uint64_t SlotsFor(size_t name_len) {
  return (8 + name_len + kSlotBytes - 1) / kSlotBytes;
}

struct Slot {
  uint64_t header;
  char name[kSlotBytes - 8];
};
static_assert(sizeof(Slot) == kSlotBytes);

inline std::string_view SlotName(const Slot& slot) { return {slot.name, SlotNameLen(slot.header)}; }

constexpr uint64_t DirectorySize(uint64_t entries) { return 40 + 20 * entries; }

// --- Extended attributes ------------------------------------------------------------
// The object's byte stream: entries one behind the other, in no order.
struct XattrHeader {
  uint32_t name_len;  // 0: the attribute was taken away
  uint32_t value_len;
  // name, value
};
static_assert(sizeof(XattrHeader) == 8);

}  // namespace pkramfs

#endif  // FS_LAYOUT_H_
