// A small number of each thread, by which threads spread over words that would else be everybody's.
#ifndef PKRAM_THREAD_NUMBER_H_
#define PKRAM_THREAD_NUMBER_H_

#include <atomic>
#include <cstddef>

namespace pkram {

inline size_t ThreadNumber() {
  static std::atomic<size_t> threads{0};
  thread_local const size_t number = threads.fetch_add(1, std::memory_order_relaxed);
  return number;
}

}  // namespace pkram

#endif  // PKRAM_THREAD_NUMBER_H_
