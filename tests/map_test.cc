// A file's own pages, mapped by programs that read it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <functional>
#include <memory>
#include <thread>

#include "mount/library/pkramfs.h"
#include "tests/bulk_fixture.h"

namespace pkramfs {
namespace {

class MapTest : public BulkTest {
 protected:
  static constexpr size_t kSize = 1000000;
  static std::string Text(char seed) {
    std::string text(kSize, seed);
    for (size_t i = 0; i < kSize; i += 1000) text[i] = static_cast<char>(i / 1000);
    return text;
  }
  std::string File(const std::string& name, const std::string& text) {
    Spill(At(name), text);
    return At(name);
  }
  // Null, and a failure, if it is not the region's own pages.
  const char* Map(const std::string& path, uint64_t offset = 0, size_t length = 0) {
    const int fd = open(path.c_str(), O_RDONLY);
    int how = 0;
    void* const address = pkramfs_map(fd, offset, length, &how);
    close(fd);
    EXPECT_NE(address, MAP_FAILED) << std::strerror(errno);
    EXPECT_EQ(how, PKRAMFS_OWN_PAGES) << pkramfs_why();
    mapped_.push_back(address);
    return static_cast<const char*>(address);
  }
  void TearDown() override {
    for (void* const address : mapped_) pkramfs_unmap(address);
    MountTest::TearDown();
  }
  void UnmapAll() {
    for (void* const address : mapped_) EXPECT_EQ(pkramfs_unmap(address), 0);
    mapped_.clear();
  }
  uint64_t Held() { return Statistics()["pages"]["held"]; }

  std::vector<void*> mapped_;
};

TEST_F(MapTest, TheBytesAreThoseOfTheFile) {
  Mount("size=64m");
  const std::string text = Text('a'), path = File("file", text);
  const char* const all = Map(path);
  EXPECT_EQ(pkramfs_length(all), kSize);
  EXPECT_EQ(std::string_view(all, kSize), text);
  EXPECT_EQ(all[kSize], 0);  // the rest of the page
  EXPECT_EQ(std::string_view(Map(path, 8192, 10000), 10000), text.substr(8192, 10000));
  EXPECT_EQ(Held(), (kSize + 4095) / 4096);
  EXPECT_NE(mprotect(const_cast<char*>(all), 4096, PROT_READ | PROT_WRITE), 0);
  // Holes are zeros.
  const int fd = open(At("holes").c_str(), O_RDWR | O_CREAT, 0600);
  EXPECT_EQ(pwrite(fd, "x", 1, 5 << 20), 1);
  EXPECT_EQ(ftruncate(fd, 8 << 20), 0);
  close(fd);
  std::string holes(8 << 20, '\0');
  holes[5 << 20] = 'x';
  EXPECT_EQ(std::string_view(Map(At("holes")), holes.size()), holes);
  UnmapAll();
  EXPECT_EQ(pkramfs_unmap(&errno), -1);
  Shell("df " + mount_);
  EXPECT_EQ(Held(), 0u);
  ExpectSound();
}

TEST_F(MapTest, WhatIsStoredThroughAnotherMappingIsSeen) {
  Mount("size=64m");
  const std::string path = File("file", Text('a'));
  const int fd = open(path.c_str(), O_RDWR);
  void* const other = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  static_cast<char*>(other)[5000] = 'Z';
  EXPECT_EQ(Map(path)[5000], 'Z');
  munmap(other, kSize);
  close(fd);
}

TEST_F(MapTest, MappedBytesNeverChange) {
  Mount("size=64m");
  const std::string text = Text('a'), path = File("file", text);
  const char* const all = Map(path);
  const std::string_view mapped(all, kSize);
  std::vector<std::thread> threads;
  // From many threads at once.
  const auto repeat = [&](const std::function<void(int)>& change) {
    threads.emplace_back([change] {
      for (int i = 0; i < 50; ++i) change(i);
    });
  };
  const int fd = open(path.c_str(), O_RDWR);
  repeat([&](int i) { EXPECT_EQ(pwrite(fd, "zzzz", 4, i * 5000), 4); });
  repeat([&](int i) { EXPECT_EQ(ftruncate(fd, 100000 + i * 4096 + 5), 0); });
  repeat([&](int i) {
    EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * 4000, 6000), 0);
  });
  repeat([&](int i) {
    off_t from = i * 4096, to = 600000;
    copy_file_range(fd, &from, fd, &to, 40960, 0);
  });
  repeat([&](int i) { Spill(At("other" + std::to_string(i % 5)), std::string(100000, 'q')); });
  for (std::thread& thread : threads) thread.join();
  close(fd);
  EXPECT_TRUE(mapped == text);
  ASSERT_EQ(unlink(path.c_str()), 0);
  // Every free page is used, another server comes, and the mount goes.
  Shell("head -c 100m /dev/zero > " + At("fill"));
  EXPECT_TRUE(mapped == text);
  const pid_t server = DaemonPid();
  kill(server, SIGKILL);
  Shell("head -c 1m /dev/zero > " + At("fill2") + "; rm " + At("fill*"));
  Shell("head -c 100m /dev/zero > " + At("fill"));
  EXPECT_TRUE(mapped == text);
  Unmount();
  EXPECT_TRUE(mapped == text);
  Mount("size=64m");
  // The file's pages are free when the kernel has said that nobody uses it.
  ASSERT_EQ(unlink(At("fill").c_str()), 0);
  EXPECT_TRUE(Eventually([&] { return close(creat(At("fill").c_str(), 0600)) == 0; }));
  Shell("head -c 100m /dev/zero > " + At("fill"));
  EXPECT_TRUE(mapped == text);
  UnmapAll();
  ASSERT_EQ(unlink(At("fill").c_str()), 0);
  ExpectSound();
}

TEST_F(MapTest, ALargeFileIsLaidOutInFewPiecesOnLargeBoundaries) {
  Mount("size=64m");
  Spill(dir_ + "/large", std::string(16 << 20, 'x'));
  ASSERT_EQ(Import(At("large") + " " + dir_ + "/large").status, 0);
  const int fd = open(At("large").c_str(), O_RDONLY);
  auto hold = std::make_unique<ControlHold>();
  hold->end = 16 << 20;
  ASSERT_EQ(ioctl(fd, kControlHold, hold.get()), 0);
  close(fd);
  EXPECT_LE(hold->count, 4u);
  for (uint64_t i = 0; i < hold->count; ++i) EXPECT_EQ(hold->piece[i].first % 512, 0u);
}

TEST_F(MapTest, AMappedFileStaysWhereItIsWhenTheRegionHasAnotherSize) {
  Mount("size=64m");
  const std::string text = Text('a'), path = File("file", text);
  const std::string_view mapped(Map(path), kSize);
  ASSERT_EQ(unlink(path.c_str()), 0);
  for (const char* size : {"128m", "16m", "64m"}) {
    const Ran ran = Shell(Pkramctl() + " resize " + region_ + " size=" + size);
    ASSERT_EQ(ran.status, 0) << ran.err;
    Shell("head -c 80m /dev/zero > " + At("fill") + "; rm " + At("fill"));
    EXPECT_TRUE(mapped == text);
  }
}

TEST_F(MapTest, WhereItCannotItIsAnOrdinaryMappingAndSaysWhy) {
  Mount("size=64m");
  const auto expect_ordinary = [](const std::string& path, const std::string& text) {
    const int fd = open(path.c_str(), O_RDONLY);
    int how = 0;
    void* const address = pkramfs_map(fd, 0, 0, &how);
    ASSERT_NE(address, MAP_FAILED);
    EXPECT_EQ(how, PKRAMFS_ORDINARY);
    EXPECT_STRNE(pkramfs_why(), "");
    EXPECT_EQ(std::string_view(static_cast<char*>(address), text.size()), text);
    EXPECT_EQ(pkramfs_unmap(address), 0);
    close(fd);
  };
  Spill(dir_ + "/file", "elsewhere");
  expect_ordinary(dir_ + "/file", "elsewhere");
  expect_ordinary(File("small", "small"), "small");
  int how = 0;
  const int empty = open(File("empty", "").c_str(), O_RDONLY);
  EXPECT_EQ(pkramfs_map(empty, 0, 0, &how), MAP_FAILED);
  EXPECT_EQ(errno, EINVAL);
  close(empty);
}

TEST_F(MapTest, TheExamplesOfTheDocumentsWork) {
  if (PKRAMFS_IS_SANITIZED) GTEST_SKIP() << "a program in C would need the sanitizer's library";
  Mount("size=64m");
  const std::string path = File("file", Text('a'));
  uint64_t sum = 0;
  for (const char c : Text('a')) sum += static_cast<unsigned char>(c);
  const std::string library = LIBPKRAMFS, docs = SOURCE_DIR "/docs/examples/";
  const std::string where = library.substr(0, library.rfind('/'));
  const Ran built = Shell("cc -Wall -Werror -I " SOURCE_DIR "/mount/library " + docs + "map.c -o " +
                          dir_ + "/map " + library + " -Wl,-rpath," + where);
  ASSERT_EQ(built.status, 0) << built.err;
  const std::string expected = std::to_string(sum) + ", the region's own pages\n";
  EXPECT_EQ(Shell(dir_ + "/map " + path).out, expected);
  const Ran python =
      Shell("LIBPKRAMFS=" + library + " /usr/bin/python3 " + docs + "map.py " + path);
  EXPECT_EQ(python.out, expected) << python.err;
}

}  // namespace
}  // namespace pkramfs
