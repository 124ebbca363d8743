// Two operations at once, at every store of either: the region is in one of the states
// that they lead through, one after the other; and whoever takes over and is given both once more
// leads it to one of their ends.
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "absl/hash/hash.h"
#include "tests/crash/steps.h"

namespace pkramfs {
namespace {

const Context kOtherNow{.uid = 0, .gid = 0, .now = {6000, 1}};

Context With(Context context, pkram::Receipt* receipt) {
  context.receipt = receipt;
  return context;
}

// Runs `first` up to its store number `pause`, then `second` as far as the locks let
// it, taking an image at each store of either; then lets both finish.
class Pair {
 public:
  // What a successor finds.
  struct Estate {
    Image region;
    pkram::Receipt first, second;
  };

  Pair(const Step& first, const Step& second, size_t pause) : pause_(pause) {
    file_.Restore(Start());
    Mounted mounted(file_, 0, [this] { OnStore(); });
    recording_ = true;
    std::thread a([&] {
      first_ = true;
      first.run(*mounted.fs(), With(kNow, &first_receipt_));
      std::lock_guard lock(mu_);
      paused_ = true;  // it is past the place to pause, or never came to it
      first_done_ = true;
      changed_.notify_all();
    });
    {
      std::unique_lock lock(mu_);
      changed_.wait(lock, [this] { return paused_; });
      reached_ = !first_done_;
    }
    if (reached_) {
      std::thread b([&] {
        second.run(*mounted.fs(), With(kOtherNow, &second_receipt_));
        std::lock_guard lock(mu_);
        second_done_ = true;
        changed_.notify_all();
      });
      {
        // A second that waits for a lock of the first makes no more stores; how long
        // we wait for it decides only how much is seen, never the verdict.
        std::unique_lock lock(mu_);
        changed_.wait_for(lock, std::chrono::milliseconds(20), [this] { return second_done_; });
        overlapped_ = second_done_;
        go_ = true;
        changed_.notify_all();
      }
      b.join();
    }
    {
      std::lock_guard lock(mu_);
      go_ = true;
      changed_.notify_all();
    }
    a.join();
    recording_ = false;
    end_ = file_.Save();
  }

  bool reached() const { return reached_; }
  bool overlapped() const { return overlapped_; }
  // At each store.
  const std::vector<Estate>& estates() const { return estates_; }
  // When both are done.
  const Image& end() const { return end_; }

 private:
  void OnStore() {
    if (!recording_) return;
    std::unique_lock lock(mu_);
    estates_.push_back({file_.Save(), first_receipt_, second_receipt_});
    if (!first_) return;
    if (stores_++ != pause_) return;
    paused_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return go_; });
  }

  static thread_local bool first_;
  const size_t pause_;
  MemoryFile file_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::atomic<bool> recording_ = false;
  bool paused_ = false, go_ = false, first_done_ = false, second_done_ = false;
  bool reached_ = false, overlapped_ = false;
  size_t stores_ = 0;
  pkram::Receipt first_receipt_, second_receipt_;
  std::vector<Estate> estates_;
  Image end_;
};
thread_local bool Pair::first_ = false;

Image ImageAfter(const std::vector<std::pair<Step, Context>>& steps) {
  MemoryFile file;
  file.Restore(Start());
  const Mounted mounted(file);
  for (const auto& [step, context] : steps) step.run(*mounted.fs(), context);
  return file.Save();
}

class CrashPairTest : public testing::TestWithParam<size_t> {};

std::vector<std::pair<Step, Step>> AllPairs() {
  return {
      // The same directory.
      {MakeFile("", "x"), MakeFile("", "y")},
      {MakeFile("d", "x"), Unlink("d", "hard")},
      {Rename("d", "a", "", "ra"), Rename("d", "b", "", "rb")},
      {MakeFile("full", "x"), Rename("full", "n3", "d", "n3")},
      {Unlink("over", "n61"), MakeFile("over", "x")},
      // The same inode.
      {Unlink("", "large"), Unlink("d", "hard")},
      {Rename("", "inline", "", "moved"),
       {"Link",
        [](Filesystem& fs, const Context& ctx) {
          const auto found = fs.Lookup(Walk(fs, "d"), "hard");
          EXPECT_TRUE(fs.Link(ctx, (*found).ino, kRootIno, "linked").ok());
        },
        {}}},
      {SetXattr("attr", "user.x", 9000), SetXattr("attr", "user.z", 50)},
      // Pages that the first one frees are what the second one takes.
      {Truncate("large", 0), Write("d/a", 0, 12 * kPageSize)},
      {Unlink("", "other"), Write("d/a", 0, 4 * kPageSize)},
      {Rename("", "other", "", "inline"), Write("d/b", 0, 5000)},
      // The same pages, in several files.
      {Unlink("", "twin"), CopyRange("large", 0, "d/a", 0, 531 * kPageSize)},
      {CopyRange("large", 0, "d/a", 0, 531 * kPageSize), Unlink("", "twin")},
      {Truncate("twin", 0), Write("large", 100, 2 * kPageSize)},
      {Write("twin", 100, 2 * kPageSize), Truncate("large", kPageSize)},
      {Write("twin", 100, 2 * kPageSize), CopyRange("large", 0, "d/a", 0, 5 * kPageSize)},
      // A tree comes in, and something in its directory, or in what it takes the place of, changes.
      {AdoptTree("", "tree", Filesystem::Placing::kNew), MakeFile("", "x")},
      {AdoptTree("d", "sub", Filesystem::Placing::kReplace), Unlink("d", "a")},
      // Nothing in common but the region.
      {Write("inline", 0, 5000), MakeFile("d", "sub2", S_IFDIR | 0755)},
      {Rename("d", "sub", "", "empty"), Truncate("other", 10)},
  };
}

TEST_P(CrashPairTest, EveryMomentOfTwoOperationsIsAStateBetweenThem) {
  const auto [first, second] = AllPairs()[GetParam()];
  SCOPED_TRACE(first.name + " while " + second.name);
  const Mask mask = second.mask.path.empty() ? first.mask : second.mask;
  const auto picture_after = [&](const std::vector<std::pair<Step, Context>>& steps) {
    return PictureOfImage(ImageAfter(steps), mask, false, nullptr);
  };
  const std::vector<Picture> states = {picture_after({}), picture_after({{first, kNow}}),
                                       picture_after({{second, kOtherNow}}),
                                       picture_after({{first, kNow}, {second, kOtherNow}}),
                                       picture_after({{second, kOtherNow}, {first, kNow}})};
  const auto expect_one_of = [&](const Image& image, size_t from_state) {
    const Picture picture = PictureOfImage(image, mask, false, nullptr);
    ++crash_points_tried;
    ASSERT_TRUE(std::find(states.begin() + from_state, states.end(), picture) != states.end())
        << "from both:\n"
        << Difference(states[3], picture);
  };
  std::set<size_t> seen;  // hashes of what was tried
  size_t pause = 0;
  for (;; ++pause) {
    SCOPED_TRACE("paused at store " + std::to_string(pause));
    const Pair pair(first, second, pause);
    for (size_t i = 0; i < pair.estates().size(); ++i) {
      const Image& image = pair.estates()[i].region;
      if (!seen.insert(absl::HashOf(image.size, image.extents)).second) continue;
      SCOPED_TRACE("store " + std::to_string(i));
      ASSERT_NO_FATAL_FAILURE(expect_one_of(image, 0));
    }
    ASSERT_NO_FATAL_FAILURE(expect_one_of(pair.end(), pair.reached() ? 3 : 0));
    if (!pair.reached()) break;
  }
  EXPECT_GE(pause, 4u);
}

TEST_P(CrashPairTest, WhoTakesOverDoesEachOfTwoOperationsOnce) {
  const auto [first, second] = AllPairs()[GetParam()];
  SCOPED_TRACE(first.name + " while " + second.name);
  const auto picture_after = [&](const std::vector<std::pair<Step, Context>>& steps) {
    return PictureOfImage(ImageAfter(steps), {}, false, nullptr);
  };
  const Picture ends[] = {picture_after({{first, kNow}, {second, kOtherNow}}),
                          picture_after({{second, kOtherNow}, {first, kNow}})};
  // The sanitizers take ten times as long.
#ifdef __clang__
  constexpr size_t kOneIn = 5;
#else
  constexpr size_t kOneIn = 1;
#endif
  std::set<size_t> seen;  // hashes of what was tried
  for (size_t pause = 0;; pause += kOneIn) {
    SCOPED_TRACE("paused at store " + std::to_string(pause));
    const Pair pair(first, second, pause);
    for (const Pair::Estate& estate : pair.estates()) {
      const pkram::Receipt &a = estate.first, &b = estate.second;
      const size_t hash =
          absl::HashOf(estate.region.size, estate.region.extents, a.committing, a.next, a.done,
                       a.answer, b.committing, b.next, b.done, b.answer);
      if (!seen.insert(hash).second) continue;
      MemoryFile file;
      file.Restore(estate.region);
      pkram::Receipt of_first = estate.first, of_second = estate.second;
      {
        const Mounted successor = Mounted::TakeOver(file, {&of_first, &of_second});
        ASSERT_NE(successor.fs(), nullptr);
        first.run(*successor.fs(), With(kNow, &of_first));
        second.run(*successor.fs(), With(kOtherNow, &of_second));
      }
      const Picture picture = PictureOfImage(file.Save(), {}, false, nullptr);
      ++crash_points_tried;
      ASSERT_TRUE(picture == ends[0] || picture == ends[1]) << Difference(ends[0], picture);
    }
    if (!pair.reached()) break;
  }
}

// A merge is many operations.  Whatever else happens in its directory meanwhile, each of them is
// done or not.
class CrashMergeTest : public testing::TestWithParam<size_t> {};

std::vector<Step> DuringAMerge() {
  return {MakeFile("d", "x"), Unlink("d", "a"), Write("d/a", 0, 5000)};
}

TEST_P(CrashMergeTest, EveryMomentIsAStateOfTheMergeWithTheOtherOrWithout) {
  const Step merge = AdoptTree("", "d", Filesystem::Placing::kMerge);
  const Step other = DuringAMerge()[GetParam()];
  SCOPED_TRACE(merge.name + " while " + other.name);
  const auto picture_of = [&](const Image& image) {
    ++crash_points_tried;
    Picture picture = PictureOfImage(image, other.mask, false, nullptr);
    picture.erase("/d");  // its times are those of whichever was last
    return picture;
  };
  // What the merge alone leads through, and with the other before all of it, or behind a part.
  std::vector<Picture> states;
  const auto add = [&](const Image& image) {
    Picture picture = picture_of(image);
    if (std::ranges::find(states, picture) != states.end()) return false;
    states.push_back(std::move(picture));
    return true;
  };
  const auto with_other = [&](const Image& image) {
    MemoryFile file;
    file.Restore(image);
    const Mounted mounted(file);
    other.run(*mounted.fs(), kOtherNow);
    return file.Save();
  };
  size_t alone = 0;
  for (const bool other_first : {false, true}) {
    MemoryFile file;
    file.Restore(other_first ? with_other(Start()) : Start());
    Recorder recorder(&file);
    const Mounted mounted(file, 0, recorder.hook());
    recorder.Start();
    merge.run(*mounted.fs(), kNow);
    recorder.recording = false;
    recorder.images.push_back(file.Save());
    for (const Image& image : recorder.images) {
      if (add(image) && !other_first) {
        ++alone;
        add(with_other(image));
      }
    }
  }
  EXPECT_GE(alone, 4u);  // before it, and with each of three names
  // Each of the pairs takes its share of the places to pause.
#ifdef __clang__
  constexpr size_t kOneIn = 45;
#else
  constexpr size_t kOneIn = 9;
#endif
  std::set<size_t> seen;  // hashes of what was tried
  for (size_t pause = 3 * GetParam();; pause += kOneIn) {
    SCOPED_TRACE("paused at store " + std::to_string(pause));
    const Pair pair(merge, other, pause);
    for (const Pair::Estate& estate : pair.estates()) {
      if (!seen.insert(absl::HashOf(estate.region.size, estate.region.extents)).second) continue;
      const Picture picture = picture_of(estate.region);
      ASSERT_TRUE(std::ranges::find(states, picture) != states.end())
          << "from all of it:\n"
          << Difference(states.back(), picture);
    }
    if (!pair.reached()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Merges, CrashMergeTest, testing::Range(size_t{0}, DuringAMerge().size()));

INSTANTIATE_TEST_SUITE_P(Pairs, CrashPairTest, testing::Range(size_t{0}, AllPairs().size()));

}  // namespace
}  // namespace pkramfs
