#include "pkram/link_map.h"

#include <map>
#include <random>

#include "tests/region_fixture.h"

namespace pkram {
namespace {

class LinkMapTest : public testing::Test {
 protected:
  void SetUp() override {
    FormatRegion(&file_, 8192);
    region_ = OpenRegion(file_).value();
    const Pfn object = region_->space().AllocateMetadata().value();
    head_ = &region_->mapping().At<format::Object>(object)->header.pages;
    map_ = std::make_unique<LinkMap>(region_.get(), head_);
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

TEST_F(LinkMapTest, AnEmptyListHasNothing) {
  EXPECT_EQ(map_->Get(0), 0u);
  EXPECT_EQ(map_->Get(1 << 30), 0u);
  EXPECT_EQ(map_->end(), 0u);
}

TEST_F(LinkMapTest, EntriesBehindAGapFollowHoles) {
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
}

TEST_F(LinkMapTest, RandomEntriesMatchAMapAndAreAdoptedAgain) {
  std::mt19937_64 random(3);
  std::map<uint64_t, uint64_t> model;
  for (int step = 0; step < 3000; ++step) {
    const uint64_t index = random() % 20000;
    if (random() % 200 == 0) {
      std::vector<PageRun> runs;
      map_->Truncate(index, &runs);
      uint64_t freed = 0;
      for (const PageRun& run : runs) freed += run.count;
      const auto cut = model.lower_bound(index);
      EXPECT_GE(freed, static_cast<uint64_t>(std::distance(cut, model.end())));
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

TEST_F(LinkMapTest, ForEachPageKeepsToItsBounds) {
  for (uint64_t i = 0; i < 1200; i += 3) Set(i, 5000 + i);
  std::vector<uint64_t> seen;
  map_->ForEachPage(507, 1023, [&](uint64_t i, uint64_t) { seen.push_back(i); });
  EXPECT_EQ(seen.front(), 507u);
  EXPECT_EQ(seen.back(), 1020u);
  EXPECT_EQ(seen.size(), 172u);
}

TEST_F(LinkMapTest, AStrayStoreFaults) {
  Set(0, 100);
  auto* const stray = const_cast<uint64_t*>(map_->ExistingWord(0));
  EXPECT_DEATH(*stray = 1, "");
}

}  // namespace
}  // namespace pkram
