// Seals: one checksum word per structure, set at a clean close and cleared
// before the structure's first change after that.  A seal that fits says that nothing has changed
// the structure while no server had the region open.
#ifndef PKRAM_SEAL_H_
#define PKRAM_SEAL_H_

#include <cstddef>

#include "pkram/checksum.h"
#include "pkram/format.h"

namespace pkram {

// Accumulates what one seal covers, in the order of the walk:
//   super block: its changing words
//   node:        its fields, then its list's links
//   object:      its fields, then the links of pages, the links of bytes, each
//                followed by the bytes of the pages if they are metadata
class SealSum {
 public:
  void Add(const void* data, size_t size) { crc_ = Crc32c(data, size, crc_); }
  void AddSuper(const format::SuperBlock& super) {
    Add(&super.nodes, sizeof(super.nodes) + sizeof(super.mount_epoch));
    if (super.limit != 0) Add(&super.limit, sizeof(super.limit));
  }
  void AddNode(const format::Node& node) {
    Add(&node.next, 3 * sizeof(uint64_t));
    Add(&node.client, sizeof(node.client) + sizeof(node.name));
  }
  // REQUIRES: client_bytes is in bounds.
  void AddObject(const format::Object& object) {
    Add(&object.header.pages, 4 * sizeof(uint64_t));
    Add(&object.header.client_bytes, 2 * sizeof(uint64_t));
    Add(object.client, object.header.client_bytes);
  }
  uint64_t Word() const { return uint64_t{crc_} << 32 | format::kSealed; }

 private:
  uint32_t crc_ = 0;
};

}  // namespace pkram

#endif  // PKRAM_SEAL_H_
