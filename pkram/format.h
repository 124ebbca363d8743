// The bytes of a region.  This header is a contract: docs/format.md describes
// every field, and any change of layout needs a new version there and here.
//
//   super block -> nodes (by name)
//                  node -> link list -> objects
//                          object -> link list -> pages
//
// All integers are little-endian.  Every field that changes while a region is
// in use is an aligned 8-byte word, because a word is what Publish and
// Transaction store.  A pointer is an *entry* (below) or zero.
#ifndef PKRAM_FORMAT_H_
#define PKRAM_FORMAT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "pkram/types.h"

namespace pkram::format {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian and is mapped as it stands");

inline constexpr uint64_t kMagic = 0x31736d61726b7021;  // "!pkrams1"
inline constexpr uint32_t kVersion = 1;

// Incompatible features: an unknown bit forbids to open.  Read-only-compatible
// ones: an unknown bit forbids to write.  Compatible ones forbid nothing.
inline constexpr uint64_t kShortLists = 1;  // objects may hold a short link
inline constexpr uint64_t kKnownIncompat = kShortLists;
inline constexpr uint64_t kKnownReadOnlyCompat = 0;

// --- Entry: one word that points at a page or says that there is none. --------
//
//   63            12 11      5 4     0
//   | pfn           | flags   | order |
//
// Zero is "unused": at the end of a link no entry follows.  A hole carries the
// flag kHole; what stands in its pfn bits is the list owner's (the inode table
// keeps a slot's next generation there).  A page of a live list of data may be
// referred to by several entries, of one object or of many, if each of them carries
// the flag kShared; an entry with that flag may as well be the only one.  An entry
// with kShort leads to a short link (below), one with kToShorten to one that will be.
inline constexpr uint64_t kOrderBits = 5;
inline constexpr uint64_t kOrderMask = (1u << kOrderBits) - 1;
inline constexpr uint64_t kFlagsMask = 0x7f;
inline constexpr uint64_t kHole = 1;
inline constexpr uint64_t kShared = 2;
inline constexpr uint64_t kShort = 4;
inline constexpr uint64_t kToShorten = 8;
inline constexpr uint64_t kMaxOrder = 18;  // 1 GiB

constexpr uint64_t MakeEntry(Pfn pfn, uint64_t flags = 0, uint64_t order = 0) {
  return pfn.value() << 12 | flags << kOrderBits | order;
}
constexpr uint64_t MakeShared(uint64_t entry) { return entry | kShared << kOrderBits; }
constexpr uint64_t MakeHole(uint64_t payload = 0) { return MakeEntry(Pfn(payload), kHole); }
constexpr Pfn EntryPfn(uint64_t entry) { return Pfn(entry >> 12); }
constexpr uint64_t EntryFlags(uint64_t entry) { return entry >> kOrderBits & kFlagsMask; }
constexpr uint64_t EntryOrder(uint64_t entry) { return entry & kOrderMask; }
constexpr bool IsHole(uint64_t entry) { return (EntryFlags(entry) & kHole) != 0; }
constexpr bool IsPage(uint64_t entry) { return entry != 0 && !IsHole(entry); }
constexpr bool IsShared(uint64_t entry) { return (EntryFlags(entry) & kShared) != 0; }

// --- Link: one page of entries.  The layout is the kernel series'. ------------
inline constexpr uint64_t kLinkEntries = 510;

struct Link {
  uint64_t next;   // entry: the next link of the list, or 0
  uint64_t index;  // index of the first entry
  uint64_t entry[kLinkEntries];
};
static_assert(sizeof(Link) == kPageSize);
static_assert(offsetof(Link, entry) == 16);

// In a live node the first link of an object's list of pages may stand in the object's own page:
// from here to the page's end, with fewer entries.  It is a *short* link, and the entry in
// ObjectHeader.pages that leads to it is the object's own page with kShort.
inline constexpr uint64_t kShortLinkAt = 176;
inline constexpr uint64_t kShortLinkEntries =
    (kPageSize - kShortLinkAt - offsetof(Link, entry)) / sizeof(uint64_t);  // 488

constexpr uint64_t MakeShort(Pfn object) { return MakeEntry(object, kShort); }
constexpr bool IsShort(uint64_t entry) { return (EntryFlags(entry) & kShort) != 0; }
// The same pointer to a whole link says that the link is about to be made short.  If that is
// interrupted, whoever opens the region for writing goes on with it.
constexpr uint64_t MakeToShorten(uint64_t entry) { return entry | kToShorten << kOrderBits; }
constexpr bool IsToShorten(uint64_t entry) { return (EntryFlags(entry) & kToShorten) != 0; }
// Where the link stands that an entry leads to: bytes from the region's beginning.
constexpr uint64_t LinkOffset(uint64_t entry) {
  return EntryPfn(entry).offset() + (IsShort(entry) ? kShortLinkAt : 0);
}
constexpr uint64_t LinkEntries(uint64_t entry) {
  return IsShort(entry) ? kShortLinkEntries : kLinkEntries;
}

// --- Super block: page 0. -----------------------------------------------------
struct SuperBlock {
  uint64_t magic;
  uint32_t version;
  uint32_t page_size;  // kPageSize
  uint64_t incompat;
  uint64_t ro_compat;
  uint64_t compat;
  uint8_t uuid[16];
  uint64_t page_count;     // size of the region in pages, as it may grow
  uint64_t journal_first;  // pfn of the first journal page
  uint64_t journal_slots;  // one page each
  uint64_t created;        // seconds since 1970
  uint64_t checksum;       // CRC-32C of the bytes before this field
  // Below: words that change while the region is in use.
  uint64_t nodes;        // entry: first node, or 0
  uint64_t mount_epoch;  // raised at each open for writing; lookup counts refer to it
  uint64_t seal;         // of `nodes`, `mount_epoch` and `limit`
  uint64_t limit;        // pages that may be in use, of a region that is to shrink; or 0
  uint8_t reserved[kPageSize - 128];
};
static_assert(sizeof(SuperBlock) == kPageSize);
static_assert(offsetof(SuperBlock, page_count) == 56);
static_assert(offsetof(SuperBlock, checksum) == 88);
static_assert(offsetof(SuperBlock, nodes) == 96);
static_assert(offsetof(SuperBlock, seal) == 112);
static_assert(std::has_unique_object_representations_v<SuperBlock>);

// --- Journal slot: one page. --------------------------------------------------
// A slot is free when `commit` is 0, and committed when it is
// (CRC-32C of store[0..count) << 32 | count).
struct JournalStore {
  uint64_t offset;  // of a word in the region, in bytes, a multiple of 8
  uint64_t value;
};
inline constexpr uint64_t kSlotStores = 255;

struct JournalSlot {
  uint64_t commit;
  uint64_t reserved;
  JournalStore store[kSlotStores];
};
static_assert(sizeof(JournalSlot) == kPageSize);
static_assert(offsetof(JournalSlot, store) == 16);

// The first pages of a region, in order.
inline constexpr uint64_t kJournalFirst = 1;
inline constexpr uint64_t kJournalSlots = 16;
inline constexpr uint64_t kMaxJournalSlots = 64;
inline constexpr uint64_t kMinPages = 64;
inline constexpr uint64_t kMaxPages = uint64_t{1} << 40;  // 4 PiB

// --- Seal: one word, (CRC-32C << 32 | kSealed), or 0. -------------------------
inline constexpr uint64_t kSealed = 1;

// --- Node: one page; a named list of objects. ---------------------------------
inline constexpr uint64_t kNameBytes = 256;  // with the NUL
inline constexpr uint64_t kNodeClientWords = 16;

enum NodeState : uint64_t {
  kSaved = 2,  // a finished stream, write-once
  kLive = 3,   // a live list, owned by a client such as pkramfs
};

struct Node {
  uint64_t next;     // entry: next node, or 0
  uint64_t state;    // NodeState
  uint64_t objects;  // entry: first link of the list of objects, or 0
  uint64_t seal;     // of the fields up to `reserved` but for this one, and the list's links
  uint64_t client[kNodeClientWords];
  char name[kNameBytes];  // NUL-terminated, NUL-padded
  uint8_t reserved[kPageSize - 32 - 8 * kNodeClientWords - kNameBytes];
};
static_assert(sizeof(Node) == kPageSize);
static_assert(offsetof(Node, client) == 32);
static_assert(offsetof(Node, name) == 160);
static_assert(std::has_unique_object_representations_v<Node>);

// --- Object: one page; a list of pages and a stream of bytes. -----------------
struct ObjectHeader {
  uint64_t pages;          // entry: first link of the page list, or 0
  uint64_t bytes;          // entry: first link of the byte stream, or 0
  uint64_t bytes_len;      // length of the byte stream
  uint64_t allocated_end;  // live lists: page indexes at or beyond are garbage
  uint64_t seal;     // of the rest of this page but for lookups, the links, and metadata pages
  uint64_t lookups;  // (mount epoch << 32 | what the user keeps): volatile, outside every checksum
  uint64_t client_bytes;  // how much of `client` means something
  uint64_t flags;         // kPagesAreMetadata, kBytesAreMetadata
};
static_assert(sizeof(ObjectHeader) == 64);

// What the pages (the byte stream) hold is metadata of the client: small, covered
// by the seal, and shown to the client's checks at open.
inline constexpr uint64_t kPagesAreMetadata = 1;
inline constexpr uint64_t kBytesAreMetadata = 2;

// As many bytes a stream of metadata may have; its entries are of order 0.
inline constexpr uint64_t kMaxMetadataBytes = uint64_t{16} << 20;

inline constexpr uint64_t kObjectClientBytes = kPageSize - sizeof(ObjectHeader);

struct Object {
  ObjectHeader header;
  uint8_t client[kObjectClientBytes];
};
static_assert(sizeof(Object) == kPageSize);

// The first word of a region that is being restored from an image, and is none yet.
inline constexpr uint64_t kRestoring = 0x747365726d72706b;  // "kprmrest"

// The last page of an image (see image.h) begins with it.
inline constexpr uint64_t kImageMagic = 0x31676d696d72706b;  // "kprmimg1"
inline constexpr uint32_t kImageVersion = 1;
struct ImageFooter {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  uint64_t pages;         // of the region; as many checksums
  uint64_t pages_in_use;  // that are in the image
  uint64_t seconds;       // since 1970: when the region was like that
  uint64_t id;            // of this image: random
  uint8_t uuid[16];       // the region's
  uint32_t checksum_of_checksums;
  uint32_t checksum;  // of the bytes before it
};
static_assert(sizeof(ImageFooter) == 72);
static_assert(offsetof(ImageFooter, checksum) == 68);

// The first page of a delta (see delta.h) begins with it; its pages follow, then its entries.
inline constexpr uint64_t kDeltaMagic = 0x31746c646d72706b;  // "kprmdlt1"
inline constexpr uint32_t kDeltaVersion = 1;
struct DeltaHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  uint64_t base;       // id of the image that it changes
  uint64_t pages;      // that it holds
  uint64_t entries;    // of these pages, in their order, and of those that go
  ImageFooter footer;  // of the image that comes of it
  uint32_t checksum_of_entries;
  uint32_t checksum;  // of the bytes before it
};
static_assert(sizeof(DeltaHeader) == 120);
static_assert(offsetof(DeltaHeader, checksum) == 116);
struct DeltaEntry {
  uint64_t pfn;
  uint32_t checksum;  // of the page; 0: it is not in the image any more
  uint32_t reserved;
};
static_assert(sizeof(DeltaEntry) == 16);

}  // namespace pkram::format

#endif  // PKRAM_FORMAT_H_
