#include "mount/region/file_clock.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <optional>

namespace pkramfs {
namespace {

Timestamp ToTimestamp(const timespec& t) { return {t.tv_sec, static_cast<uint32_t>(t.tv_nsec)}; }

// Touches a file on a filesystem of the kernel's own, and asks for its time.  There is only one
// such file: the kernel could give two files the same time, and two changes would seem to be one.
std::optional<Timestamp> Touch() {
  static const int file = memfd_create("pkramfs-clock", MFD_CLOEXEC);
  constexpr timespec kTouch[] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  struct stat st;
  if (file < 0 || futimens(file, kTouch) != 0 || fstat(file, &st) != 0) return std::nullopt;
  return ToTimestamp(st.st_ctim);
}

// Whether the kernel's clock of files goes forward with each tick only, so that reading it costs no
// call.  A kernel with multigrain times (6.13 and later) gives a file whose time was asked for a
// new time at each change.  A kernel without gives the same time until the next tick.
bool GoesByTheTick() {
  constexpr int kTries = 16;  // a tick may come between two
  for (int i = 0; i < kTries; ++i) {
    if (Touch() == Touch()) return true;
  }
  return false;
}

}  // namespace

Timestamp FileTime() {
  static const bool goes_by_the_tick = GoesByTheTick();
  if (!goes_by_the_tick) {
    if (const std::optional<Timestamp> now = Touch()) return *now;
  }
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return ToTimestamp(now);
}

}  // namespace pkramfs
