// An image is on the disk as a whole or not at all, whenever the power goes and whatever fails.
#include "pkram/image.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "tests/region_fixture.h"

namespace pkram {
namespace {

constexpr uint64_t kPages = 40;
constexpr uint8_t kUuid[16] = {1, 2, 3};

// Pages of the image, each filled with a byte.
using Pages = std::map<uint64_t, char>;

Pages PagesOf(unsigned seed) {
  std::minstd_rand random(seed);
  Pages pages;
  for (uint64_t i = 0; i < kPages; ++i) {
    if (random() % 3 != 0) pages[i] = static_cast<char>('a' + random() % 26);
  }
  return pages;
}

absl::Status WriteImage(Disk* disk, const Pages& pages) {
  auto writer = ImageWriter::Begin(disk, kPages, kUuid, 1000);
  if (!writer.ok()) return writer.status();
  // In no order.
  std::vector<uint64_t> order;
  for (const auto& [page, byte] : pages) order.push_back(page);
  std::ranges::shuffle(order, std::minstd_rand(1));
  for (const uint64_t page : order) {
    const std::string bytes(kPageSize, pages.at(page));
    const absl::Status s = (*writer)->Add(
        Pfn(page), {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
    if (!s.ok()) return s;
  }
  return (*writer)->Commit();
}

// What an image shows; nothing when it is none.
std::optional<Pages> ReadImage(const std::string& path) {
  const auto image = Image::Open(path);
  if (!image.ok()) return std::nullopt;
  Pages pages;
  const absl::Status s = (*image)->ForEach(
      [&](Pfn pfn, absl::Span<const std::byte> bytes) {
        pages[pfn.value()] = static_cast<char>(bytes[0]);
        return absl::OkStatus();
      },
      [](Pfn) { return absl::DataLossError("damaged"); });
  if (!s.ok()) return std::nullopt;
  EXPECT_EQ((*image)->footer().pages_in_use, pages.size());
  return pages;
}

class ImageTest : public testing::Test {
 protected:
  ImageTest() {
    char name[] = "/tmp/pkram-image-XXXXXX";
    dir_ = mkdtemp(name);
    path_ = dir_ + "/image";
  }
  ~ImageTest() override { (void)!system(("rm -rf " + dir_).c_str()); }
  size_t FilesThere() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {}));
  }
  std::string dir_, path_;
};

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
                    [&](Pfn, absl::Span<const std::byte>) {
                      ++visited;
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

// A disk of which each call may be the one that fails.
class FailingDisk final : public Disk {
 public:
  FailingDisk(Disk* below, int good) : below_(below), good_(good) {}
  bool has_failed() const { return good_ < 0; }

  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& suffix) override {
    if (absl::Status s = Next(); !s.ok()) return s;
    auto file = below_->Create(suffix);
    if (!file.ok()) return file.status();
    return std::make_unique<File>(this, *std::move(file));
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (absl::Status s = Next(); !s.ok()) return s;
    return below_->Rename(from, to);
  }
  absl::Status SyncNames() override { return Next(); }
  void Remove(const std::string& suffix) override { below_->Remove(suffix); }

 private:
  class File final : public DiskFile {
   public:
    File(FailingDisk* disk, std::unique_ptr<DiskFile> below)
        : disk_(disk), below_(std::move(below)) {}
    absl::Status Write(uint64_t offset, absl::Span<const std::byte> bytes) override {
      if (absl::Status s = disk_->Next(); !s.ok()) return s;
      return below_->Write(offset, bytes);
    }
    absl::Status Sync() override { return disk_->Next(); }

   private:
    FailingDisk* const disk_;
    const std::unique_ptr<DiskFile> below_;
  };
  absl::Status Next() {
    return --good_ >= 0 ? absl::OkStatus() : absl::ResourceExhaustedError("the disk is full");
  }

  Disk* const below_;
  int good_;
};

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

// A disk that remembers what was done in which order, and can tell what may be on it when the power
// goes: of the writes since a file's last Sync any, and of the changes of names since the last
// SyncNames the first so many.
class RememberingDisk final : public Disk {
 public:
  struct Write {
    uint64_t offset;
    std::string bytes;
    bool is_synced = false;
  };
  using File = std::vector<Write>;
  using Names = std::map<std::string, size_t>;
  // After each call.
  std::function<void()> after_each;

  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& suffix) override {
    files_.emplace_back();
    Change([suffix, id = files_.size() - 1](Names* names) { (*names)[suffix] = id; });
    return std::make_unique<Handle>(this, files_.size() - 1);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    Change([from, to](Names* names) {
      (*names)[to] = names->at(from);
      names->erase(from);
    });
    return absl::OkStatus();
  }
  absl::Status SyncNames() override {
    for (const auto& change : changes_) change(&names_);
    changes_.clear();
    Done();
    return absl::OkStatus();
  }
  void Remove(const std::string& suffix) override {
    Change([suffix](Names* names) { names->erase(suffix); });
  }

  // One of the states of the file NAME; nothing when there is none.
  std::optional<std::string> AfterPowerLoss(std::minstd_rand* random) const {
    Names names = names_;
    const size_t count = (*random)() % (changes_.size() + 1);
    for (size_t i = 0; i < count; ++i) changes_[i](&names);
    const auto found = names.find("");
    if (found == names.end()) return std::nullopt;
    std::string bytes;
    for (const Write& write : files_[found->second]) {
      if (!write.is_synced && (*random)() % 2 == 0) continue;
      if (bytes.size() < write.offset + write.bytes.size()) {
        bytes.resize(write.offset + write.bytes.size());
      }
      bytes.replace(write.offset, write.bytes.size(), write.bytes);
    }
    return bytes;
  }

 private:
  class Handle final : public DiskFile {
   public:
    Handle(RememberingDisk* disk, size_t id) : disk_(disk), id_(id) {}
    absl::Status Write(uint64_t offset, absl::Span<const std::byte> bytes) override {
      disk_->files_[id_].push_back(
          {offset, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
      disk_->Done();
      return absl::OkStatus();
    }
    absl::Status Sync() override {
      for (RememberingDisk::Write& write : disk_->files_[id_]) write.is_synced = true;
      disk_->Done();
      return absl::OkStatus();
    }

   private:
    RememberingDisk* const disk_;
    const size_t id_;
  };
  void Change(std::function<void(Names*)> change) {
    changes_.push_back(std::move(change));
    Done();
  }
  void Done() {
    if (after_each) after_each();
  }

  std::vector<File> files_;
  Names names_;  // on the disk for good
  std::vector<std::function<void(Names*)>> changes_;
};

TEST_F(ImageTest, WheneverThePowerGoesItIsTheOldOneOrTheNewOne) {
  RememberingDisk disk;
  ASSERT_EQ(WriteImage(&disk, PagesOf(1)), absl::OkStatus());
  std::minstd_rand random(1);
  int old_ones = 0, new_ones = 0;
  bool is_committed = false;
  const auto look = [&] {
    for (int i = 0; i < 30; ++i) {
      const std::optional<std::string> bytes = disk.AfterPowerLoss(&random);
      ASSERT_TRUE(bytes);
      std::ofstream(path_, std::ios::binary | std::ios::trunc) << *bytes;
      const std::optional<Pages> now = ReadImage(path_);
      ASSERT_TRUE(now == PagesOf(1) || now == PagesOf(2));
      ++(now == PagesOf(1) ? old_ones : new_ones);
      if (is_committed) {
        EXPECT_EQ(now, PagesOf(2));
      }
    }
  };
  disk.after_each = look;
  ASSERT_EQ(WriteImage(&disk, PagesOf(2)), absl::OkStatus());
  is_committed = true;
  look();
  EXPECT_GT(old_ones, 500);
  EXPECT_GT(new_ones, 30);
}

}  // namespace
}  // namespace pkram
