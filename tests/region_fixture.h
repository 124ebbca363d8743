// Regions in memory, for tests: a memfd that outlives each time that it is opened.
#ifndef TESTS_REGION_FIXTURE_H_
#define TESTS_REGION_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pkram/region.h"
#include "tests/kept_memory.h"

namespace pkram {

// A backing that passes every call on.  Tests override some of them.
class ForwardingBacking : public Backing {
 public:
  explicit ForwardingBacking(std::unique_ptr<Backing> below)
      : Backing(below->name()), below_(std::move(below)) {}
  int fd() const override { return below_->fd(); }
  absl::StatusOr<uint64_t> Size() const override { return below_->Size(); }
  absl::Status Lock(bool exclusive) override { return below_->Lock(exclusive); }
  absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) override {
    return below_->Map(pages, writable);
  }
  absl::Status Reserve(PageRun run) override { return below_->Reserve(run); }
  absl::Status Read(uint64_t offset, absl::Span<char> bytes) override {
    return below_->Read(offset, bytes);
  }
  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    return below_->Write(offset, bytes);
  }
  absl::Status FillZeros(PageRun run) override { return below_->FillZeros(run); }
  bool HoldsMoreThan(uint64_t pages) const override { return below_->HoldsMoreThan(pages); }
  void GiveBack(PageRun run) override { below_->GiveBack(run); }
  void ShrinkTo(uint64_t pages) override { below_->ShrinkTo(pages); }

 protected:
  Backing& below() { return *below_; }

 private:
  const std::unique_ptr<Backing> below_;
};

class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("region", 0)) {}
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  // The backing between the region and its file, if there is one.
  std::function<std::unique_ptr<Backing>(std::unique_ptr<Backing>)> wrap;

  int fd() const { return fd_; }
  // A descriptor of its own, so that locks are as between two programs.
  std::unique_ptr<Backing> Reopen() const {
    std::unique_ptr<Backing> backing = OpenFdBacking(fd_).value();
    return wrap ? wrap(std::move(backing)) : std::move(backing);
  }
  uint64_t size() const {
    struct stat st;
    fstat(fd_, &st);
    return static_cast<uint64_t>(st.st_size);
  }
  uint64_t memory() const {
    struct stat st;
    fstat(fd_, &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }
  // A copy without holes, which is quick to take and to put back.
  struct Image {
    uint64_t size = 0;
    using Bytes = std::basic_string<char, std::char_traits<char>, pkramfs::KeptMemory<char>>;
    std::vector<std::pair<uint64_t, Bytes>> extents;
    friend auto operator<=>(const Image&, const Image&) = default;
  };
  Image Save() const {
    Image image{size(), {}};
    for (off_t at = 0; (at = lseek(fd_, at, SEEK_DATA)) >= 0;) {
      const off_t end = lseek(fd_, at, SEEK_HOLE);
      Image::Bytes bytes(static_cast<size_t>(end - at), '\0');
      EXPECT_EQ(pread(fd_, bytes.data(), bytes.size(), at), end - at);
      image.extents.emplace_back(static_cast<uint64_t>(at), std::move(bytes));
      at = end;
    }
    return image;
  }
  void Restore(const Image& image) {
    ASSERT_EQ(ftruncate(fd_, 0), 0);
    ASSERT_EQ(ftruncate(fd_, static_cast<off_t>(image.size)), 0);
    for (const auto& [offset, bytes] : image.extents) Poke(offset, bytes.data(), bytes.size());
  }

  std::string Contents() const {
    std::string s(size(), '\0');
    EXPECT_EQ(pread(fd_, s.data(), s.size(), 0), static_cast<ssize_t>(s.size()));
    return s;
  }
  void SetContents(const std::string& s) {
    ASSERT_EQ(ftruncate(fd_, 0), 0);
    ASSERT_EQ(ftruncate(fd_, static_cast<off_t>(s.size())), 0);
    // Zero pages stay holes.
    for (size_t at = 0; at < s.size(); at += kPageSize) {
      const size_t n = std::min<size_t>(kPageSize, s.size() - at);
      static constexpr char kZeros[kPageSize] = {};
      if (std::memcmp(s.data() + at, kZeros, n) == 0) continue;
      ASSERT_EQ(pwrite(fd_, s.data() + at, n, static_cast<off_t>(at)), static_cast<ssize_t>(n));
    }
  }
  void Poke(uint64_t offset, const void* data, size_t size) {
    ASSERT_EQ(pwrite(fd_, data, size, static_cast<off_t>(offset)), static_cast<ssize_t>(size));
  }
  void Poke(uint64_t offset, uint64_t word) { Poke(offset, &word, sizeof(word)); }
  uint64_t Peek(uint64_t offset) const {
    uint64_t word = 0;
    EXPECT_EQ(pread(fd_, &word, sizeof(word), static_cast<off_t>(offset)), 8);
    return word;
  }

 private:
  const int fd_;
};

inline absl::StatusOr<std::unique_ptr<Region>> OpenRegion(const MemoryFile& file,
                                                          uint64_t pages = 0,
                                                          WalkClient* client = nullptr) {
  Region::OpenOptions options;
  options.guarded = true;
  options.pages = pages;
  options.client = client;
  return Region::Open(file.Reopen(), options);
}

inline void FormatRegion(MemoryFile* file, uint64_t pages) {
  ASSERT_EQ(Region::Format(file->Reopen().get(), pages), absl::OkStatus());
}

// Pages that something reaches, or -1 with a failure when the region is not sound.
inline int64_t UsedPages(const MemoryFile& file, WalkClient* client = nullptr) {
  auto report = Region::Check(file.Reopen().get(), client);
  if (!report.ok()) {
    ADD_FAILURE() << report.status();
    return -1;
  }
  for (const Problem& p : report->problems)
    ADD_FAILURE() << "page " << p.page.value() << ": " << p.what;
  return report->problems.empty() ? static_cast<int64_t>(report->used_pages) : -1;
}

}  // namespace pkram

#endif  // TESTS_REGION_FIXTURE_H_
