// Regions that cross a kexec by a session of the kernel.  The kernel is a fake one
// (fake_liveupdate.cc); .ci/liveupdate does this with a real one.
#include "mount/region/handover.h"

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <thread>

#include "mount/library/pkramfs.h"
#include "tests/fake_kernel.h"
#include "tests/manifest.h"
#include "tests/memfd_fixture.h"
#include "tests/odd_tree.h"
#include "tests/processes.h"
#include "tests/traced.h"

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

namespace pkramfs {
namespace {

using testing::HasSubstr;

class HandoverTest : public MemfdTest {
 protected:
  static constexpr uint64_t kMiB = 1 << 20;
  void SetUp() override {
    MemfdTest::SetUp();
    if (IsSkipped()) return;
    kernel_.emplace(dir_ + "/kernel");
    session_ = SessionOf(region_).value();
  }
  void TearDown() override {
    if (dir_.empty()) return;
    EndSessions();
    kernel_.reset();
    MemfdTest::TearDown();
  }
  Ran Ctl(const std::string& words) { return Shell(Pkramctl() + " " + words + " " + region_); }
  void Preserve() {
    const Ran ran = Ctl("preserve");
    ASSERT_EQ(ran.status, 0) << ran.err;
    ASSERT_EQ(HoldersOf(Region().get(), Holds::kSession).size(), 1u);
  }
  void EndSessions() {
    for (const auto& holder : HoldersOf(Region().get(), Holds::kSession)) EndHolder(holder);
  }
  // The kernel is gone, with every process.  What a session has is there after it.
  void Kexec() {
    ASSERT_EQ(HoldersOf(Region().get(), Holds::kSession).size(), 1u) << "nobody holds the session";
    std::vector<pid_t> processes;
    if (IsMounted(mount_)) processes = {Statistics()["keeper"], DaemonPid()};
    for (const pid_t process : processes) ASSERT_TRUE(Stop(process));
    char has[4096];
    const ssize_t size = fgetxattr(Region().get(), "trusted.fake.session", has, sizeof(has));
    ASSERT_GT(size, 0);
    ASSERT_EQ(std::string(has, static_cast<size_t>(size)), kernel_->file("out/" + session_));
    unlink(kernel_->file("in/" + session_ + ".taken").c_str());
    Spill(kernel_->file("in/" + session_), Slurp(FindMemfd(region_)));
    for (const pid_t process : processes) {
      kill(process, SIGKILL);
      EXPECT_TRUE(Eventually([&] { return IsGone(process); }));
    }
    if (!processes.empty()) umount2(mount_.c_str(), MNT_DETACH);
    EndSessions();
    EndHolders();
    ExpectFreed();
  }
  uint64_t Blocks() {
    struct statvfs st {};
    EXPECT_EQ(statvfs(mount_.c_str(), &st), 0);
    return st.f_blocks * st.f_frsize;
  }
  // Bytes that can be written to a new file, until there is an error; and the error.
  std::pair<uint64_t, int> Fill(const std::string& name) {
    const std::string bytes(64 << 10, 'f');
    const int fd = open(At(name).c_str(), O_WRONLY | O_CREAT, 0600);
    std::pair<uint64_t, int> result{0, fd < 0 ? errno : 0};
    while (fd >= 0 && result.first < 128 * kMiB) {
      const ssize_t n = write(fd, bytes.data(), bytes.size());
      if (n < 0) result.second = errno;
      if (n <= 0) break;
      result.first += static_cast<uint64_t>(n);
    }
    close(fd);
    return result;
  }

  std::optional<FakeKernel> kernel_;
  std::string session_;
};

TEST_F(HandoverTest, ItCrossesAKexecAgainAndAgain) {
  Mount("size=64m");
  MakeOddTree(At("odd"), 20);
  Spill(At("file"), std::string(5 * kMiB, 'x'));
  for (int kexec = 0; kexec < 3; ++kexec) {
    const Manifest before = ManifestOf(mount_);
    Unmount();
    Preserve();
    Kexec();
    // Whatever is done first with it finds it.
    if (kexec == 1) {
      EXPECT_EQ(Ctl("check").status, 0);
      EXPECT_EQ(Holders(), 1u);
    }
    Mount("size=64m");
    EXPECT_EQ(FirstDifference(before, ManifestOf(mount_)), "");
    ExpectNoHolder();
    EXPECT_FALSE(std::ifstream(kernel_->file("in/" + session_)).good()) << "not finished";
    EXPECT_THAT(Shell(Pkramctl() + " list --names").out, HasSubstr(region_ + "\n"));
    // It is an ordinary one again.
    EXPECT_GT(Blocks(), 60 * kMiB);
    const std::string more = "more" + std::to_string(kexec);
    Spill(At(more), std::string(4 * kMiB, 'y'));
    EXPECT_EQ(Slurp(At(more)), std::string(4 * kMiB, 'y'));
    const int fd = open(At(more).c_str(), O_RDONLY);
    int how = 0;
    void* const address = pkramfs_map(fd, 0, 0, &how);
    EXPECT_EQ(how, PKRAMFS_OWN_PAGES) << pkramfs_why();
    pkramfs_unmap(address);
    close(fd);
  }
  // The servers die, and the memory has the same name.
  Kill();
  EXPECT_TRUE(Eventually([this] { return !IsMounted(mount_); }));
  EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
}

// Right after the unmount its daemon still seals it.
TEST_F(HandoverTest, ItIsPreservedSealedAndCut) {
  Mount("size=64m");
  Spill(At("kept"), std::string(kMiB, 'x'));
  Spill(At("gone"), std::string(20 * kMiB, 'x'));
  ASSERT_EQ(unlink(At("gone").c_str()), 0);
  ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
  Preserve();
  const Ran check = Shell(std::string(FSCK_BINARY " ") + region_);
  EXPECT_EQ(check.status, 0) << check.err;
  EXPECT_THAT(check.out, HasSubstr("sealed by a clean unmount"));
  struct stat st {};
  fstat(Region().get(), &st);
  EXPECT_LT(st.st_size, 4 << 20);
}

TEST_F(HandoverTest, AMountGoesOnWhileItIsPreserved) {
  Mount("size=64m");
  // Linux would give such a memfd back read-only.
  EXPECT_EQ(fcntl(Region().get(), F_GET_SEALS) & F_SEAL_EXEC, 0);
  Spill(At("file"), std::string(8 * kMiB, 'x'));
  Spill(At("gone"), std::string(4 * kMiB, 'x'));
  Spill(At("last"), std::string(kMiB, 'x'));
  ASSERT_EQ(unlink(At("gone").c_str()), 0);
  Preserve();
  struct stat st {};
  fstat(Region().get(), &st);
  const auto bytes = static_cast<uint64_t>(st.st_size);
  EXPECT_LT(Blocks(), 20 * kMiB);
  for (int life = 0; life < 3; ++life) {
    // What is there can be changed, and what is free within the memory that exists can be used.
    Spill(At("file"), std::string(8 * kMiB, static_cast<char>('a' + life)));
    const auto [filled, error] = Fill("full");
    EXPECT_EQ(error, ENOSPC);
    EXPECT_GT(filled, 2 * kMiB);
    EXPECT_LT(filled, 12 * kMiB);
    EXPECT_EQ(Slurp(At("file")), std::string(8 * kMiB, static_cast<char>('a' + life)));
    ASSERT_EQ(unlink(At("full").c_str()), 0);
    ASSERT_EQ(mkdir(At("dir").c_str(), 0755), 0);
    ASSERT_EQ(rmdir(At("dir").c_str()), 0);
    fstat(Region().get(), &st);
    EXPECT_EQ(static_cast<uint64_t>(st.st_size), bytes);
    EXPECT_EQ(static_cast<uint64_t>(st.st_blocks) * 512, bytes);
    // Another server knows, too.
    const pid_t server = DaemonPid();
    kill(server, SIGKILL);
    EXPECT_TRUE(Eventually([&] { return IsGone(server); }));
    EXPECT_LT(Blocks(), 20 * kMiB);
  }
  EXPECT_EQ(Ctl("unpreserve").status, 0);
  EXPECT_GT(Blocks(), 60 * kMiB);
  EXPECT_GT(Fill("full").first, 40 * kMiB);
}

// The server is not told: it finds out when a page cannot exist.  Small files get their first page.
TEST_F(HandoverTest, SmallFilesGrowWhileItIsPreserved) {
  Mount("size=64m");
  Spill(At("gone"), std::string(4 * kMiB, 'x'));
  for (int i = 0; i < 200; ++i) Spill(At(std::to_string(i)), std::string(3000, 'x'));
  Spill(At("last"), std::string(kMiB, 'x'));
  ASSERT_EQ(unlink(At("gone").c_str()), 0);
  // As pkramctl does it, without its question.
  const Ran ran = Shell("cd / && unshare --mount sh -c 'umount " + mount_ + "; exec " + Pkramctl() +
                        " preserve " + region_ + "'");
  EXPECT_EQ(ran.status, 0) << ran.err;
  for (int i = 0; i < 200; ++i) {
    std::ofstream file(At(std::to_string(i)), std::ios::app);
    file << std::string(1500, 'y') << std::flush;
    ASSERT_TRUE(file.good()) << i;
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(Slurp(At(std::to_string(i))), std::string(3000, 'x') + std::string(1500, 'y')) << i;
  }
}

TEST_F(HandoverTest, WhatWasWrittenWhileItIsPreservedIsThere) {
  Mount("size=64m");
  Spill(At("file"), std::string(8 * kMiB, 'x'));
  Preserve();
  for (int i = 0; i < 100; ++i) Spill(At("file"), std::to_string(i) + std::string(100000, 'y'));
  ASSERT_EQ(mkdir(At("dir").c_str(), 0755), 0);
  Kexec();
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("file")), "99" + std::string(100000, 'y'));
  EXPECT_EQ(access(At("dir").c_str(), F_OK), 0);
}

TEST_F(HandoverTest, AMountOfWhatIsPreservedHasTheMemoryThatIsThere) {
  Mount("size=64m");
  Spill(At("file"), std::string(8 * kMiB, 'x'));
  Unmount();
  Preserve();
  Mount("size=64m");
  EXPECT_LT(Blocks(), 20 * kMiB);
  EXPECT_EQ(Slurp(At("file")), std::string(8 * kMiB, 'x'));
  Spill(At("file"), "short");
  EXPECT_EQ(Slurp(At("file")), "short");
  Unmount();
  EXPECT_EQ(Ctl("check").status, 0);
  EXPECT_EQ(Ctl("unpreserve").status, 0);
  Mount("size=64m");
  EXPECT_GT(Blocks(), 60 * kMiB);
}

TEST_F(HandoverTest, OfMountsAtOnceOneTakesItBack) {
  Mount("size=64m");
  Spill(At("file"), "text");
  Unmount();
  Preserve();
  Kexec();
  const std::string other = dir_ + "/other";
  ASSERT_EQ(mkdir(other.c_str(), 0755), 0);
  Ran one, two;
  std::thread thread([&] { one = TryMount("size=64m"); });
  two = Shell(Pkramfs() + " " + region_ + " " + other + " -o size=64m");
  thread.join();
  EXPECT_EQ((one.status == 0) + (two.status == 0), 1) << one.err << two.err;
  const std::string& where = one.status == 0 ? mount_ : other;
  EXPECT_EQ(Slurp(where + "/file"), "text");
  ASSERT_EQ(umount2(where.c_str(), 0), 0);
  ASSERT_TRUE(Eventually([this] { return IsLeftToAHolder(); }));
}

// A limit would kill the process that takes the memory back.
TEST_F(HandoverTest, ItIsTakenBackOutsideOfAllLimits) {
  std::string group;
  for (const char* const root : {"/sys/fs/cgroup/memory/", "/sys/fs/cgroup/"}) {
    group = root + dir_.substr(5);
    if (mkdir(group.c_str(), 0755) == 0) break;
    group.clear();
  }
  if (group.empty()) GTEST_SKIP() << "no cgroup can be made here";
  Mount("size=64m");
  Spill(At("file"), "text");
  Unmount();
  Preserve();
  Kexec();
  const Ran ran = Shell("exec sh -c 'echo $$ >" + group + "/cgroup.procs || exit 77; exec " +
                        Pkramfs() + " " + region_ + " " + mount_ + "'");
  if (ran.status != 77) {
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(Slurp(At("file")), "text");
    const std::string cgroups = Slurp(kernel_->file("cgroup"));
    EXPECT_THAT(cgroups, testing::Not(HasSubstr(dir_.substr(5)))) << cgroups;
    EXPECT_THAT(Slurp("/proc/" + std::to_string(DaemonPid()) + "/cgroup"),
                HasSubstr(dir_.substr(5)));
    Unmount();
  }
  EndHolders();
  EXPECT_TRUE(Eventually([&] { return rmdir(group.c_str()) == 0; }));
}

// Where it cannot leave a limit, it does not begin.
TEST_F(HandoverTest, ALimitThatCannotBeLeftIsRefusedAndLosesNothing) {
  std::string group, limit;
  for (const auto& [root, file] : {std::pair{"/sys/fs/cgroup/memory/", "/memory.limit_in_bytes"},
                                   std::pair{"/sys/fs/cgroup/", "/memory.max"}}) {
    group = root + dir_.substr(5);
    limit = group + file;
    if (mkdir(group.c_str(), 0755) == 0) break;
    group.clear();
  }
  std::ofstream(limit) << "500000000" << std::flush;
  if (group.empty() || access(limit.c_str(), W_OK) != 0) {
    rmdir(group.c_str());
    GTEST_SKIP() << "no cgroup with a limit can be made here";
  }
  Mount("size=64m");
  Spill(At("file"), "text");
  Unmount();
  Preserve();
  Kexec();
  // Its cgroups are files that nobody can write to.
  const Ran ran = Shell("exec unshare --mount sh -c 'echo $$ >" + group +
                        "/cgroup.procs && mount --rbind -o ro /sys/fs/cgroup /sys/fs/cgroup && "
                        "for m in $(awk \"\\$5 ~ /cgroup/ {print \\$5}\" /proc/self/mountinfo | "
                        "sort -u); do mount -o remount,bind,ro $m; done; exec " +
                        Pkramfs() + " " + region_ + " " + mount_ + "'");
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("is a limit that this process cannot leave"));
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("file")), "text");
  EXPECT_TRUE(Eventually([&] { return rmdir(group.c_str()) == 0; }));
}

TEST_F(HandoverTest, WhatCannotBePreservedIsRefusedAndStaysAsItIs) {
  Mount("size=64m");
  Spill(At("file"), "text");
  const auto refused = [&](const std::string& words, const std::string& why) {
    const Ran ran = Shell(Pkramctl() + " " + words);
    EXPECT_EQ(ran.status, 2) << words;
    EXPECT_THAT(ran.err, HasSubstr(why));
    EXPECT_TRUE(HoldersOf(Region().get(), Holds::kSession).empty());
    EXPECT_GT(Blocks(), 60 * kMiB);
  };
  refused("preserve", "region is required");
  refused("preserve cache.pkram", "not memfd:NAME: a region on a device crosses a kexec by itself");
  refused("preserve memfd:none-" + dir_.substr(5), "there is none");
  refused("unpreserve " + region_, "is not preserved");
  for (const int error : {ENOMEM, EOPNOTSUPP}) {
    kernel_->Fail("preserve", error);
    refused("preserve " + region_, region_ + ": ");
    refused("preserve " + mount_, std::strerror(error));
  }
  kernel_->Recover();
  kernel_->Fail("create", ENOMEM);
  refused("preserve " + region_, "Cannot allocate memory");
  kernel_->Recover();
  ASSERT_EQ(unlink(kernel_->file("device").c_str()), 0);
  refused("preserve " + region_, "this kernel hands nothing over");
  const Ran check = Ctl("preserve --check");
  EXPECT_EQ(check.status, 1);
  EXPECT_THAT(check.out, testing::AllOf(HasSubstr("missing  kernel: "), HasSubstr("not preserved"),
                                        HasSubstr("of it are holes")));
  Spill(kernel_->file("device"), "");
  Preserve();
  const Ran again = Ctl("preserve");
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("is preserved already"));
  Unmount();
  EXPECT_THAT(Ctl("release").err, HasSubstr("is preserved for a kexec: pkramctl unpreserve"));
  EXPECT_EQ(Ctl("unpreserve").status, 0);
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("file")), "text");
  refused("preserve memfd:" + std::string(56, 'x'), "there is none");
}

TEST_F(HandoverTest, AMemfdThatWouldComeBackReadOnlyIsRefused) {
  constexpr unsigned kNoExecSeal = 8;
  const pkram::Descriptor sealed(
      memfd_create(("pkramfs:" + region_.substr(6)).c_str(), MFD_CLOEXEC | kNoExecSeal));
  if (sealed.get() < 0) GTEST_SKIP() << "Linux before 6.3";
  ASSERT_EQ(fchmod(sealed.get(), 0600), 0);
  Mount("size=16m");
  const Ran ran = Ctl("preserve");
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr("would come back read-only"));
}

// Nobody makes an empty region without a word where there were files.
TEST_F(HandoverTest, WhatCannotBeTakenBackIsSaid) {
  Mount("size=64m");
  Spill(At("file"), "text");
  for (int i = 0; i < 3; ++i) {
    Unmount();
    Preserve();
    Kexec();
    kernel_->Fail("retrieve", ENOMEM);
    const Ran ran = i == 0   ? TryMount("size=64m")
                    : i == 1 ? Ctl("check")
                             : Shell(std::string(MKFS_BINARY) + " -o size=16m " + region_);
    EXPECT_NE(ran.status, 0);
    EXPECT_THAT(ran.err, testing::AllOf(HasSubstr(region_ + ": the kernel does not give the memory "
                                                            "back: Cannot allocate memory"),
                                        HasSubstr("its files are lost")));
    EXPECT_TRUE(FindMemfd(region_).empty());
    kernel_->Recover();
    Mount("size=64m");
    EXPECT_NE(access(At("file").c_str(), F_OK), 0);
  }
}

// Whoever asked for it may be killed, at every step: the holder goes on.
TEST_F(HandoverTest, AKillOfWhoTakesItBackLosesNothing) {
  Mount("size=64m");
  Spill(At("file"), "text");
  int steps = 0;
  for (bool is_killed = true; is_killed; ++steps) {
    Unmount();
    Preserve();
    Kexec();
    Traced asks(Pkramctl() + " info " + region_, dir_ + "/said");
    for (int step = 0; step <= steps && is_killed; ++step) is_killed = asks.Next();
    SCOPED_TRACE(asks.step());
    is_killed ? asks.Kill() : static_cast<void>(asks.Finish());
    Mount("size=64m");
    EXPECT_EQ(Slurp(At("file")), "text");
    ExpectNoHolder();
  }
  EXPECT_GT(steps, 10);
}

// Both processes of the mount die, which has ended the region's own holder.
TEST_F(HandoverTest, UnpreserveLeavesAHolder) {
  Mount("size=64m");
  Spill(At("file"), "text");
  ExpectNoHolder();
  Preserve();
  Kill();
  EXPECT_TRUE(Eventually([this] { return !IsMounted(mount_); }));
  EXPECT_EQ(Ctl("unpreserve").status, 0);
  EXPECT_EQ(Holders(), 1u);
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("file")), "text");
}

TEST_F(HandoverTest, ATreeIsImportedWhileItIsPreserved) {
  Mount("size=64m");
  Spill(At("room"), std::string(12 * kMiB, 'x'));
  Spill(At("last"), std::string(kMiB, 'x'));
  ASSERT_EQ(unlink(At("room").c_str()), 0);
  Preserve();
  const std::string tree = Version("tree", 50);
  const Ran ran = Import(mount_ + "/in " + tree);
  EXPECT_EQ(ran.status, 0) << ran.err;
  ExpectSame(tree, At("in"));
  const Ran again = Import(mount_ + "/again " + tree);
  EXPECT_NE(again.status, 0);
  EXPECT_THAT(again.err, HasSubstr("no space"));
}

// A mount that fails afterwards leaves the memory to a holder.
TEST_F(HandoverTest, WhatWasTakenBackStays) {
  Mount("size=64m");
  Spill(At("file"), "text");
  Unmount();
  Preserve();
  Kexec();
  EXPECT_NE(TryMount("size=64m,context=none").status, 0);
  EXPECT_NE(Shell(Pkramfs() + " " + region_ + " " + dir_ + "/absent").status, 0);
  EXPECT_EQ(Holders(), 1u);
  Mount("size=64m");
  EXPECT_EQ(Slurp(At("file")), "text");
}

}  // namespace
}  // namespace pkramfs
