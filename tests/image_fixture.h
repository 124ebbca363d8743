// Images of a few pages, and disks that fail or lose their power.
#ifndef TESTS_IMAGE_FIXTURE_H_
#define TESTS_IMAGE_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "pkram/image.h"

namespace pkram {

inline constexpr uint64_t kPages = 40;
inline constexpr uint8_t kUuid[16] = {1, 2, 3};

// Pages of the image, each filled with a byte.
using Pages = std::map<uint64_t, char>;

inline Pages PagesOf(unsigned seed) {
  std::minstd_rand random(seed);
  Pages pages;
  for (uint64_t i = 0; i < kPages; ++i) {
    if (random() % 3 != 0) pages[i] = static_cast<char>('a' + random() % 26);
  }
  return pages;
}

inline absl::Status WriteImage(Disk* disk, const Pages& pages) {
  auto writer = ImageWriter::Begin(disk, kPages, kUuid, 1000);
  if (!writer.ok()) return writer.status();
  // Delivers the pages in no order.
  std::vector<uint64_t> order;
  for (const auto& [page, byte] : pages) order.push_back(page);
  std::ranges::shuffle(order, std::minstd_rand(1));
  for (const uint64_t page : order) {
    const std::string bytes(kPageSize, pages.at(page));
    const absl::Status s =
        (*writer)->Add(Pfn(page), {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
    if (!s.ok()) return s;
  }
  return (*writer)->Commit();
}

// The pages that an image shows.  Nothing when the file is no image.
inline std::optional<Pages> ReadImage(const std::string& path) {
  const auto image = Image::Open(path);
  if (!image.ok()) return std::nullopt;
  Pages pages;
  const absl::Status s = (*image)->ForEach(
      [&](Pfn pfn, absl::Span<const std::byte> bytes) {
        for (uint64_t i = 0; i < bytes.size(); i += kPageSize) {
          pages[pfn.value() + i / kPageSize] = static_cast<char>(bytes[i]);
        }
        return absl::OkStatus();
      },
      [](Pfn) { return absl::DataLossError("damaged"); });
  if (!s.ok()) return std::nullopt;
  EXPECT_EQ((*image)->footer().pages_in_use, pages.size());
  return pages;
}

class ImageFixture : public testing::Test {
 public:
  ImageFixture() {
    char name[] = "/tmp/pkram-image-XXXXXX";
    dir_ = mkdtemp(name);
    path_ = dir_ + "/image";
  }
  ~ImageFixture() override { (void)!system(("rm -rf " + dir_).c_str()); }
  const std::string& path() const { return path_; }
  // Writes an image over what is there.
  void PutFiles(const std::map<std::string, std::string>& files) const {
    for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
      std::filesystem::remove(entry);
    }
    for (const auto& [suffix, bytes] : files) {
      std::ofstream(path_ + suffix, std::ios::binary | std::ios::trunc) << bytes;
    }
  }
  size_t FilesThere() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {}));
  }

 protected:
  std::string dir_, path_;
};

// A disk that lets a chosen call fail.
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
  absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& suffix) override {
    if (absl::Status s = Next(); !s.ok()) return s;
    absl::StatusOr<std::unique_ptr<DiskFile>> file = below_->Open(suffix);
    if (!file.ok()) return file;
    return std::make_unique<File>(this, *std::move(file));
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (absl::Status s = Next(); !s.ok()) return s;
    return below_->Rename(from, to);
  }
  absl::Status SyncNames() override { return Next(); }
  absl::Status RoomFor(uint64_t bytes) override { return below_->RoomFor(bytes); }
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
    absl::Status Read(uint64_t offset, absl::Span<std::byte> bytes) override {
      if (absl::Status s = disk_->Next(); !s.ok()) return s;
      return below_->Read(offset, bytes);
    }
    absl::Status Sync() override { return disk_->Next(); }
    void GiveBack(uint64_t offset, uint64_t bytes) override { below_->GiveBack(offset, bytes); }

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

// A disk that remembers all calls in their order.  It can produce every state that may be on it
// after a power loss: any of the writes since a file's last Sync, and the first few of the changes
// of names since the last SyncNames.
class RememberingDisk final : public Disk {
 public:
  struct Write {
    uint64_t offset;
    std::string bytes;
    bool is_synced = false;
  };
  using File = std::vector<Write>;
  using Names = std::map<std::string, size_t>;
  // Is called after each call.
  std::function<void()> after_each;

  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& suffix) override {
    files_.emplace_back();
    Change([suffix, id = files_.size() - 1](Names* names) { (*names)[suffix] = id; });
    return std::make_unique<Handle>(this, files_.size() - 1);
  }
  absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& suffix) override {
    return std::make_unique<Handle>(this, NamesNow().at(suffix));
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
  absl::Status RoomFor(uint64_t) override { return absl::OkStatus(); }
  void Remove(const std::string& suffix) override {
    Change([suffix](Names* names) { names->erase(suffix); });
  }

  // One possible state of the files, by their suffixes behind NAME.
  std::map<std::string, std::string> AfterPowerLoss(std::minstd_rand* random) const {
    Names names = names_;
    const size_t count = (*random)() % (changes_.size() + 1);
    for (size_t i = 0; i < count; ++i) changes_[i](&names);
    std::map<std::string, std::string> files;
    for (const auto& [suffix, id] : names) {
      files[suffix] =
          Bytes(id, [&](const Write& write) { return write.is_synced || (*random)() % 2 == 0; });
    }
    return files;
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
    absl::Status Read(uint64_t offset, absl::Span<std::byte> bytes) override {
      const std::string all = disk_->Bytes(id_, [](const RememberingDisk::Write&) { return true; });
      if (offset + bytes.size() > all.size()) return absl::InternalError("it ends before");
      std::memcpy(bytes.data(), all.data() + offset, bytes.size());
      return absl::OkStatus();
    }
    absl::Status Sync() override {
      for (RememberingDisk::Write& write : disk_->files_[id_]) write.is_synced = true;
      disk_->Done();
      return absl::OkStatus();
    }
    void GiveBack(uint64_t offset, uint64_t bytes) override {
      disk_->files_[id_].push_back({offset, std::string(bytes, '\0')});
      disk_->Done();
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
  Names NamesNow() const {
    Names names = names_;
    for (const auto& change : changes_) change(&names);
    return names;
  }
  std::string Bytes(size_t id, const std::function<bool(const Write&)>& is_there) const {
    std::string bytes;
    for (const Write& write : files_[id]) {
      if (!is_there(write)) continue;
      if (bytes.size() < write.offset + write.bytes.size()) {
        bytes.resize(write.offset + write.bytes.size());
      }
      bytes.replace(write.offset, write.bytes.size(), write.bytes);
    }
    return bytes;
  }

  std::vector<File> files_;
  Names names_;  // on the disk for good
  std::vector<std::function<void(Names*)>> changes_;
};

// Checks a `change` of an image that shows PagesOf(1).  If the power goes after any call to the
// disk, the image must show PagesOf(1) or PagesOf(2).  Once `change` is done, it must show the
// second.  Returns how often each was seen.
inline std::pair<int, int> LosePowerAfterEachCall(
    RememberingDisk* disk, const ImageFixture& fixture,
    const std::function<absl::Status(RememberingDisk*)>& change) {
  std::minstd_rand random(1);
  int old_ones = 0, new_ones = 0;
  const auto look = [&] {
    for (int i = 0; i < 30; ++i) {
      fixture.PutFiles(disk->AfterPowerLoss(&random));
      const std::optional<Pages> now = ReadImage(fixture.path());
      ASSERT_TRUE(now == PagesOf(1) || now == PagesOf(2));
      ++(now == PagesOf(1) ? old_ones : new_ones);
    }
  };
  disk->after_each = look;
  EXPECT_EQ(change(disk), absl::OkStatus());
  const int before = old_ones;
  look();
  EXPECT_EQ(old_ones, before);
  disk->after_each = nullptr;
  return {old_ones, new_ones};
}

}  // namespace pkram

#endif  // TESTS_IMAGE_FIXTURE_H_
