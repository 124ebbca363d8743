// Trees that come in past the kernel's transport, on real mounts.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/xattr.h>

#include <atomic>
#include <random>
#include <thread>

#include "fs/acl.h"
#include "tests/bulk_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

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

// An ACL that gives one user all.
std::string AclFor(uint32_t user) {
  constexpr uint32_t kNobody = ~uint32_t{0};
  return Acl::Of({{Acl::kUserObj, 7, kNobody},
                  {Acl::kUser, 7, user},
                  {Acl::kGroupObj, 5, kNobody},
                  {Acl::kMask, 7, kNobody},
                  {Acl::kOther, 5, kNobody}})
      ->Bytes();
}

std::string XattrOf(const std::string& path, std::string_view name) {
  char value[100];
  const ssize_t size = getxattr(path.c_str(), std::string(name).c_str(), value, sizeof(value));
  return size < 0 ? std::strerror(errno) : std::string(value, static_cast<size_t>(size));
}

TEST_F(BulkTest, ADirectoryThatIsMergedIntoGetsTheAttributesOfTheTree) {
  const auto set = [](const std::string& path, std::string_view name, const std::string& value) {
    EXPECT_EQ(setxattr(path.c_str(), std::string(name).c_str(), value.data(), value.size(), 0), 0)
        << path << ": " << std::strerror(errno);
  };
  const std::string source = dir_ + "/source";
  ASSERT_EQ(Shell("mkdir -p " + source + "/both " + source + "/plain").status, 0);
  set(source, kAccessAcl, AclFor(17));
  set(source + "/both", kAccessAcl, AclFor(17));
  set(source + "/both", kDefaultAcl, AclFor(18));
  set(source + "/both", "user.color", "blue");
  const auto make_target = [&] {
    ASSERT_EQ(Shell("mkdir " + At("both") + " " + At("plain")).status, 0);
    set(At("both"), "user.color", "red");
    set(At("both"), "user.mine", "mine");
    set(At("plain"), kAccessAcl, AclFor(19));
    set(At("plain"), kDefaultAcl, AclFor(19));
  };
  const auto expect_merged = [&] {
    EXPECT_EQ(XattrOf(mount_, kAccessAcl), AclFor(17));
    EXPECT_EQ(XattrOf(At("both"), kAccessAcl), AclFor(17));
    EXPECT_EQ(XattrOf(At("both"), kDefaultAcl), AclFor(18));
    EXPECT_EQ(XattrOf(At("both"), "user.color"), "blue");
    EXPECT_EQ(XattrOf(At("both"), "user.mine"), "mine");
    EXPECT_EQ(XattrOf(At("plain"), kAccessAcl), std::strerror(ENODATA));
    EXPECT_EQ(XattrOf(At("plain"), kDefaultAcl), std::strerror(ENODATA));
    struct stat a, b;
    ASSERT_EQ(stat((source + "/both").c_str(), &a), 0);
    ASSERT_EQ(stat(At("both").c_str(), &b), 0);
    EXPECT_EQ(a.st_mode, b.st_mode);
    EXPECT_EQ(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
    ExpectSound();
  };
  Mount("size=64m");
  make_target();
  ASSERT_EQ(Import("--merge " + mount_ + " " + source).status, 0);
  expect_merged();
  ASSERT_EQ(unlink(region_.c_str()), 0);
  Mount("size=64m");
  make_target();
  Unmount();
  ASSERT_EQ(Import("--merge " + region_ + ":/ " + source).status, 0);
  Mount("size=64m");
  expect_merged();
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
  // (Of files that are copied at once, which one finds no space differs.)
  expect_refused("--threads 1 " + At("v") + " " + one, one + "/large: no space is left");
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
  // On a loaded machine the writer may not get to run meanwhile.
  Ran ran;
  EXPECT_TRUE(Eventually([&] {
    ran = Import("--replace " + At("v") + " " + one);
    return ran.status == 2;
  }));
  done = true;
  writer.join();
  EXPECT_THAT(ran.err, HasSubstr(one + "/large: changed while it was read"));
  ASSERT_EQ(Shell("rm -rf " + At("v")).status, 0);  // of a round that was not disturbed
  EXPECT_EQ(Shell("ls -A " + mount_).out, "");
  ExpectSound();
}

TEST_F(BulkTest, ASourceThatVanishesIsRefused) {
  const std::string one = Version("one", 1000);
  Mount("size=256m");
  std::atomic<bool> done = false;
  std::thread other([&] {
    for (int i = 0; !done; ++i) {
      const std::string path = one + "/" + std::to_string(i % 1000);
      EXPECT_EQ(rename(path.c_str(), (dir_ + "/away").c_str()), 0);
      EXPECT_EQ(rename((dir_ + "/away").c_str(), path.c_str()), 0);
    }
  });
  Ran ran;
  EXPECT_TRUE(Eventually([&] {
    ran = Import(At("v") + " " + one);
    return ran.status == 2 || Shell("rm -r " + At("v")).status != 0;
  }));
  done = true;
  other.join();
  EXPECT_THAT(ran.err, HasSubstr(one + "/"));
  EXPECT_EQ(Shell("ls -A " + mount_).out, "");
  ExpectSound();
}

// By a signal that a terminal or a service manager sends.
TEST_F(BulkTest, WhoIsInterruptedLeavesNothing) {
  const std::string one = Version("one");
  Mount("size=256m");
  const uint64_t free = FreeBlocks(mount_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const std::string pipe = dir_ + "/archive";
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    const pid_t pid = Start(At("v") + " - <" + pipe);
    // An archive that goes on when the program has been ended.
    const int to = open(pipe.c_str(), O_WRONLY);
    const Ran tar = Shell("tar cf " + dir_ + "/tar -C " + one + " large");
    ASSERT_EQ(tar.status, 0);
    const std::string half = Slurp(dir_ + "/tar").substr(0, 4 << 20);
    EXPECT_EQ(write(to, half.data(), half.size()), static_cast<ssize_t>(half.size()));
    kill(pid, signal);
    EXPECT_EQ(Wait(pid), 128 + signal);
    close(to);
    ASSERT_EQ(unlink(pipe.c_str()), 0);
    EXPECT_EQ(Shell("ls -A " + mount_).out, "");
    EXPECT_TRUE(Eventually([&] { return FreeBlocks(mount_) == free; }));
  }
  ExpectSound();
}

TEST_F(BulkTest, WhoIsKilledLeavesNothing) {
  const std::string one = Version("one");
  Mount("size=256m");
  const auto pages = [&](const char* kind) {
    return StatisticsOf(mount_)["pages"][kind].get<uint64_t>();
  };
  const uint64_t data = pages("data"), metadata = pages("metadata");
  std::mt19937 random(7);
  for (uint64_t i = 1; i <= 20; ++i) {
    const pid_t pid = Start(At("v") + " " + one);
    usleep(static_cast<useconds_t>(random() % 60000));
    kill(pid, SIGKILL);
    if (Wait(pid) == 0 || access(At("v").c_str(), F_OK) == 0) {
      ExpectSame(one, At("v"));
      ASSERT_EQ(Shell("rm -r " + At("v")).status, 0);
    }
    EXPECT_EQ(Shell("ls -A " + mount_).out, "");
    EXPECT_TRUE(Eventually([&] { return pages("lent") == 0 && pages("data") == data; }));
    // The table grows by a link for each tree whose inodes the kernel still knows.
    EXPECT_TRUE(Eventually([&] { return pages("metadata") <= metadata + 1 + i; }));
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
  // It builds, and places nothing.
  EXPECT_TRUE(Eventually([&] { return Statistics()["pages"]["lent"] > 2000; }));
  EXPECT_NE(access(At("v").c_str(), F_OK), 0);
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
  const Ran done = Import("--json " + At("v") + " " + one);
  ASSERT_EQ(done.status, 0) << done.err;
  EXPECT_EQ(nlohmann::json::parse(done.out)["inodes"], 202);
  EXPECT_EQ(nlohmann::json::parse(done.out)["bytes"], json["bytes"]);
  const uint64_t took = (free - FreeBlocks(mount_)) * 4096;
  EXPECT_NEAR(static_cast<double>(json["takes"]), static_cast<double>(took), 100 * 4096);
}

TEST_F(BulkTest, ARegionIsFilledAsItIsMade) {
  MakeOddTree(odd());
  Ran ran = Shell(std::string(MKFS_BINARY) + " -o size=256m -d " + odd() + " " + region_);
  ASSERT_EQ(ran.status, 0) << ran.err;
  Mount("size=256m");
  ExpectSame(odd() + "/many", At("many"));
  struct stat a, b;
  ASSERT_EQ(stat(odd().c_str(), &a), 0);
  ASSERT_EQ(stat(mount_.c_str(), &b), 0);
  EXPECT_EQ(a.st_mode, b.st_mode);
  EXPECT_EQ(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
  ExpectSound();
  ASSERT_EQ(unlink(region_.c_str()), 0);
  // If the region cannot be filled, it is not made.
  ran = Shell(std::string(MKFS_BINARY) + " -o size=1m -d " + odd() + " " + region_);
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("no space is left"));
  EXPECT_NE(access(region_.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace pkramfs
