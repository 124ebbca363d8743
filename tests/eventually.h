// Waiting for an event whose time a test cannot know.
#ifndef TESTS_EVENTUALLY_H_
#define TESTS_EVENTUALLY_H_

#include <algorithm>
#include <chrono>
#include <thread>

#include "mount/region/file_clock.h"

namespace pkramfs {

// Whether `condition` becomes true within minutes.  (Other processes may have the processor
// meanwhile.)  Looks often at first, and more and more seldom.
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

// Waits until a change from now on gets a later time than changes before.
inline void WaitForTheFileClock() {
  const Timestamp before = FileTime();
  Eventually([&] { return FileTime() > before; });
}

}  // namespace pkramfs

#endif  // TESTS_EVENTUALLY_H_
