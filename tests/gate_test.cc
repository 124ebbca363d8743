#include "fs/gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace pkramfs {
namespace {

// Nobody is inside while it is closed or at rest; a thread that enters later sees what was done
// then.  (What they look at is no atomic: the thread sanitizer looks, too.)
TEST(GateTest, NobodyIsInsideWhenItIsShut) {
  Gate gate;
  constexpr int kPassers = 4, kRounds = 2000;
  std::atomic<int> inside{0}, wrong{0}, shutting{2};
  uint64_t changes = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kPassers; ++i) {
    threads.emplace_back([&] {
      uint64_t seen = 0;
      while (shutting > 0) {
        const Gate::Pass pass(&gate);
        ++inside;
        wrong += changes < seen;
        seen = changes;
        --inside;
      }
    });
  }
  threads.emplace_back([&] {
    while (shutting > 0) {
      if (!gate.TryEnter()) continue;
      ++inside;
      wrong += changes > 2 * kRounds;
      --inside;
      gate.Leave();
    }
  });
  const auto change = [&] {
    wrong += inside != 0;
    ++changes;
    wrong += inside != 0;
  };
  threads.emplace_back([&] {
    for (int i = 0; i < kRounds; ++i) gate.AtRest(change);
    --shutting;
  });
  threads.emplace_back([&] {
    for (int i = 0; i < kRounds; ++i) {
      EXPECT_TRUE(gate.Close());
      EXPECT_FALSE(gate.Close());
      // The other one may be at rest now.
      gate.AtRest(change);
      EXPECT_FALSE(gate.TryEnter());
      EXPECT_TRUE(gate.Open());
    }
    --shutting;
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(changes, 2u * kRounds);
  EXPECT_FALSE(gate.Open());
}

TEST(GateTest, OnceAbandonedNobodyWaits) {
  Gate gate;
  std::atomic<bool> abandoned{false};
  gate.set_abandoned([&] { return abandoned.load(); });
  ASSERT_TRUE(gate.Close());
  std::thread passer([&] { const Gate::Pass pass(&gate); });
  abandoned = true;
  passer.join();
  EXPECT_FALSE(gate.TryEnter());
}

}  // namespace
}  // namespace pkramfs
