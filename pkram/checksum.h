// CRC-32C, the only checksum of the format.
#ifndef PKRAM_CHECKSUM_H_
#define PKRAM_CHECKSUM_H_

#include <cstddef>
#include <cstdint>

namespace pkram {

// Continues `crc` (0 to start) over `size` bytes: Crc32c(a+b) = Crc32c(b, Crc32c(a)).
uint32_t Crc32c(const void* data, size_t size, uint32_t crc = 0);

}  // namespace pkram

#endif  // PKRAM_CHECKSUM_H_
