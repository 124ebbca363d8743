// The crash enumerator.  Each operation runs with a hook before and after every store
// that Publish and Transaction make; a copy of the region as it is then is what a
// successor would find after a kill at that store.  Each copy is opened and must
// show the state before the operation or the one after it, soundly; and each store of
// that opening is a place to die, too.
//
// Bytes that a write in flight touches may be torn, so they are masked; st_blocks
// of that file follows them.
#include "tests/crash/steps.h"

namespace pkramfs {
namespace {

// All of it once, with gcc; the others are the ones with sanitizers, where each mount takes
// ten times as long.
#ifdef __clang__
constexpr size_t kRecoveriesOfOneIn = 8;
#else
constexpr size_t kRecoveriesOfOneIn = 1;
#endif

class CrashTest : public testing::TestWithParam<size_t> {};

TEST_P(CrashTest, EveryStoreLeavesTheStateBeforeOrAfter) {
  const Step step = AllSteps()[GetParam()];
  SCOPED_TRACE(step.name);
  Image after_image;
  std::vector<Image> images;
  {
    MemoryFile file;
    file.Restore(Start());
    Recorder recorder(&file);
    Mounted mounted(file, 0, recorder.hook());
    recorder.images = {Start()};
    recorder.recording = true;
    step.run(*mounted.fs(), kNow);
    after_image = file.Save();
    recorder.recording = false;
    images = std::move(recorder.images);
  }
  images.push_back(after_image);
  int64_t used_before, used_after;
  const Picture before = PictureOfImage(Start(), step.mask, true, &used_before);
  const Picture after = PictureOfImage(after_image, step.mask, true, &used_after);
  EXPECT_EQ(before == after, !step.changes);
  EXPECT_GE(images.size(), 4u);
  bool seen_after = false;
  for (size_t i = 0; i < images.size(); ++i) {
    SCOPED_TRACE("store " + std::to_string(i) + " of " + std::to_string(images.size() - 2));
    int64_t used;
    const Picture picture = PictureOfImage(images[i], step.mask, true, &used);
    ++crash_points_tried;
    if (picture == after) seen_after = true;
    ASSERT_TRUE(picture == before || picture == after)
        << "from before:\n"
        << Difference(before, picture) << "from after:\n"
        << Difference(after, picture);
    // It never goes back.
    ASSERT_FALSE(step.changes && seen_after && picture == before);
    // Beside what the state needs, at most a link and a page stay reachable.
    ASSERT_GE(used, std::min(used_before, used_after));
    ASSERT_LE(used, std::max(used_before, used_after) + 2);
    // Recovery is an operation too: what the next mount shows is the same.
    if (GetParam() % kRecoveriesOfOneIn != 0) continue;
    for (const Image& death : DeathsInRecovery(images[i])) {
      const Picture again = PictureOfImage(death, step.mask, true, nullptr);
      ++crash_points_tried;
      ASSERT_TRUE(again == picture) << Difference(picture, again);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, CrashTest, testing::Range(size_t{0}, AllSteps().size()));

// What a write has left where the file has pages but no size yet is never seen.
TEST(CrashInAWriteBehindTheEnd, WhatWasNotAcknowledgedReadsAsZeros) {
  constexpr size_t kSize = 8 * kPageSize;
  const std::string written(100, 'S');
  MemoryFile file;
  file.Restore(Start());
  Recorder recorder(&file);
  Mounted mounted(file, 0, recorder.hook());
  Filesystem& fs = *mounted.fs();
  const Ino ino = Walk(fs, "d/a");
  ASSERT_EQ(fs.Fallocate(kNow, ino, 0, kSize, FALLOC_FL_KEEP_SIZE).error(), 0);
  recorder.recording = true;
  ASSERT_TRUE(fs.Write(kNow, ino, 2 * kPageSize, BytesOf(written)).ok());
  recorder.recording = false;
  for (const Image& image : recorder.images) {
    ++crash_points_tried;
    MemoryFile copy;
    copy.Restore(image);
    const Mounted reopened(copy);
    const Ino again = Walk(*reopened.fs(), "d/a");
    const uint64_t size = (*reopened.fs()->GetAttr(again)).size;
    ASSERT_TRUE(
        reopened.fs()->SetAttr(kNow, again, {.what = AttrChange::kSetSize, .size = kSize}).ok());
    std::string expected(kSize, 0);
    if (size > 0) expected.replace(2 * kPageSize, written.size(), written);
    EXPECT_TRUE(TextOf(*reopened.fs()->Read(again, 0, kSize)) == expected) << size;
  }
}

// A region of another size, at each store, is one of the old or of the new.
TEST(CrashInResizeTest, EveryStoreLeavesOneSizeOrTheOther) {
  // Larger; smaller, but behind the last page in use, and before it.
  for (const uint64_t pages : {2 * kStartPages, uint64_t{2000}, uint64_t{200}}) {
    MemoryFile file;
    file.Restore(Start());
    Recorder recorder(&file);
    Mounted mounted(file, 0, recorder.hook(), /*resizable=*/true);
    recorder.recording = true;
    ASSERT_EQ(mounted.fs()->Resize(pages, std::nullopt), absl::OkStatus());
    recorder.recording = false;
    std::vector<Image>& images = recorder.images;
    EXPECT_EQ(mounted.region()->space().counts().total, pages);
    EXPECT_GE(images.size(), 3u);
    images.push_back(file.Save());
    const Picture expected = PictureOfImage(Start(), {}, true, nullptr);
    bool seen_new = false;
    for (const Image& image : images) {
      ++crash_points_tried;
      EXPECT_EQ(PictureOfImage(image, {}, true, nullptr), expected);
      for (const Image& death : DeathsInRecovery(image)) {
        ++crash_points_tried;
        EXPECT_EQ(PictureOfImage(death, {}, true, nullptr), expected);
      }
      MemoryFile copy;
      copy.Restore(image);
      const Mounted reopened(copy);
      const uint64_t total = reopened.region()->space().counts().total;
      EXPECT_TRUE(total == pages || (total == kStartPages && !seen_new)) << total;
      seen_new |= total == pages;
    }
    EXPECT_TRUE(seen_new);
  }
}

}  // namespace
}  // namespace pkramfs
