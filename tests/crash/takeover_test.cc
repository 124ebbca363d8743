// A process that dies at a store, and another that goes on in its place: it has what the first one
// noted (receipts), and is given the requests that were not answered once more.  Whatever the
// store, each answers as if nothing had been, and has been done once.
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/crash/steps.h"

namespace pkramfs {
namespace {

using pkram::Receipt;

// A second death at each store of each takeover takes minutes.  The sanitizers take ten times as
// long.  All of them: build/gcc/tests/crash_test --gtest_filter=*Takeover* with PKRAMFS_ALL=1.
#ifdef __clang__
constexpr size_t kSecondDeathsOfOneIn = 32;
#else
constexpr size_t kSecondDeathsOfOneIn = 8;
#endif

bool DiesTwice(size_t step) {
  return step % kSecondDeathsOfOneIn == 0 || std::getenv("PKRAMFS_ALL") != nullptr;
}

// What a successor finds.
struct Estate {
  Image region;
  Receipt receipt;
};

Context With(Receipt* receipt) {
  Context context = kNow;
  context.receipt = receipt;
  return context;
}

// How often the kernel knows each inode.
std::map<Ino, uint64_t> Lookups(const Mounted& mounted) {
  std::map<Ino, uint64_t> lookups;
  const pkram::PageView view(&mounted.region()->mapping(), mounted.region()->super().page_count);
  const auto* node =
      mounted.region()->mapping().At<pkram::format::Node>(mounted.region()->FindNode("pkramfs"));
  pkram::ForEachLink(mounted.region()->mapping(), node->objects, [&](const pkram::LinkRef& link) {
    pkram::ForEachPageEntry(link, [&](uint64_t index, uint64_t entry) {
      const Inode inode(mounted.region(), index, pkram::format::EntryPfn(entry));
      lookups[index] = inode.lookups();
    });
  });
  return lookups;
}

class TakeoverTest : public testing::TestWithParam<size_t> {
 protected:
  // Takes over, executes the request again, and leaves what a death at each store of that would
  // have left.
  std::vector<Estate> Execute(const Step& step, const Estate& found, bool takes_over) {
    std::vector<Estate> estates;
    MemoryFile file;
    file.Restore(found.region);
    Receipt receipt = found.receipt;
    bool recording = takes_over;
    const auto hook = [&] {
      if (!recording) return;
      Estate now{file.Save(), receipt};
      if (estates.empty() || estates.back().region != now.region ||
          std::memcmp(&estates.back().receipt, &receipt, sizeof(receipt)) != 0) {
        estates.push_back(std::move(now));
      }
    };
    const Mounted mounted =
        takes_over ? Mounted::TakeOver(file, {&receipt}, hook) : Mounted(file, 0, hook);
    if (mounted.fs() == nullptr) return estates;
    recording = true;
    step.run(*mounted.fs(), With(&receipt));
    recording = false;
    lookups_ = Lookups(mounted);
    estates.push_back({file.Save(), receipt});
    return estates;
  }

  std::map<Ino, uint64_t> lookups_;
};

TEST_P(TakeoverTest, WhateverTheStoreItIsDoneOnce) {
  const Step step = AllSteps()[GetParam()];
  if (!step.one_request) return;
  SCOPED_TRACE(step.name);
  const std::vector<Estate> estates = Execute(step, {Start(), {}}, false);
  const std::map<Ino, uint64_t> lookups = lookups_;
  int64_t used_after;
  const Picture after = PictureOfImage(estates.back().region, {}, true, &used_after);
  const auto expect_done_once = [&](const Estate& estate, uint64_t deaths) {
    ++crash_points_tried;
    int64_t used;
    const Picture picture = PictureOfImage(estate.region, {}, true, &used);
    EXPECT_TRUE(picture == after) << Difference(after, picture);
    EXPECT_EQ(used, used_after);
    // Never too few: the kernel would have names of what is gone.  Each death may leave one too
    // many until the next mount.
    ASSERT_EQ(lookups_.size(), lookups.size());
    for (const auto& [ino, count] : lookups) {
      EXPECT_GE(lookups_[ino], count) << ino;
      EXPECT_LE(lookups_[ino], count + deaths) << ino;
    }
  };
  for (size_t i = 0; i < estates.size(); ++i) {
    SCOPED_TRACE("store " + std::to_string(i) + " of " + std::to_string(estates.size() - 1));
    const std::vector<Estate> second = Execute(step, estates[i], true);
    ASSERT_FALSE(second.empty());
    expect_done_once(second.back(), 1);
    if (HasFailure()) return;
    if (!DiesTwice(GetParam())) continue;
    for (size_t k = 0; k < second.size(); ++k) {
      SCOPED_TRACE("second death, at store " + std::to_string(k));
      const std::vector<Estate> third = Execute(step, second[k], true);
      ASSERT_FALSE(third.empty());
      expect_done_once(third.back(), 2);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, TakeoverTest, testing::Range(size_t{0}, AllSteps().size()));

}  // namespace
}  // namespace pkramfs
