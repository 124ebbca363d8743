// Trees that come in past the kernel's transport, on real mounts.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <atomic>
#include <random>
#include <thread>

#include "mount/library/pkramfs.h"
#include "tests/manifest.h"
#include "tests/mount_fixture.h"
#include "tests/odd_tree.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class BulkTest : public MountTest {
 protected:
  Ran Import(const std::string& words) { return Shell(Pkramctl() + " import " + words); }
  // On tmpfs, which takes attributes of any size.
  std::string odd() const { return region_ + "-odd"; }
  std::string At(const std::string& name) const { return mount_ + "/" + name; }
  static uint64_t FreeBlocks(const std::string& path) {
    struct statvfs st;
    EXPECT_EQ(statvfs(path.c_str(), &st), 0);
    return st.f_bfree;
  }
  void ExpectSame(const std::string& a, const std::string& b) {
    const ManifestOptions kept{.inode_numbers = false, .blocks = false, .all_times = true};
    EXPECT_EQ(FirstDifference(ManifestOf(a, kept), ManifestOf(b, kept)), "");
  }
  void ExpectSound() {
    Unmount();
    const Ran check = Shell(Pkramctl() + " check " + region_);
    EXPECT_EQ(check.status, 0) << check.out;
  }
  // Many small files, and a large one: `name` in each.
  std::string Version(const std::string& name, int files = 200) {
    const std::string tree = dir_ + "/" + name;
    mkdir(tree.c_str(), 0755);
    for (int i = 0; i < files; ++i) Spill(tree + "/" + std::to_string(i), name);
    std::string large;
    while (large.size() < (8 << 20)) large += name;
    Spill(tree + "/large", large);
    return tree;
  }
  pid_t Start(const std::string& words) {
    const pid_t pid = fork();
    if (pid == 0) {
      execl("/bin/sh", "sh", "-c",
            ("exec " + Pkramctl() + " import " + words + " >/dev/null 2>&1").c_str(), nullptr);
      _exit(127);
    }
    return pid;
  }
  static int Wait(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
};

TEST_F(BulkTest, WhatIsImportedIsWhatIsThere) {
  MakeOddTree(odd());
  Mount("size=256m");
  // The kernel may have looked for it before.
  EXPECT_NE(access(At("odd").c_str(), F_OK), 0);
  const Ran ran = Import(At("odd") + " " + odd());
  ASSERT_EQ(ran.status, 0) << ran.err;
  ExpectSame(odd(), At("odd"));
  // By other names of the same place, with one thread; several sources; a file.
  ASSERT_EQ(Import("--threads 1 " + region_ + ":/two " + odd() + "/").status, 0);
  ExpectSame(odd(), At("two"));
  Spill(dir_ + "/file", "text");
  ASSERT_EQ(Import(mount_ + ":/both " + odd() + " " + dir_ + "/file").status, 0);
  ExpectSame(odd(), At("both/" + odd().substr(9)));
  ASSERT_EQ(Import(At("both/again") + " " + dir_ + "/file").status, 0);
  EXPECT_EQ(Slurp(At("both/again")), "text");
  ExpectSound();
  Mount("size=256m");
  ExpectSame(odd(), At("odd"));
  ExpectSame(odd(), At("both/" + odd().substr(9)));
}

TEST_F(BulkTest, ARegionThatIsNotMountedIsFilledInTheSameWay) {
  MakeOddTree(odd());
  Mount("size=256m");
  Unmount();
  const Ran ran = Import(region_ + ":/odd " + odd());
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(Import(region_ + ":/odd " + odd()).status, 2);
  ASSERT_EQ(Import("--replace " + region_ + ":/odd " + odd()).status, 0);
  ASSERT_EQ(Import("--merge " + region_ + ":/ " + odd()).status, 0);
  Mount("size=256m");
  ExpectSame(odd(), At("odd"));
  EXPECT_EQ(Slurp(At("small")), "small");
  ExpectSound();
}

TEST_F(BulkTest, WhatIsThereIsKeptExchangedOrMerged) {
  const std::string one = Version("one"), two = Version("two");
  Mount("size=256m");
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  const uint64_t free = FreeBlocks(mount_);
  Ran ran = Import(At("v") + " " + two);
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr(At("v") + " exists"));
  EXPECT_EQ(Slurp(At("v/7")), "one");
  ran = Import("--replace " + At("v") + " " + two);
  ASSERT_EQ(ran.status, 0) << ran.err;
  ExpectSame(two, At("v"));
  EXPECT_LE(FreeBlocks(mount_), free);
  EXPECT_GE(FreeBlocks(mount_) + 1, free);  // the table has grown
  ASSERT_EQ(unlink(At("v/7").c_str()), 0);
  Spill(At("v/mine"), "mine");
  ran = Import("--merge " + At("v") + " " + one);
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(Slurp(At("v/mine")), "mine");
  ASSERT_EQ(unlink(At("v/mine").c_str()), 0);
  EXPECT_EQ(Slurp(At("v/7")), "one");
  EXPECT_EQ(Shell("diff -r " + one + " " + At("v")).status, 0);
  // A file in the way of a directory.
  mkdir(odd().c_str(), 0755);
  mkdir((odd() + "/7").c_str(), 0755);
  ran = Import("--merge " + At("v") + " " + odd());
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr(At("v/7")));
  EXPECT_EQ(Slurp(At("v/7")), "one");
  ExpectSound();
}

TEST_F(BulkTest, WhatCannotBeDoneLeavesNothing) {
  const std::string one = Version("one");
  Mount("size=4m");
  const uint64_t free = FreeBlocks(mount_);
  const auto expect_refused = [&](const std::string& words, const std::string& why) {
    const Ran ran = Import(words);
    EXPECT_EQ(ran.status, 2) << words;
    EXPECT_THAT(ran.err, HasSubstr(why));
    EXPECT_EQ(Shell("ls -A " + mount_).out, "");
    EXPECT_EQ(FreeBlocks(mount_), free);
  };
  expect_refused(At("v") + " " + one, one + "/large: no space is left");
  expect_refused(At("v") + " " + dir_ + "/absent", dir_ + "/absent: No such file");
  expect_refused(At("no/v") + " " + one, "No such file");
  expect_refused("--replace --merge " + At("v") + " " + one, "exclude");
  expect_refused("--replace " + mount_ + " " + one, "root of a filesystem cannot be replaced");
  expect_refused(region_ + ":/../v " + one, "has no ..");
  expect_refused(dir_ + "/v " + one, "not on a pkramfs");
  expect_refused(At("v"), "source");
  // A directory that its owner may not read is no tree.
  const Ran user = Shell("chmod 777 " + mount_ +
                         "; setpriv --reuid 65534 --regid 65534 "
                         "--clear-groups " +
                         Pkramctl() + " import " + At("v") + " " + one);
  EXPECT_EQ(user.status, 2) << user.out;
  EXPECT_EQ(Shell("ls -A " + mount_).out, "");
  ExpectSound();
}

TEST_F(BulkTest, ASourceThatChangesIsRefused) {
  const std::string one = Version("one");
  Mount("size=256m");
  std::atomic<bool> done = false;
  std::thread writer([&] {
    const int fd = open((one + "/large").c_str(), O_WRONLY | O_APPEND);
    while (!done) EXPECT_EQ(write(fd, "x", 1), 1);
    close(fd);
  });
  const Ran ran = Import(At("v") + " " + one);
  done = true;
  writer.join();
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr(one + "/large: changed while it was read"));
  EXPECT_EQ(Shell("ls -A " + mount_).out, "");
}

TEST_F(BulkTest, WhoIsKilledLeavesNothing) {
  const std::string one = Version("one");
  Mount("size=256m");
  const uint64_t free = FreeBlocks(mount_);
  std::mt19937 random(7);
  for (int i = 0; i < 20; ++i) {
    const pid_t pid = Start(At("v") + " " + one);
    usleep(static_cast<useconds_t>(random() % 60000));
    kill(pid, SIGKILL);
    if (Wait(pid) == 0 || access(At("v").c_str(), F_OK) == 0) {
      ExpectSame(one, At("v"));
      ASSERT_EQ(Shell("rm -r " + At("v")).status, 0);
    }
    EXPECT_EQ(Shell("ls -A " + mount_).out, "");
    EXPECT_GE(FreeBlocks(mount_) + 4, free);
  }
  ExpectSound();
}

TEST_F(BulkTest, AServerThatDiesMeanwhileIsAClearErrorOrNothing) {
  const std::string one = Version("one");
  Mount("size=256m");
  std::mt19937 random(11);
  int done = 0;
  for (int i = 0; i < 10; ++i) {
    const pid_t server = DaemonPid();
    const pid_t pid = Start(At("v") + " " + one);
    usleep(static_cast<useconds_t>(random() % 40000));
    kill(server, SIGKILL);
    if (Wait(pid) == 0) {
      ++done;
      ExpectSame(one, At("v"));
      ASSERT_EQ(Shell("rm -r " + At("v")).status, 0);
    }
    EXPECT_EQ(Shell("ls -A " + mount_).out, "");
  }
  EXPECT_GT(done, 0);
  ExpectSound();
}

TEST_F(BulkTest, ReadersSeeOneWholeVersion) {
  const std::string one = Version("one", 40), two = Version("two", 40);
  Mount("size=256m");
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  std::atomic<bool> done = false;
  std::atomic<uint64_t> reads = 0;
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&] {
      while (!done) {
        // A version, by the directory that is there now; it may be deleted meanwhile.
        const int dir = open(At("v").c_str(), O_RDONLY | O_DIRECTORY);
        EXPECT_GE(dir, 0);
        std::string version;
        for (int i = 0; i < 40; ++i) {
          char text[8] = {};
          const int fd = openat(dir, std::to_string(i).c_str(), O_RDONLY);
          if (fd < 0) continue;
          EXPECT_EQ(read(fd, text, sizeof(text)), 3);
          close(fd);
          if (version.empty()) version = text;
          EXPECT_EQ(version, text);
        }
        close(dir);
        ++reads;
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    const uint64_t before = reads;
    EXPECT_EQ(Import("--replace " + At("v") + " " + (i % 2 == 0 ? two : one)).status, 0);
    EXPECT_TRUE(Eventually([&] { return reads > before; }));
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  ExpectSame(one, At("v"));
  ExpectSound();
}

TEST_F(BulkTest, AnImportWaitsWhileItIsFrozen) {
  const std::string one = Version("one");
  Mount("size=256m");
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  const pid_t pid = Start(At("v") + " " + one);
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  EXPECT_EQ(Wait(pid), 0);
  ExpectSame(one, At("v"));
  ExpectSound();
}

TEST_F(BulkTest, WhatWasImportedIsInTheNextCheckpoint) {
  const std::string one = Version("one"), two = Version("two");
  const std::string image = dir_ + "/image";
  Mount("size=64m,checkpoint=" + image);
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  ASSERT_EQ(Shell(Pkramctl() + " checkpoint " + region_).status, 0);
  ASSERT_EQ(Import("--replace " + At("v") + " " + two).status, 0);
  ASSERT_EQ(Shell(Pkramctl() + " checkpoint " + region_).status, 0);
  Unmount();
  const std::string restored = region_ + ".restored";
  const Ran ran = Shell(Pkramctl() + " restore " + image + " " + restored);
  ASSERT_EQ(ran.status, 0) << ran.err;
  ASSERT_EQ(Shell(Pkramfs() + " " + restored + " " + mount_).status, 0);
  ExpectSame(two, At("v"));
  ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
  ASSERT_TRUE(WaitUntilRegionIsFree(restored));
}

TEST_F(BulkTest, ADryRunDoesNothing) {
  const std::string one = Version("one");
  Mount("size=256m");
  const Ran ran = Import("--dry-run --json " + At("v") + " " + one);
  ASSERT_EQ(ran.status, 0) << ran.err;
  const nlohmann::json json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["inodes"], 202);
  const uint64_t free = FreeBlocks(mount_);
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  const uint64_t took = (free - FreeBlocks(mount_)) * 4096;
  EXPECT_NEAR(static_cast<double>(json["takes"]), static_cast<double>(took), 100 * 4096);
}

// --- Reading without a copy -------------------------------------------------------------

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
  Shell("rm " + At("fill") + "; head -c 100m /dev/zero > " + At("fill"));
  EXPECT_TRUE(mapped == text);
  UnmapAll();
  ASSERT_EQ(unlink(At("fill").c_str()), 0);
  ExpectSound();
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
