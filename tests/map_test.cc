// A file's own pages, mapped by programs that read it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <fstream>
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
  std::vector<const char*> gone;
  for (int i = 0; i < 50; ++i) {
    gone.push_back(Map(File("gone" + std::to_string(i), std::string(5000, 'g'))));
  }
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
    EXPECT_GE(copy_file_range(fd, &from, fd, &to, 40960, 0), 0);  // it may be shorter by now
  });
  repeat([&](int i) { Spill(At("other" + std::to_string(i % 5)), std::string(100000, 'q')); });
  repeat([&](int i) {
    EXPECT_EQ(unlink(At("gone" + std::to_string(i)).c_str()), 0);
    Spill(At("gone" + std::to_string(i)), std::string(9000, 'q'));
  });
  repeat([&](int i) {
    const Ran ran =
        Shell(Pkramctl() + " resize " + region_ + (i % 2 == 0 ? " size=96m" : " size=64m"));
    EXPECT_EQ(ran.status, 0) << ran.err;
  });
  for (std::thread& thread : threads) thread.join();
  close(fd);
  const auto expect_unchanged = [&] {
    EXPECT_TRUE(mapped == text);
    for (const char* const file : gone)
      EXPECT_EQ(std::string_view(file, 5000), std::string(5000, 'g'));
  };
  expect_unchanged();
  ASSERT_EQ(unlink(path.c_str()), 0);
  // Every free page is used, another server comes, and the mount goes.
  Shell("head -c 100m /dev/zero > " + At("fill"));
  expect_unchanged();
  const pid_t server = DaemonPid();
  kill(server, SIGKILL);
  Shell("head -c 1m /dev/zero > " + At("fill2") + "; rm " + At("fill*"));
  Shell("head -c 100m /dev/zero > " + At("fill"));
  expect_unchanged();
  Unmount();
  expect_unchanged();
  Mount("size=64m");
  // The file's pages are free when the kernel has said that nobody uses it.
  ASSERT_EQ(unlink(At("fill").c_str()), 0);
  EXPECT_TRUE(Eventually([&] { return close(creat(At("fill").c_str(), 0600)) == 0; }));
  Shell("head -c 100m /dev/zero > " + At("fill"));
  expect_unchanged();
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

TEST_F(MapTest, OfOneRegionSoManyPiecesAreMappedAtATime) {
  Mount("size=256m");
  // Makes a file of every second page of another one, which it shares with it.
  const auto make = [&](const std::string& name, int pieces) {
    const std::string of = At(name + "-of");
    Spill(of, std::string(static_cast<size_t>(pieces) * 8192, 'x'));
    const int from = open(of.c_str(), O_RDONLY);
    const int to = open(At(name).c_str(), O_WRONLY | O_CREAT, 0600);
    for (off_t i = 0; i < pieces; ++i) {
      off_t in = i * 8192, out = i * 4096;
      EXPECT_EQ(copy_file_range(from, &in, to, &out, 4096, 0), 4096);
    }
    close(from);
    close(to);
    return At(name);
  };
  const std::string most = make("most", 5000), one = make("one", 3000), two = make("two", 3000);
  const auto expect_too_many = [&](const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY);
    int how = 0;
    void* const address = pkramfs_map(fd, 0, 0, &how);
    close(fd);
    EXPECT_EQ(how, PKRAMFS_ORDINARY);
    EXPECT_THAT(pkramfs_why(), testing::HasSubstr("4096 pieces"));
    EXPECT_EQ(static_cast<char*>(address)[8192], 'x');
    EXPECT_EQ(pkramfs_unmap(address), 0);
  };
  expect_too_many(most);
  EXPECT_EQ(Map(one)[8192], 'x');
  expect_too_many(two);
  // A successor counts what it finds.
  kill(DaemonPid(), SIGKILL);
  expect_too_many(two);
  UnmapAll();
  EXPECT_EQ(Map(two)[8192], 'x');
  EXPECT_EQ(Held(), 3000u);
}

// How many pages of a file the kernel's page cache has.
size_t CachedPages(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY);
  struct stat st;
  EXPECT_EQ(fstat(fd, &st), 0);
  const auto size = static_cast<size_t>(st.st_size);
  void* const address = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  EXPECT_NE(address, MAP_FAILED);
  std::vector<unsigned char> cached((size + 4095) / 4096);
  EXPECT_EQ(mincore(address, size, cached.data()), 0);
  munmap(address, size);
  close(fd);
  return static_cast<size_t>(std::ranges::count_if(cached, [](int c) { return (c & 1) != 0; }));
}

TEST_F(MapTest, TheKernelKeepsNoSecondCopy) {
  Mount("size=64m");
  const std::string text = Text('a');
  Spill(dir_ + "/file", text);
  ASSERT_EQ(Import(At("file") + " " + dir_ + "/file").status, 0);
  EXPECT_EQ(std::string_view(Map(At("file")), kSize), text);
  EXPECT_EQ(CachedPages(At("file")), 0u);
  // Whoever reads the file in the ordinary way has one made.
  EXPECT_EQ(Slurp(At("file")), text);
  EXPECT_EQ(CachedPages(At("file")), (kSize + 4095) / 4096);
}

// A model is read by numpy, and again after a kill and after a remount.  With
// PKRAMFS_MODEL_MIB=4096 it is as large as models are.
TEST_F(MapTest, NumpyReadsAModelWithoutACopyWhateverBecomesOfTheServer) {
  if (PKRAMFS_IS_SANITIZED) GTEST_SKIP() << "python would need the sanitizer's library";
  const char* const wanted = getenv("PKRAMFS_MODEL_MIB");
  const uint64_t mib = wanted == nullptr ? 32 : std::stoull(wanted);
  Mount("size=" + std::to_string(mib + 64) + "m");
  // Two tensors of whole numbers: sums of floating point are exact.
  const std::string model = dir_ + "/m.safetensors";
  std::ofstream out(model, std::ios::binary);
  const uint64_t half = (mib << 20) / 2;
  std::string header = R"({"a":{"dtype":"F32","shape":[)" + std::to_string(half / 4096) +
                       R"(,1024],"data_offsets":[0,)" + std::to_string(half) +
                       R"(]},"b":{"dtype":"I32","shape":[)" + std::to_string(half / 4) +
                       R"(],"data_offsets":[)" + std::to_string(half) + "," +
                       std::to_string(2 * half) + "]}}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  out.write(reinterpret_cast<const char*>(&length), 8) << header;
  std::vector<float> floats(256 << 10, 3);
  std::vector<int32_t> words(256 << 10, 5);
  for (uint64_t i = 0; i < mib; ++i) {
    const char* const data = i < mib / 2 ? reinterpret_cast<const char*>(floats.data())
                                         : reinterpret_cast<const char*>(words.data());
    out.write(data, 1 << 20);
  }
  out.close();
  ASSERT_EQ(Import(At("model") + " " + model).status, 0);
  const std::string expected = "the region's own pages\na float32 (" + std::to_string(half / 4096) +
                               ", 1024) " + std::to_string(half / 4 * 3) + ".0\nb int32 (" +
                               std::to_string(half / 4) + ",) " + std::to_string(half / 4 * 5) +
                               ".0\n";
  const auto expect_read = [&] {
    const Ran ran = Shell("PYTHONDONTWRITEBYTECODE=1 LIBPKRAMFS=" LIBPKRAMFS
                          " /usr/bin/python3 " SOURCE_DIR "/docs/examples/model.py " +
                          At("model"));
    EXPECT_EQ(ran.out, expected) << ran.err;
    EXPECT_EQ(CachedPages(At("model")), 0u);
  };
  expect_read();
  kill(DaemonPid(), SIGKILL);
  expect_read();
  Kill();
  Mount("size=" + std::to_string(mib + 64) + "m");
  expect_read();
  Unmount();
  Mount("size=" + std::to_string(mib + 64) + "m");
  expect_read();
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
