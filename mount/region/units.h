// Sizes and times, as people read them.
#ifndef MOUNT_REGION_UNITS_H_
#define MOUNT_REGION_UNITS_H_

#include <cstdint>
#include <string>

namespace pkramfs {

// "1536 MiB", with as many digits as tell a size from one that is nearly the same.
std::string Human(uint64_t bytes);

// "640 B", "12.5 MiB": three digits.
std::string Rounded(uint64_t bytes);

// "3 min", of seconds.
std::string Duration(uint64_t seconds);

}  // namespace pkramfs

#endif  // MOUNT_REGION_UNITS_H_
