// Trees that go out past the kernel's transport, and come back.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "mount/library/pkramfs.h"
#include "tests/bulk_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class ExportTest : public BulkTest {
 protected:
  Ran Export(const std::string& words) { return Shell(Pkramctl() + " export " + words); }
  std::string Ctl() const { return Pkramctl(); }
  void MakeOdd() {
    MakeOddTree(odd());
    // Archives know nothing of sockets.
    ASSERT_EQ(Shell("find " + odd() + " -type s -delete").status, 0);
    ASSERT_EQ(Import(At("odd") + " " + odd()).status, 0);
  }
};

TEST_F(ExportTest, WhatGoesOutAndComesInIsTheSame) {
  Mount("size=256m");
  MakeOdd();
  Ran ran = Shell(Ctl() + " export " + At("odd") + " | " + Ctl() + " import " + At("again") + " -");
  ASSERT_EQ(ran.status, 0) << ran.err;
  ExpectSame(odd(), At("again"));
  // To a directory; by tar, as far as tar goes.
  const std::string out = region_ + "-out";
  ran = Export(At("odd") + " " + out);
  ASSERT_EQ(ran.status, 0) << ran.err;
  ExpectSame(odd(), out);
  ran = Shell(Ctl() + " export " + At("odd") + " | tar -C " + dir_ + " -xf - && diff -r " + odd() +
              " " + dir_ + " | grep -v \"Only in " + dir_ + ": mnt\"");
  EXPECT_THAT(ran.out, testing::Not(HasSubstr("differ"))) << ran.out;
  // From the region, when it is not mounted, also when it may be read only.
  Unmount();
  ASSERT_EQ(chmod(region_.c_str(), 0400), 0);
  ran = Shell(Ctl() + " export " + region_ + ":/odd > " + region_ + "-tar");
  ASSERT_EQ(ran.status, 0) << ran.err;
  ASSERT_EQ(chmod(region_.c_str(), 0600), 0);
  ran = Shell(Ctl() + " import " + region_ + ":/third - < " + region_ + "-tar");
  ASSERT_EQ(ran.status, 0) << ran.err;
  Mount("size=256m");
  ExpectSame(odd(), At("third"));
  ExpectSound();
}

TEST_F(ExportTest, ItIsOneMomentWhileOthersChangeIt) {
  const std::string one = Version("one", 50);
  Mount("size=256m");
  ASSERT_EQ(mkdir(At("v").c_str(), 0755), 0);
  // Two files that are always the same, but between two writes of them.
  Spill(At("v/a"), std::string(20000, '0'));
  Spill(At("v/b"), std::string(20000, '0'));
  std::atomic<bool> done = false;
  std::atomic<uint64_t> rounds = 0;
  std::thread writer([&] {
    const int a = open(At("v/a").c_str(), O_WRONLY), b = open(At("v/b").c_str(), O_WRONLY);
    for (int i = 0; !done; ++i) {
      const std::string text(20000, static_cast<char>('0' + i % 10));
      EXPECT_EQ(pwrite(a, text.data(), text.size(), 0), 20000);
      EXPECT_EQ(pwrite(b, text.data(), text.size(), 0), 20000);
      Spill(At("v/other" + std::to_string(i % 3)), text);
      ++rounds;
    }
    close(a);
    close(b);
  });
  for (int i = 0; i < 10; ++i) {
    const uint64_t before = rounds;
    const std::string out = region_ + "-out" + std::to_string(i);
    const Ran ran = Export(At("v") + " " + out);
    EXPECT_EQ(ran.status, 0) << ran.err;
    const std::string a = Slurp(out + "/a"), b = Slurp(out + "/b");
    // b is as a is, or one behind; and each is of one write.
    EXPECT_EQ(a, std::string(20000, a[0]));
    EXPECT_EQ(b, std::string(20000, b[0]));
    EXPECT_TRUE(a[0] == b[0] || (a[0] - b[0] + 10) % 10 == 1) << a[0] << b[0];
    EXPECT_TRUE(Eventually([&] { return rounds > before + 3; }));
  }
  done = true;
  writer.join();
  EXPECT_EQ(Statistics()["pages"]["held"], 0);
  ExpectSound();
}

TEST_F(ExportTest, WhatIsMountedIsWhatGoesOut) {
  const std::string one = Version("one", 5), two = Version("two", 5);
  Mount("size=64m");
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  Unmount();
  // Another filesystem of the same region, and a part of it that is mounted elsewhere.
  Mount("pkram=other");
  ASSERT_EQ(Import(At("v") + " " + two).status, 0);
  const std::string elsewhere = dir_ + "/elsewhere";
  ASSERT_EQ(mkdir(elsewhere.c_str(), 0755), 0);
  ASSERT_EQ(mount(At("v").c_str(), elsewhere.c_str(), nullptr, MS_BIND, nullptr), 0);
  for (const std::string& from : {At("v"), elsewhere}) {
    const std::string out = region_ + "-out" + std::to_string(from.size());
    const Ran ran = Export(from + " " + out);
    EXPECT_EQ(ran.status, 0) << ran.err;
    ExpectSame(two, out);
  }
  ASSERT_EQ(Import(elsewhere + "/more " + one).status, 0);
  ExpectSame(one, At("v/more"));
  ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
  ExpectSound();
}

TEST_F(ExportTest, AnImageIsExportedWhereItLies) {
  const std::string one = Version("one", 50), image = dir_ + "/image";
  Mount("size=64m,checkpoint=" + image);
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  ASSERT_EQ(Shell(Ctl() + " checkpoint " + region_).status, 0);
  const Ran ran = Export(image + ":/v " + region_ + "-out");
  ASSERT_EQ(ran.status, 0) << ran.err;
  ExpectSame(one, region_ + "-out");
}

TEST_F(ExportTest, EachSocketIsLeftOutWithALine) {
  Mount("size=64m");
  ASSERT_EQ(Shell("mkdir -p " + At("v/sub")).status, 0);
  Spill(At("v/file"), "text");
  for (const char* name : {"v/one", "v/sub/two"}) {
    ASSERT_EQ(mknod(At(name).c_str(), S_IFSOCK | 0600, 0), 0);
  }
  const auto expect_left_out = [&](const Ran& ran) {
    EXPECT_EQ(ran.status, 0);
    EXPECT_EQ(std::ranges::count(ran.err, '\n'), 2) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("one: a socket"));
    EXPECT_THAT(ran.err, HasSubstr("sub/two: a socket"));
  };
  expect_left_out(Shell(Ctl() + " export --quiet " + At("v") + " > " + dir_ + "/tar"));
  EXPECT_EQ(Shell("tar tf " + dir_ + "/tar | sort").out, "./\n./file\n./sub/\n");
  expect_left_out(Export("--quiet " + At("v") + " " + region_ + "-out"));
  EXPECT_EQ(Shell("cd " + region_ + "-out; find | sort").out, ".\n./file\n./sub\n");
  ExpectSound();
}

// Who has mounted it is its owner, whoever that is.
TEST_F(ExportTest, AnOrdinaryUserWhoHasMountedItMayImportExportAndMap) {
  if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "no fusermount3";
  const std::string one = Version("one", 20), ctl = dir_ + "/pkramctl";
  ASSERT_EQ(Shell("install -m 755 " + Ctl() + " " + ctl).status, 0);
  const pid_t child = fork();
  if (child == 0) {
    int failed = 0;
    {
      MountProcess mounted(MountProcess::As::kUser);
      mounted.Mount("size=64m");
      const std::string where = mounted.mount_point(), v = where + "/v", again = where + "/again";
      const auto expect = [&](int step, bool well) {
        if (!well && failed == 0) failed = step;
      };
      const auto same = [&](const std::string& path) {
        return Shell("diff -r " + one + " " + path).status == 0;
      };
      expect(1, Shell(ctl + " import " + v + " " + one).status == 0 && same(v));
      expect(2, Shell(ctl + " import --replace " + v + " " + one).status == 0 && same(v));
      expect(3, Shell(ctl + " export " + v + " | " + ctl + " import " + again + " -").status == 0);
      expect(4, same(again));
      expect(5, Shell(ctl + " export " + v + " " + where + "/../out").status == 0 &&
                    same(where + "/../out"));
      const int fd = open((v + "/large").c_str(), O_RDONLY);
      int how = 0;
      void* const address = pkramfs_map(fd, 0, 0, &how);
      expect(6, address != MAP_FAILED && how == PKRAMFS_OWN_PAGES);
      expect(7, std::string(static_cast<char*>(address), 3) == "one");
      pkramfs_unmap(address);
      close(fd);
      mounted.Unmount();
      expect(8, Shell(ctl + " import " + mounted.region() + ":/off " + one).status == 0);
      mounted.Mount("size=64m");
      expect(9, same(where + "/off"));
    }
    _exit(failed);
  }
  EXPECT_EQ(Wait(child), 0) << "the step that failed";
}

TEST_F(ExportTest, SomebodyElseHasAnOrdinaryMapping) {
  Mount("size=64m");
  ASSERT_EQ(Import(At("v") + " " + Version("one", 2)).status, 0);
  ASSERT_EQ(chmod(mount_.c_str(), 0755), 0);
  // Whether the region can be opened or not.
  for (const mode_t mode : {0600, 0644}) {
    ASSERT_EQ(chmod(region_.c_str(), mode), 0);
    const pid_t child = fork();
    if (child == 0) {
      if (setgroups(0, nullptr) != 0 || setresgid(65534, 65534, 65534) != 0 ||
          setresuid(65534, 65534, 65534) != 0) {
        _exit(1);
      }
      const int fd = open(At("v/large").c_str(), O_RDONLY);
      int how = 0;
      void* const address = pkramfs_map(fd, 0, 0, &how);
      if (address == MAP_FAILED || how != PKRAMFS_ORDINARY) _exit(2);
      if (std::string(static_cast<char*>(address), 3) != "one") _exit(3);
      const std::string why = pkramfs_why();
      const bool says = mode == 0600 ? why == "its region cannot be opened"
                                     : why == "only root and who has mounted it may map its pages";
      _exit(says ? 0 : 4);
    }
    EXPECT_EQ(Wait(child), 0);
  }
  ASSERT_EQ(chmod(region_.c_str(), 0600), 0);
}

TEST_F(ExportTest, WhatCannotBeDoneIsSaid) {
  Mount("size=64m");
  Spill(At("file"), "text");
  const auto expect_refused = [&](const std::string& words, const std::string& why) {
    const Ran ran = Export(words);
    EXPECT_EQ(ran.status, 2) << words;
    EXPECT_THAT(ran.err, HasSubstr(why));
    EXPECT_EQ(ran.out, "");
  };
  expect_refused(At("absent"), "is not there");
  expect_refused(At("file") + " " + mount_, "not empty");
  expect_refused(dir_, "not on a pkramfs");
  EXPECT_EQ(Shell(Ctl() + " export " + At("file") + " | tar xOf -").out, "text");
  ExpectSound();
}

TEST_F(ExportTest, WhoeverIsKilledLetsEverybodyGoOn) {
  Mount("size=256m");
  ASSERT_EQ(Import(At("v") + " " + Version("one", 2000)).status, 0);
  std::mt19937 random(3);
  for (int i = 0; i < 15; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      execl("/bin/sh", "sh", "-c", ("exec " + Ctl() + " export " + mount_ + " > /dev/null").c_str(),
            nullptr);
      _exit(127);
    }
    usleep(static_cast<useconds_t>(random() % 30000));
    kill(pid, SIGKILL);
    Wait(pid);
    Spill(At("file"), "again");
    EXPECT_EQ(Slurp(At("file")), "again");
  }
  ExpectSound();
}

TEST_F(ExportTest, AnArchiveThatIsNoneLeavesNothing) {
  Mount("size=16m");
  const auto expect_refused = [&](const std::string& makes, const std::string& why) {
    const Ran ran = Shell(makes + " | " + Ctl() + " import " + At("v") + " -");
    EXPECT_EQ(ran.status, 2) << makes;
    EXPECT_THAT(ran.err, HasSubstr(why)) << makes;
    EXPECT_EQ(Shell("ls -A " + mount_).out, "");
  };
  const std::string one = Version("one", 20);
  expect_refused("echo junk", "standard input");
  expect_refused("true", "standard input");
  expect_refused("tar cf - -C " + one + " . | head -c 100000", "standard input: ./");
  expect_refused("cd " + one + "; tar cPf - --transform s,^,../,  large", "no path of a tree");
  ASSERT_EQ(Shell("head -c 20m /dev/urandom > " + dir_ + "/large").status, 0);
  expect_refused("tar cf - -C " + dir_ + " large", "large: no space is left");
  // Others are as good as tar's own.
  for (const char* makes : {"tar czf - .", "find . | cpio -o -H newc --quiet",
                            "python3 -m zipfile -c /dev/stdout * | cat"}) {
    const Ran ran = Shell("cd " + one + "; " + makes + " | " + Ctl() + " import " + At("v") + " -");
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(Shell("diff -r " + one + " " + At("v")).status, 0);
    EXPECT_EQ(Shell("rm -r " + At("v")).status, 0);
  }
}

}  // namespace
}  // namespace pkramfs
