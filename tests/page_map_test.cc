#include "pkram/page_map.h"

#include <gtest/gtest.h>

namespace pkram {
namespace {

TEST(PageMap, MetadataAndDataComeFromClustersOfTheirOwn) {
  PageMap map(4 * kClusterPages);
  map.FinishClaims();
  const PageRun meta = map.Allocate(Purpose::kMetadata, 1);
  const PageRun data = map.Allocate(Purpose::kData, 1);
  EXPECT_EQ(meta.first.value() / kClusterPages, 0u);
  EXPECT_EQ(data.first.value() / kClusterPages, 1u);
  EXPECT_EQ(map.Allocate(Purpose::kMetadata, 1).first, meta.first + 1);
}

TEST(PageMap, AGoalExtendsTheRunBeforeIt) {
  PageMap map(4 * kClusterPages);
  map.FinishClaims();
  const PageRun first = map.Allocate(Purpose::kData, 32);
  const PageRun second = map.Allocate(Purpose::kData, 32, first.first + first.count);
  EXPECT_EQ(second.first, first.first + 32);
  EXPECT_EQ(second.count, 32u);
}

TEST(PageMap, ALongRunSpansClusters) {
  PageMap map(8 * kClusterPages);
  map.FinishClaims();
  EXPECT_EQ(map.Allocate(Purpose::kData, 3 * kClusterPages).count, 3 * kClusterPages);
}

TEST(PageMap, PurposeIsAPreferenceNeverAReasonToFail) {
  PageMap map(kClusterPages + 7);
  map.FinishClaims();
  uint64_t got = 0;
  EXPECT_EQ(map.Allocate(Purpose::kMetadata, 1).count, 1u);
  for (PageRun run; (run = map.Allocate(Purpose::kData, 100)).count > 0;) got += run.count;
  EXPECT_EQ(got, kClusterPages + 6);
  EXPECT_EQ(map.free_pages(), 0u);
}

TEST(PageMap, ReleasedPagesAreHandedOutAgain) {
  PageMap map(64);
  map.FinishClaims();
  const PageRun all = map.Allocate(Purpose::kData, 64);
  ASSERT_EQ(all.count, 64u);
  map.Release({Pfn(10), 5});
  EXPECT_EQ(map.free_pages(), 5u);
  EXPECT_EQ(map.end(), 64u);
  const PageRun again = map.Allocate(Purpose::kMetadata, 64);
  EXPECT_EQ(again.first, Pfn(10));
  EXPECT_EQ(again.count, 5u);
}

TEST(PageMap, APageIsClaimedOnce) {
  PageMap map(600);
  PageMap::Tally tally;
  EXPECT_EQ(map.Claim({Pfn(513), 1}, Purpose::kMetadata, &tally), 1u);
  EXPECT_EQ(map.Claim({Pfn(513), 1}, Purpose::kData, &tally), 0u);
  map.Add(tally);
  map.FinishClaims();
  EXPECT_EQ(map.end(), 514u);
  EXPECT_EQ(map.NextFree(Pfn(513)).first, Pfn(514));
  EXPECT_EQ(map.Allocate(Purpose::kMetadata, 1).first, Pfn(512));
}

}  // namespace
}  // namespace pkram
