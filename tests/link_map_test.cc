#include "pkram/link_map.h"

#include <map>
#include <random>

#include "tests/region_fixture.h"

namespace pkram {
namespace {

class LinkMapTest : public testing::TestWithParam<LinkMap::Short> {
 protected:
  void SetUp() override {
    FormatRegion(&file_, 8192);
    region_ = OpenRegion(file_).value();
    const Pfn object = region_->space().AllocateMetadata().value();
    head_ = &region_->mapping().At<format::Object>(object)->header.pages;
    map_ = std::make_unique<LinkMap>(region_.get(), head_, GetParam());
  }
  void Set(uint64_t index, uint64_t page) {
    region_->journal().Publish(map_->Word(index).value(), format::MakeEntry(Pfn(page)));
  }
  static uint64_t PageOf(uint64_t entry) {
    return format::IsPage(entry) ? format::EntryPfn(entry).value() : 0;
  }

  MemoryFile file_;
  std::unique_ptr<Region> region_;
  const uint64_t* head_ = nullptr;
  std::unique_ptr<LinkMap> map_;
};

TEST_P(LinkMapTest, AnEmptyListHasNothing) {
  EXPECT_EQ(map_->Get(0), 0u);
  EXPECT_EQ(map_->Get(1 << 30), 0u);
  EXPECT_EQ(map_->end(), 0u);
}

TEST_P(LinkMapTest, EntriesBehindAGapFollowHoles) {
  Set(5, 100);
  EXPECT_TRUE(format::IsHole(map_->Get(4)));
  EXPECT_EQ(map_->Get(6), 0u);
  Set(9, 101);
  EXPECT_TRUE(format::IsHole(map_->Get(8)));
  EXPECT_EQ(map_->end(), 10u);
  // An absent link is a hole of its own.
  Set(3 * 510 + 2, 102);
  EXPECT_EQ(map_->links(), 2u);
  EXPECT_EQ(map_->Get(600), 0u);
  EXPECT_EQ(map_->Get(500), 0u);
  EXPECT_EQ(map_->FindHole(9, 2000), 10u);
  EXPECT_EQ(map_->FindPage(10, 2000), 3u * 510 + 2);
}

TEST_P(LinkMapTest, AShortLinkGivesWayToAWholeOne) {
  const uint64_t before = region_->space().counts().free;
  const uint64_t own = GetParam() == LinkMap::Short::kAllowed ? 0 : 1;
  for (uint64_t i = 0; i < 488; ++i) Set(i, 100 + i);
  EXPECT_EQ(before - region_->space().counts().free, own);
  EXPECT_EQ(format::IsShort(*head_), own == 0);
  EXPECT_EQ(map_->FindHole(0, 488), 488u);
  EXPECT_EQ(map_->FindHole(0, 1000), 488u);
  EXPECT_EQ(map_->CountInOrder(0, 1000, LinkMap::Sharing::kNone), 488u);
  Set(600, 99);
  EXPECT_EQ(before - region_->space().counts().free, own + 1);
  Set(488, 588);
  EXPECT_FALSE(format::IsShort(*head_));
  EXPECT_EQ(before - region_->space().counts().free, 2u);
  EXPECT_EQ(map_->CountInOrder(0, 1000, LinkMap::Sharing::kNone), 489u);
  EXPECT_EQ(PageOf(map_->Get(600)), 99u);
  const LinkMap adopted(region_.get(), head_);
  EXPECT_EQ(adopted.end(), 601u);
  EXPECT_EQ(adopted.FindHole(0, 1000), 489u);
}

TEST_P(LinkMapTest, AListThatIsCutOffBeginsAsItDidAtFirst) {
  for (int round = 0; round < 2; ++round) {
    Set(3, 100);
    EXPECT_EQ(format::IsShort(*head_), GetParam() == LinkMap::Short::kAllowed);
    EXPECT_TRUE(format::IsHole(map_->Get(2)));
    std::vector<PageRun> runs;
    EXPECT_EQ(map_->Truncate(0, &runs), 1u);
    EXPECT_EQ(*head_, 0u);
    EXPECT_EQ(map_->end(), 0u);
  }
}

TEST_P(LinkMapTest, RandomEntriesMatchAMapAndAreAdoptedAgain) {
  std::mt19937_64 random(3);
  std::map<uint64_t, uint64_t> model;
  for (int step = 0; step < 3000; ++step) {
    const uint64_t index = random() % 20000;
    if (random() % 200 == 0) {
      std::vector<PageRun> runs;
      const uint64_t gone = map_->Truncate(index, &runs);
      uint64_t freed = 0;
      for (const PageRun& run : runs) freed += run.count;
      const auto cut = model.lower_bound(index);
      EXPECT_EQ(gone, static_cast<uint64_t>(std::distance(cut, model.end())));
      EXPECT_GE(freed, gone);
      model.erase(cut, model.end());
    } else {
      Set(index, 1000 + static_cast<uint64_t>(step));
      model[index] = 1000 + static_cast<uint64_t>(step);
    }
    if (step % 300 == 0) {
      const LinkMap adopted(region_.get(), head_);
      std::map<uint64_t, uint64_t> seen;
      adopted.ForEachPage(0, ~uint64_t{0}, [&](uint64_t i, uint64_t e) { seen[i] = PageOf(e); });
      ASSERT_EQ(seen, model);
      for (int probe = 0; probe < 100; ++probe) {
        const uint64_t i = random() % 20000;
        ASSERT_EQ(PageOf(map_->Get(i)), model.contains(i) ? model[i] : 0);
        ASSERT_EQ(PageOf(adopted.Get(i)), PageOf(map_->Get(i)));
      }
    }
  }
}

TEST_P(LinkMapTest, ForEachPageKeepsToItsBounds) {
  for (uint64_t i = 0; i < 1200; i += 3) Set(i, 5000 + i);
  std::vector<uint64_t> seen;
  map_->ForEachPage(507, 1023, [&](uint64_t i, uint64_t) { seen.push_back(i); });
  EXPECT_EQ(seen.front(), 507u);
  EXPECT_EQ(seen.back(), 1020u);
  EXPECT_EQ(seen.size(), 172u);
}

TEST_P(LinkMapTest, AStrayStoreFaults) {
  Set(0, 100);
  auto* const stray = const_cast<uint64_t*>(map_->ExistingWord(0));
  EXPECT_DEATH(*stray = 1, "");
}

INSTANTIATE_TEST_SUITE_P(Short, LinkMapTest,
                         testing::Values(LinkMap::Short::kNever, LinkMap::Short::kAllowed),
                         [](const auto& param) {
                           return param.param == LinkMap::Short::kNever ? "Never" : "Allowed";
                         });

}  // namespace
}  // namespace pkram
