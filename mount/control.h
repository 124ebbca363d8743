// What pkramctl asks a running daemon, through the mount: an ioctl on its root.
#ifndef MOUNT_CONTROL_H_
#define MOUNT_CONTROL_H_

#include <sys/ioctl.h>

#include <cstdint>

namespace pkramfs {

// A JSON document and its length.
struct ControlReply {
  uint32_t size;
  char json[8188];
};
static_assert(sizeof(ControlReply) == 8192);

inline constexpr unsigned kControlStatistics = _IOR('P', 1, ControlReply);

}  // namespace pkramfs

#endif  // MOUNT_CONTROL_H_
