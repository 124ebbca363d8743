// For what comes about by itself, as a test cannot say when.
#ifndef TESTS_EVENTUALLY_H_
#define TESTS_EVENTUALLY_H_

#include <chrono>
#include <thread>

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

}  // namespace pkramfs

#endif  // TESTS_EVENTUALLY_H_
