// For what comes about by itself, as a test cannot say when.
#ifndef TESTS_EVENTUALLY_H_
#define TESTS_EVENTUALLY_H_

#include <algorithm>
#include <chrono>
#include <thread>

#include "mount/region/file_clock.h"

namespace pkramfs {

// Whether it comes to be true, within minutes: others may have the processor meanwhile.  It looks
// again soon at first, and more and more seldom.
template <typename Condition>
bool Eventually(Condition is_true) {
  using std::chrono::microseconds;
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(4);
  for (microseconds pause(100); std::chrono::steady_clock::now() < end;
       pause = std::min(2 * pause, microseconds(10000))) {
    if (is_true()) return true;
    std::this_thread::sleep_for(pause);
  }
  return is_true();
}

// Until what is changed from now on has a later time than what was changed before.
inline void WaitForTheFileClock() {
  const Timestamp before = FileTime();
  Eventually([&] { return FileTime() > before; });
}

}  // namespace pkramfs

#endif  // TESTS_EVENTUALLY_H_
