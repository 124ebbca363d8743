// An image is on the disk as a whole or not at all, whenever the power goes and whatever fails.
#include "pkram/image.h"

#include <sys/stat.h>

#include <sstream>

#include "tests/image_fixture.h"

namespace pkram {
namespace {

class ImageTest : public ImageFixture {};

TEST_F(ImageTest, ItIsThereAndItsDamageIsSeen) {
  EXPECT_EQ(Image::Open(path_).status().code(), absl::StatusCode::kNotFound);
  const auto disk = OpenDisk(path_).value();
  for (const unsigned seed : {1u, 2u}) {
    ASSERT_EQ(WriteImage(disk.get(), PagesOf(seed)), absl::OkStatus());
    EXPECT_EQ(ReadImage(path_), PagesOf(seed));
    EXPECT_EQ(FilesThere(), 1u);
  }
  struct stat st;
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  // Each byte that means something.
  const std::string good = [&] {
    std::ostringstream out;
    out << std::ifstream(path_, std::ios::binary).rdbuf();
    return out.str();
  }();
  const auto is_seen = [&](const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    return ReadImage(path_) == std::nullopt;
  };
  const Pages pages = PagesOf(2);
  for (size_t at = 0; at < good.size(); at += 331) {
    const bool is_hole = at / kPageSize < kPages && !pages.contains(at / kPageSize);
    const bool is_padding =
        (at >= kPages * kPageSize + kPages * 4 && at < (kPages + 1) * kPageSize) ||
        at >= (kPages + 1) * kPageSize + sizeof(format::ImageFooter);
    std::string bad = good;
    bad[at] ^= 0x10;
    EXPECT_EQ(is_seen(bad), !is_hole && !is_padding) << at;
  }
  for (const size_t size : {size_t{0}, kPageSize, good.size() - kPageSize, good.size() - 1}) {
    EXPECT_TRUE(is_seen(good.substr(0, size))) << size;
  }
  EXPECT_FALSE(is_seen(good));
}

// The page is named, and the others are there.
TEST_F(ImageTest, DamagedPagesAreNamed) {
  const auto disk = OpenDisk(path_).value();
  const Pages pages = PagesOf(3);
  ASSERT_EQ(WriteImage(disk.get(), pages), absl::OkStatus());
  const uint64_t bad = pages.begin()->first;
  {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(bad * kPageSize + 5));
    file << "!";
  }
  std::vector<uint64_t> damaged;
  uint64_t visited = 0;
  EXPECT_EQ((*Image::Open(path_))
                ->ForEach(
                    [&](Pfn, absl::Span<const std::byte> bytes) {
                      visited += bytes.size() / kPageSize;
                      return absl::OkStatus();
                    },
                    [&](Pfn pfn) {
                      damaged.push_back(pfn.value());
                      return absl::OkStatus();
                    }),
            absl::OkStatus());
  EXPECT_EQ(damaged, std::vector<uint64_t>{bad});
  EXPECT_EQ(visited, pages.size() - 1);
}

TEST_F(ImageTest, WhateverFailsTheOldOneStays) {
  const auto disk = OpenDisk(path_).value();
  ASSERT_EQ(WriteImage(disk.get(), PagesOf(1)), absl::OkStatus());
  int failures = 0;
  for (int good = 0;; ++good) {
    FailingDisk failing(disk.get(), good);
    const absl::Status s = WriteImage(&failing, PagesOf(2));
    if (s.ok()) break;
    ++failures;
    EXPECT_EQ(s, absl::ResourceExhaustedError("the disk is full"));
    const std::optional<Pages> now = ReadImage(path_);
    // Only when its name was not known to be on the disk it may be the new one.
    EXPECT_TRUE(now == PagesOf(1) || now == PagesOf(2)) << good;
    EXPECT_EQ(FilesThere(), 1u) << good;
  }
  EXPECT_EQ(ReadImage(path_), PagesOf(2));
  EXPECT_GT(failures, 20);
}

TEST_F(ImageTest, WheneverThePowerGoesItIsTheOldOneOrTheNewOne) {
  RememberingDisk disk;
  ASSERT_EQ(WriteImage(&disk, PagesOf(1)), absl::OkStatus());
  const auto [old_ones, new_ones] =
      LosePowerAfterEachCall(&disk, *this, [](Disk* d) { return WriteImage(d, PagesOf(2)); });
  EXPECT_GT(old_ones, 500);
  EXPECT_GT(new_ones, 30);
}

}  // namespace
}  // namespace pkram
