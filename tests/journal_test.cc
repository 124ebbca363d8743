#include "pkram/journal.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace pkram {
namespace {

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    const int fd = memfd_create("journal", 0);
    backing_ = OpenFdBacking(fd).value();
    close(fd);
    ASSERT_TRUE(backing_->Reserve({Pfn(0), kPages}).ok());
    mapping_ = Mapping::Create(backing_.get(), kPages, Mapping::Access::kGuarded).value();
    journal_ = std::make_unique<Journal>(mapping_.get(), Pfn(1), 2);
    words_ = mapping_->At<uint64_t>(Pfn(3));
  }
  const format::JournalSlot& Slot(uint64_t i) {
    return *mapping_->At<format::JournalSlot>(Pfn(1 + i));
  }

  static constexpr uint64_t kPages = 4;
  std::unique_ptr<Backing> backing_;
  std::unique_ptr<Mapping> mapping_;
  std::unique_ptr<Journal> journal_;
  const uint64_t* words_ = nullptr;
};

using JournalDeathTest = JournalTest;

TEST_F(JournalTest, PublishStoresOneWord) {
  journal_->Publish(&words_[1], 7);
  EXPECT_EQ(words_[1], 7u);
}

TEST_F(JournalTest, ATransactionIsAllOrNothingAtEachOfItsStores) {
  std::vector<std::vector<uint64_t>> replayed;
  journal_->set_store_hook([&] {
    // What a successor sees that opens the region now.
    std::vector<uint64_t> seen(words_, words_ + 3);
    for (uint64_t i = 0; i < 2; ++i) {
      std::vector<format::JournalStore> stores;
      ASSERT_TRUE(Journal::ReadSlot(Slot(i), kPages * kPageSize, &stores).ok());
      for (const auto& s : stores) seen[(s.offset - Pfn(3).offset()) / 8] = s.value;
    }
    replayed.push_back(seen);
  });
  Transaction t(journal_.get());
  for (uint64_t i = 0; i < 3; ++i) t.Store(&words_[i], i + 10);
  t.Commit();
  // Before and after each of: commit, three words, clear.
  ASSERT_EQ(replayed.size(), 10u);
  EXPECT_EQ(replayed.front(), (std::vector<uint64_t>{0, 0, 0}));
  replayed.erase(replayed.begin());
  for (const auto& seen : replayed) EXPECT_EQ(seen, (std::vector<uint64_t>{10, 11, 12}));
}

TEST_F(JournalTest, ASecondStoreToAWordReplacesTheFirst) {
  int stores = 0;
  journal_->set_store_hook([&] { ++stores; });
  Transaction t(journal_.get());
  t.Store(&words_[0], 1);
  t.Store(&words_[0], 2);
  t.Commit();
  EXPECT_EQ(words_[0], 2u);
  EXPECT_EQ(stores, 2 * 3);  // the hook runs before and after each
}

TEST_F(JournalTest, ReplayAppliesACommittedSlotAndClearsIt) {
  format::JournalSlot keep;
  bool first = true;
  journal_->set_store_hook([&] {
    for (uint64_t i = 0; first && i < 2; ++i) {
      if (Slot(i).commit == 0) continue;
      keep = Slot(i);
      first = false;
    }
  });
  Transaction t(journal_.get());
  t.Store(&words_[0], 42);
  t.Commit();
  journal_->Publish(&words_[0], 0);
  *mapping_->WritableAt<format::JournalSlot>(Pfn(1)) = keep;
  journal_->Replay();
  EXPECT_EQ(words_[0], 42u);
  EXPECT_EQ(Slot(0).commit, 0u);
}

TEST_F(JournalTest, ADamagedSlotIsRefused) {
  auto* slot = mapping_->WritableAt<format::JournalSlot>(Pfn(1));
  std::vector<format::JournalStore> stores;
  slot->commit = 256;
  EXPECT_FALSE(Journal::ReadSlot(*slot, kPages * kPageSize, &stores).ok());
  slot->commit = 1;
  EXPECT_FALSE(Journal::ReadSlot(*slot, kPages * kPageSize, &stores).ok());
}

TEST_F(JournalDeathTest, AStrayStoreFaults) {
  EXPECT_DEATH(*const_cast<uint64_t*>(words_) = 1, "");
}

}  // namespace
}  // namespace pkram
