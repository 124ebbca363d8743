#include "pkram/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace pkram {

int Processors() {
  constexpr int kMost = 16;
  cpu_set_t set;
  // This fails if there are more processors than the set has room for.
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return kMost;
  return std::clamp(CPU_COUNT(&set), 1, kMost);
}

void InParallel(int threads, uint64_t pieces, absl::FunctionRef<void(uint64_t)> work) {
  std::atomic<uint64_t> next = 0;
  const auto take_part = [&] {
    for (uint64_t i; (i = next.fetch_add(1)) < pieces;) work(i);
  };
  std::vector<std::thread> others;
  for (uint64_t i = 1; i < std::min(static_cast<uint64_t>(threads), pieces); ++i) {
    try {
      others.emplace_back(take_part);
    } catch (const std::system_error&) {
      break;
    }
  }
  take_part();
  for (std::thread& other : others) other.join();
}

}  // namespace pkram
