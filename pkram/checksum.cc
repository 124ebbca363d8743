#include "pkram/checksum.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace pkram {

uint32_t Crc32c(const void* data, size_t size, uint32_t crc) {
  // ISA-L takes an int and a pointer to non-const, and leaves the final
  // inversion that CRC-32C asks for to the caller.
  constexpr size_t kAtOnce = size_t{1} << 30;
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(data));
  crc = ~crc;
  while (size > 0) {
    const size_t now = std::min(size, kAtOnce);
    crc = crc32_iscsi(bytes, static_cast<int>(now), crc);
    bytes += now;
    size -= now;
  }
  return ~crc;
}

}  // namespace pkram
