#include "pkram/reference_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace pkram {
namespace {

uint64_t Total(const std::vector<PageRun>& runs) {
  uint64_t n = 0;
  for (const PageRun& run : runs) n += run.count;
  return n;
}

TEST(ReferenceMap, ACopyInOnePieceIsOneRunHoweverItWasFound) {
  ReferenceMap map;
  for (uint64_t i = 0; i < 100; i += 2) map.Add({Pfn(1000 + i * 510), 510});
  EXPECT_EQ(map.runs(), 50u);
  for (uint64_t i = 1; i < 100; i += 2) map.Add({Pfn(1000 + i * 510), 510});
  EXPECT_EQ(map.runs(), 1u);
  std::vector<PageRun> last;
  map.Drop({Pfn(1000), 100 * 510}, &last);
  EXPECT_TRUE(last.empty());
  EXPECT_TRUE(map.empty());
}

TEST(ReferenceMap, TheLastReferenceIsTold) {
  ReferenceMap map;
  map.Add({Pfn(10), 10});
  map.Add({Pfn(15), 1});
  std::vector<PageRun> last;
  map.Drop({Pfn(5), 20}, &last);  // 5..9 and 20..24 had one
  EXPECT_EQ(Total(last), 10u);
  EXPECT_FALSE(map.Shared(Pfn(14)));
  EXPECT_TRUE(map.Shared(Pfn(15)));
  EXPECT_FALSE(map.Shared(Pfn(16)));
}

TEST(ReferenceMap, RandomChangesMatchACountPerPage) {
  constexpr uint64_t kPages = 300;
  std::mt19937_64 random(7);
  ReferenceMap map;
  std::map<uint64_t, uint64_t> count;  // of references
  for (uint64_t p = 1; p < kPages; ++p) count[p] = 1;
#ifdef __clang__
  constexpr int kSteps = 4000;  // its sanitizers take ten times as long
#else
  constexpr int kSteps = 20000;
#endif
  for (int step = 0; step < kSteps; ++step) {
    const uint64_t first = 1 + random() % (kPages - 1);
    const PageRun run{Pfn(first), 1 + random() % std::min<uint64_t>(40, kPages - first)};
    if (random() % 2 == 0) {
      map.Add(run);
      for (uint64_t i = 0; i < run.count; ++i) ++count[first + i];
    } else {
      std::vector<PageRun> last;
      map.Drop(run, &last);
      std::map<uint64_t, bool> told;
      for (const PageRun& r : last) {
        for (uint64_t i = 0; i < r.count; ++i)
          EXPECT_TRUE(told.emplace(r.first.value() + i, true).second);
      }
      for (uint64_t i = 0; i < run.count; ++i) {
        uint64_t& n = count[first + i];
        EXPECT_EQ(told.contains(first + i), n == 1) << first + i;
        n = std::max<uint64_t>(1, n - 1);  // somebody takes it again
      }
    }
    uint64_t runs = 0, before = 1;
    for (uint64_t p = 1; p < kPages; ++p) {
      ASSERT_EQ(map.Shared(Pfn(p)), count[p] > 1) << "page " << p << ", step " << step;
      runs += count[p] > 1 && count[p] != before;
      before = count[p];
    }
    ASSERT_EQ(map.runs(), runs);
  }
}

}  // namespace
}  // namespace pkram
