// An image that is changed is the old one or the new one, whenever the power goes and whatever
// fails.
#include "pkram/delta.h"

#include <sys/stat.h>

#include "tests/image_fixture.h"

namespace pkram {
namespace {

class DeltaTest : public ImageFixture {
 protected:
  // The image at path_, which shows `from`, is to show `to`.
  absl::Status Change(Disk* disk, const Pages& from, const Pages& to) {
    const auto base = Image::Open(path_);
    if (!base.ok()) return base.status();
    auto writer = DeltaWriter::Begin(disk, **base, 2000);
    if (!writer.ok()) return writer.status();
    Bitmap in_use(kPages);
    for (const auto& [page, byte] : to) {
      in_use.Set(page);
      const auto was = from.find(page);
      if (was != from.end() && was->second == byte) continue;
      const std::string bytes(kPageSize, byte);
      const absl::Status s = (*writer)->Add(
          Pfn(page), {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
      if (!s.ok()) return s;
    }
    return (*writer)->Commit(in_use);
  }
};

TEST_F(DeltaTest, OneAfterTheOther) {
  const auto disk = OpenDisk(path_).value();
  ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
  for (unsigned seed = 2; seed < 20; ++seed) {
    const uint64_t id = (*Image::Open(path_))->footer().id;
    ASSERT_EQ(Change(disk.get(), PagesOf(seed - 1), PagesOf(seed)), absl::OkStatus());
    EXPECT_EQ(ReadImage(path_), PagesOf(seed));
    EXPECT_EQ(FilesThere(), 1u);
    EXPECT_NE((*Image::Open(path_))->footer().id, id);
    EXPECT_EQ((*Image::Open(path_))->footer().seconds, 2000u);
  }
  // A whole one again.
  ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
  EXPECT_EQ(ReadImage(path_), PagesOf(1));
}

TEST_F(DeltaTest, WhatIsNotInUseAnyMoreIsGivenBackToTheDisk) {
  const auto disk = OpenDisk(path_).value();
  Pages all;
  for (uint64_t i = 0; i < kPages; ++i) all[i] = 'a';
  ASSERT_EQ(WriteImage(disk.get(), all), absl::OkStatus());
  const auto blocks = [this] {
    struct stat st;
    EXPECT_EQ(stat(path_.c_str(), &st), 0);
    return st.st_blocks;
  };
  const auto before = blocks();
  ASSERT_EQ(Change(disk.get(), all, {{3, 'b'}, {4, 'a'}}), absl::OkStatus());
  EXPECT_EQ(ReadImage(path_), (Pages{{3, 'b'}, {4, 'a'}}));
  EXPECT_LE(blocks(), before - static_cast<blkcnt_t>((kPages - 2) * kPageSize / 512));
}

TEST_F(DeltaTest, WhateverFailsItIsTheOldOneOrTheNewOne) {
  const auto disk = OpenDisk(path_).value();
  int old_ones = 0, new_ones = 0;
  for (int good = 0;; ++good) {
    ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
    FailingDisk failing(disk.get(), good);
    const absl::Status s = Change(&failing, PagesOf(1), PagesOf(2));
    const std::optional<Pages> now = ReadImage(path_);
    ASSERT_TRUE(now == PagesOf(1) || now == PagesOf(2)) << good;
    ++(now == PagesOf(1) ? old_ones : new_ones);
    if (s.ok()) break;
    EXPECT_EQ(s, absl::ResourceExhaustedError("the disk is full"));
    // In each case another delta can be made, and what was left behind is deleted.
    const Pages was = *now;
    if (std::filesystem::exists(path_ + ".delta")) {
      EXPECT_TRUE(absl::IsFailedPrecondition(Change(disk.get(), was, PagesOf(3)))) << good;
      ASSERT_EQ(WriteImage(disk.get(), PagesOf(3)), absl::OkStatus()) << good;
    } else {
      ASSERT_EQ(Change(disk.get(), was, PagesOf(3)), absl::OkStatus()) << good;
    }
    EXPECT_EQ(ReadImage(path_), PagesOf(3)) << good;
    EXPECT_EQ(FilesThere(), 1u) << good;
  }
  EXPECT_GT(old_ones, 5);
  EXPECT_GT(new_ones, 5);
}

TEST_F(DeltaTest, WheneverThePowerGoesItIsTheOldOneOrTheNewOne) {
  RememberingDisk disk;
  ASSERT_EQ(WriteImage(&disk, PagesOf(1)), absl::OkStatus());
  std::minstd_rand random(1);
  PutFiles(disk.AfterPowerLoss(&random));
  const auto [old_ones, new_ones] = LosePowerAfterEachCall(
      &disk, *this, [this](Disk* d) { return Change(d, PagesOf(1), PagesOf(2)); });
  EXPECT_GT(old_ones, 200);
  EXPECT_GT(new_ones, 200);
}

// A program that has opened the image before is not told that it is damaged.
TEST_F(DeltaTest, WhoReadsItMeanwhileIsToldSo) {
  const auto disk = OpenDisk(path_).value();
  int unavailable = 0;
  for (int good = 0;; ++good) {
    ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
    const auto image = Image::Open(path_);
    ASSERT_TRUE(image.ok());
    FailingDisk failing(disk.get(), good);
    const absl::Status changed = Change(&failing, PagesOf(1), PagesOf(2));
    const absl::Status read =
        (*image)->ForEach([](Pfn, absl::Span<const std::byte>) { return absl::OkStatus(); },
                          [](Pfn) { return absl::DataLossError("damaged"); });
    if (!read.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(read)) << good << read;
      ++unavailable;
    }
    if (changed.ok()) break;
  }
  EXPECT_GT(unavailable, 5);
  // A damaged image counts as damaged, whatever lies beside it.
  ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
  std::ofstream(path_ + ".delta", std::ios::binary) << std::string(kPageSize, 'x');
  std::fstream(path_, std::ios::binary | std::ios::in | std::ios::out)
          .seekp(static_cast<std::streamoff>(PagesOf(1).begin()->first * kPageSize))
      << "damage";
  EXPECT_EQ(ReadImage(path_), std::nullopt);
  EXPECT_TRUE(Image::Open(path_).ok());
}

// One that lies there, and is not of this image, changes nothing.
TEST_F(DeltaTest, AnothersIsNotRead) {
  const auto disk = OpenDisk(path_).value();
  ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
  std::string delta;
  for (int good = 0; delta.empty(); ++good) {
    FailingDisk failing(disk.get(), good);
    if (Change(&failing, PagesOf(1), PagesOf(2)).ok()) break;
    if (std::filesystem::exists(path_ + ".delta")) {
      std::ifstream in(path_ + ".delta", std::ios::binary);
      delta.assign(std::istreambuf_iterator<char>(in), {});
    }
  }
  ASSERT_FALSE(delta.empty());
  ASSERT_EQ(WriteImage(disk.get(), PagesOf(3)), absl::OkStatus());
  std::ofstream(path_ + ".delta", std::ios::binary) << delta;
  EXPECT_EQ(ReadImage(path_), PagesOf(3));
  // Nor one that is damaged.
  for (const size_t size : {size_t{0}, size_t{100}, delta.size() / 2}) {
    std::ofstream(path_ + ".delta", std::ios::binary | std::ios::trunc) << delta.substr(0, size);
    EXPECT_EQ(ReadImage(path_), PagesOf(3)) << size;
  }
}

}  // namespace
}  // namespace pkram
