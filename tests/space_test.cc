#include "pkram/space.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace pkram {
namespace {

class SpaceTest : public testing::Test {
 protected:
  explicit SpaceTest(uint64_t pages = 256) : kPages(pages) {}
  void SetUp() override {
    const int fd = memfd_create("space", 0);
    backing_ = OpenFdBacking(fd).value();
    close(fd);
    mapping_ = Mapping::Create(backing_.get(), kPages, Mapping::Access::kWritable).value();
    PageMap map(kPages);
    PageMap::Tally tally;
    map.Claim({Pfn(0), 1}, Purpose::kMetadata, &tally);
    map.Add(tally);
    map.FinishClaims();
    space_ = std::make_unique<Space>(backing_.get(), mapping_.get(), std::move(map));
    space_->set_limbo_patience(std::chrono::milliseconds(50));
  }
  uint64_t MemoryPages() {
    struct stat st;
    fstat(backing_->fd(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512 / kPageSize;
  }
  PageRun TakeAll() {
    PageRun all{};
    for (;;) {
      auto run = space_->AllocateData(kPages, Pfn());
      if (!run.ok()) return all;
      if (all.count == 0) all = *run;
    }
  }

  const uint64_t kPages;
  std::unique_ptr<Backing> backing_;
  std::unique_ptr<Mapping> mapping_;
  std::unique_ptr<Space> space_;
};

TEST_F(SpaceTest, MetadataExistsAndIsZero) {
  const Pfn pfn = space_->AllocateMetadata().value();
  for (uint64_t i = 0; i < kPageSize; ++i) EXPECT_EQ(mapping_->At(pfn)[i], std::byte{0});
}

TEST_F(SpaceTest, ARetiredPageIsReusedAtOnceWhenNobodyReads) {
  const PageRun all = TakeAll();
  space_->Retire({{all.first, 3}});
  EXPECT_EQ(space_->counts().limbo, 0u);
  EXPECT_EQ(space_->AllocateData(100, Pfn())->first, all.first);
}

TEST_F(SpaceTest, ARetiredPageIsNotReusedWhileAReaderMaySeeIt) {
  const PageRun all = TakeAll();
  auto pin = std::make_unique<Space::Pin>(space_.get());
  space_->Retire({{all.first, 3}});
  EXPECT_EQ(space_->counts().limbo, 3u);
  EXPECT_EQ(space_->AllocateData(1, Pfn()).status().code(), absl::StatusCode::kResourceExhausted);
  pin.reset();
  EXPECT_EQ(space_->counts().limbo, 0u);
  EXPECT_TRUE(space_->AllocateData(1, Pfn()).ok());
}

TEST_F(SpaceTest, AReaderThatBeganLaterHoldsNothingBack) {
  const PageRun all = TakeAll();
  auto before = std::make_unique<Space::Pin>(space_.get());
  space_->Retire({{all.first, 1}});
  Space::Pin after(space_.get());
  before.reset();
  EXPECT_TRUE(space_->AllocateData(1, Pfn()).ok());
}

TEST_F(SpaceTest, AsManyReadersAsThereAreHoldItBack) {
  const PageRun all = TakeAll();
  std::vector<Space::Pin> pins;
  for (size_t i = 0; i < 3 * Pins::kSlots; ++i) pins.emplace_back(space_.get());
  space_->Retire({{all.first, 3}});
  // In an order in which neither kind goes first.
  std::ranges::shuffle(pins, std::minstd_rand(1));
  while (!pins.empty()) {
    EXPECT_EQ(space_->counts().limbo, 3u) << pins.size();
    pins.pop_back();
  }
  EXPECT_EQ(space_->counts().limbo, 0u);
}

// Readers look at the page that there is, while it is replaced again and again.
TEST_F(SpaceTest, NoPageChangesUnderAReader) {
  space_->set_limbo_patience(std::chrono::seconds(60));
  SharedMutex mu;
  const auto filled = [this](uint64_t number) {
    const Pfn pfn = space_->AllocateMetadata().value();
    for (uint64_t i = 0; i < kPageSize / 8; ++i) {
      std::atomic_ref<uint64_t>(mapping_->WritableAt<uint64_t>(pfn)[i]).store(number);
    }
    return pfn;
  };
  Pfn page = filled(1);
  std::atomic<int> reading{4}, wrong{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&] {
      for (int n = 0; n < 3000; ++n) {
        const uint64_t* words = nullptr;
        Space::Pin pin;
        {
          ReaderLock lock(&mu);
          words = mapping_->At<uint64_t>(page);
          pin = Space::Pin(space_.get());
        }
        const auto word = [&](uint64_t i) {
          return std::atomic_ref<uint64_t>(const_cast<uint64_t*>(words)[i]).load();
        };
        const uint64_t number = word(0);
        for (uint64_t i = 0; i < kPageSize / 8; ++i) wrong += word(i) != number;
      }
      --reading;
    });
  }
  for (uint64_t number = 2; reading > 0; ++number) {
    const Pfn next = filled(number);
    Pfn before;
    {
      WriterLock lock(&mu);
      before = std::exchange(page, next);
    }
    space_->Retire({{before, 1}});
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(space_->counts().limbo, 0u);
}

TEST_F(SpaceTest, AnAllocationThatFindsOnlyLimboWaits) {
  space_->set_limbo_patience(std::chrono::seconds(60));
  const PageRun all = TakeAll();
  auto pin = std::make_unique<Space::Pin>(space_.get());
  space_->Retire({{all.first, 3}});
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    pin.reset();
  });
  EXPECT_TRUE(space_->AllocateData(1, Pfn()).ok());
  reader.join();
}

TEST_F(SpaceTest, TheReserveIsKeptForWhatMakesSpace) {
  TakeAll();
  EXPECT_FALSE(space_->AllocateMetadata().ok());
  EXPECT_TRUE(space_->AllocateMetadata(Urgency::kMakesSpace).ok());
}

TEST_F(SpaceTest, MemoryFollowsContents) {
  const PageRun run = space_->AllocateData(64, Pfn()).value();
  ASSERT_TRUE(backing_->Reserve(run).ok());
  EXPECT_GE(MemoryPages(), 64u);
  space_->Retire({run});
  EXPECT_EQ(MemoryPages(), 0u);
}

// Pages that go one by one go together, and are used again meanwhile.
TEST_F(SpaceTest, SinglePagesAreGivenBackInPieces) {
  std::vector<Pfn> pages;
  for (int i = 0; i < 200; ++i) pages.push_back(space_->AllocateMetadata().value());
  for (const Pfn pfn : pages) {
    *mapping_->WritableAt<uint64_t>(pfn) = 1;
    space_->Retire({{pfn, 1}});
  }
  EXPECT_LE(MemoryPages(), 160u);
  const Pfn again = space_->AllocateMetadata().value();
  EXPECT_EQ(*mapping_->At<uint64_t>(again), 0u);
  space_->Retire({{again, 1}});
  EXPECT_TRUE(space_->GiveBackIdle());
  EXPECT_FALSE(space_->GiveBackIdle());
  EXPECT_LE(MemoryPages(), 32u);  // some were made in advance
}

TEST_F(SpaceTest, WhatNothingUsesIsGivenBackAtOpen) {
  ASSERT_TRUE(backing_->Reserve({Pfn(10), 100}).ok());
  space_->GiveBackUnused();
  EXPECT_EQ(MemoryPages(), 0u);
  EXPECT_EQ(backing_->Size().value(), kPageSize);
}

// Threads keep pages at hand while many are free.
class LargeSpaceTest : public SpaceTest {
 protected:
  LargeSpaceTest() : SpaceTest(32768) {}
  uint64_t Visits() const { return space_->depot().visits(); }
  template <typename Fn>
  void OnAnotherThread(Fn fn) {
    std::thread(fn).join();
  }
};

TEST_F(LargeSpaceTest, WhatAThreadFreesItUsesAgainWithoutTheLock) {
  const auto cycle = [&] {
    const Pfn metadata = space_->AllocateMetadata().value();
    const PageRun data = space_->AllocateData(1, Pfn()).value();
    space_->depot().NoteExist(data);
    space_->Retire({{metadata, 1}, data});
  };
  for (int i = 0; i < 20; ++i) cycle();
  const uint64_t before = Visits();
  for (int i = 0; i < 1000; ++i) cycle();
  EXPECT_EQ(Visits(), before);
}

TEST_F(LargeSpaceTest, WhatThreadsKeepIsFree) {
  const Space::Counts empty = space_->counts();
  std::vector<PageRun> taken;
  for (int i = 0; i < 4; ++i) {
    OnAnotherThread([&] {
      taken.push_back({space_->AllocateMetadata().value(), 1});
      taken.push_back(space_->AllocateData(2, Pfn()).value());
    });
  }
  Space::Counts now = space_->counts();
  EXPECT_EQ(now.free, empty.free - 12);
  EXPECT_EQ(now.metadata, empty.metadata + 4);
  EXPECT_EQ(now.data, 8u);
  const Bitmap in_use = space_->InUse();
  uint64_t pages = 0;
  for (uint64_t i = 0; i < in_use.size(); ++i) pages += in_use.Test(i);
  EXPECT_EQ(pages, 13u);
  for (const PageRun& run : taken) space_->Retire({run});
  now = space_->counts();
  EXPECT_EQ(now.free, empty.free);
  EXPECT_EQ(now.metadata, empty.metadata);
  EXPECT_EQ(now.data, 0u);
  space_->GiveBackUnused();
  EXPECT_EQ(MemoryPages(), 0u);
}

TEST_F(LargeSpaceTest, WhatThreadsKeepIsUsedBeforeTheRegionIsFull) {
  const uint64_t free = space_->counts().free;
  for (int i = 0; i < 4; ++i) {
    OnAnotherThread([&] {
      space_->Retire({{space_->AllocateMetadata().value(), 1}});
      space_->Retire({space_->AllocateData(1, Pfn()).value()});
    });
  }
  uint64_t taken = 0;
  for (;;) {
    const auto run = space_->AllocateData(1000, Pfn());
    if (!run.ok()) break;
    taken += run->count;
  }
  EXPECT_EQ(taken, free);
  EXPECT_FALSE(space_->AllocateMetadata().ok());
}

TEST_F(LargeSpaceTest, AFileThatGrowsByOneThreadAfterTheOtherIsOneRun) {
  const Pfn first = space_->AllocateData(1, Pfn()).value().first;
  // As many as the first thread took at once, and more.
  for (uint64_t i = 1; i < 200; ++i) {
    OnAnotherThread(
        [&] { EXPECT_EQ(space_->AllocateData(1, first + i).value().first, first + i); });
  }
}

TEST_F(LargeSpaceTest, WhatThreadsKeepDoesNotHoldUpAnotherSize) {
  for (int i = 0; i < 4; ++i) {
    OnAnotherThread([&] { (void)space_->AllocateMetadata().value(); });
  }
  // Four pages, the first one, and the reserve.
  EXPECT_FALSE(space_->Resize(5).ok());
  EXPECT_TRUE(space_->Resize(5 + Space::ReserveFor(5)).ok());
  EXPECT_TRUE(space_->Resize(kPages).ok());
}

TEST_F(LargeSpaceTest, WhoFindsNoMemoryUsesWhatOthersKeep) {
  OnAnotherThread([&] {
    std::vector<PageRun> runs;
    for (int i = 0; i < 10; ++i) runs.push_back({space_->AllocateMetadata().value(), 1});
    for (const PageRun& run : runs) space_->Retire({run});
  });
  EXPECT_GT(MemoryPages(), 8u);
  EXPECT_TRUE(space_->GiveBackIdle());
  EXPECT_LE(MemoryPages(), 16u);  // some were made in advance
}

// A thread takes pages for metadata by one call to the system.
TEST_F(LargeSpaceTest, MetadataIsMadeToExistInBatches) {
  const uint64_t before = Visits();
  for (int i = 0; i < 150; ++i) (void)space_->AllocateMetadata().value();
  EXPECT_LE(Visits() - before, 22u);
}

// Each page has one user at a time: it says so in the page, and looks whether it stays.
TEST_F(LargeSpaceTest, ThreadsNeverHaveTheSamePage) {
  std::atomic<int> wrong{0};
  const uint64_t free = space_->counts().free;
  std::vector<std::thread> threads;
  for (uint64_t t = 1; t <= 6; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(static_cast<unsigned>(t));
      std::vector<PageRun> mine;
      const auto word = [&](Pfn pfn) {
        return std::atomic_ref<uint64_t>(*mapping_->WritableAt<uint64_t>(pfn));
      };
      for (int i = 0; i < 4000; ++i) {
        if (mine.size() < 40 && random() % 2 == 0) {
          PageRun run{Pfn(), 1};
          if (random() % 2 == 0) {
            run.first = space_->AllocateMetadata().value();
          } else {
            const Pfn goal = mine.empty() ? Pfn() : mine.back().first + mine.back().count;
            run = space_->AllocateData(1 + random() % 20, random() % 2 == 0 ? goal : Pfn()).value();
            if (!backing_->Reserve(run).ok()) ++wrong;
            space_->depot().NoteExist(run);
          }
          for (uint64_t k = 0; k < run.count; ++k) word(run.first + k).store(t);
          mine.push_back(run);
        } else if (!mine.empty()) {
          const size_t at = random() % mine.size();
          std::swap(mine[at], mine.back());
          const PageRun run = mine.back();
          mine.pop_back();
          for (uint64_t k = 0; k < run.count; ++k) wrong += word(run.first + k).load() != t;
          space_->Retire({run});
        }
        if (t == 1 && i % 500 == 0) (void)space_->GiveBackIdle();
      }
      for (const PageRun& run : mine) space_->Retire({run});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(space_->counts().free, free);
  EXPECT_EQ(space_->counts().data, 0u);
}

}  // namespace
}  // namespace pkram
