// For what comes about by itself, as a test cannot say when.
#ifndef TESTS_EVENTUALLY_H_
#define TESTS_EVENTUALLY_H_

#include <chrono>
#include <thread>

#include "mount/region/file_clock.h"

namespace pkramfs {

// Whether it comes to be true, within minutes: others may have the processor meanwhile.
template <typename Condition>
bool Eventually(Condition is_true) {
  for (int i = 0; i < 20000; ++i) {
    if (is_true()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
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
