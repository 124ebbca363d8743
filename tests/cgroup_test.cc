// A cgroup that has less memory than the region: the daemon may be killed, or say that there
// is no space; what was acknowledged is there afterwards, and nobody waits for ever.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/swap.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "tests/killer.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kLimit = 160 * kMiB;  // a sanitizer takes some of it

class CgroupTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    // Version 1, or version 2 where this process may.
    for (const auto& [root, limit] : {std::pair{"/sys/fs/cgroup/memory", "/memory.limit_in_bytes"},
                                      std::pair{"/sys/fs/cgroup", "/memory.max"}}) {
      const std::string group = std::string(root) + "/" + dir_.substr(5);
      if (mkdir(group.c_str(), 0755) != 0) continue;
      group_ = group;
      std::ofstream out(group + limit);
      out << limit_ << std::flush;
      if (out.good() && access((group + limit).c_str(), W_OK) == 0) return;
      rmdir(group.c_str());
      group_.clear();
    }
    GTEST_SKIP() << "no cgroup can be made here";
  }
  void TearDown() override {
    MountTest::TearDown();
    if (!group_.empty()) rmdir(group_.c_str());
  }

  // With the daemon in the group.  Skips where no process can be moved to one.
  void MountInside(const std::string& options, const std::string& wrapper = "") {
    const Ran ran =
        Shell("exec sh -c 'echo $$ >" + group_ + "/cgroup.procs || exit 77; exec " + wrapper +
              Pkramfs() + " " + region_ + " " + mount_ + " -o " + options + "'");
    if (ran.status == 77) GTEST_SKIP() << "no process can be moved to a cgroup here";
    ASSERT_EQ(ran.status, 0) << ran.err;
    warned_ = ran.err;
  }
  void KeepFromSwapping() const {
    std::ofstream(group_ + "/memory.swappiness") << 0;
    std::ofstream(group_ + "/memory.swap.max") << 0;
  }
  void ExpectWarned() {
    EXPECT_THAT(warned_, testing::HasSubstr("may have " + std::to_string(limit_ / kMiB) +
                                            " MiB of memory (" + group_));
  }

  uint64_t limit_ = kLimit;
  std::string group_, warned_;
};

TEST_F(CgroupTest, WhatWasAcknowledgedIsThere) {
  // Who writes is not in the group, from which nothing is swapped out.
  KeepFromSwapping();
  MountInside("size=512m");
  if (IsSkipped() || HasFailure()) return;
  ExpectWarned();
  Spill(mount_ + "/deleted", "this");
  const std::string bytes(1000000, 'g');
  int acknowledged = 0;
  for (; acknowledged < 200; ++acknowledged) {
    const int fd =
        open((mount_ + "/f" + std::to_string(acknowledged)).c_str(), O_CREAT | O_WRONLY, 0644);
    const bool done =
        fd >= 0 && write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    if (fd >= 0) close(fd);
    if (!done) break;
  }
  // It answers, or it is dead; nobody waits for ever.
  const Ran after =
      Shell("cd " + mount_ + " && timeout -s KILL 400 sh -c 'ls >/dev/null && rm deleted && " +
            "i=0; while [ $i -lt 3000 ]; do : >m$i || break; i=$((i + 1)); done'");
  EXPECT_NE(after.status, 128 + SIGKILL) << "the daemon neither answers nor dies";
  // A mount ends before the last of its processes has.
  struct stat st;
  const bool is_dead = stat(mount_.c_str(), &st) != 0 && errno == ENOTCONN;
  std::printf("  %d files of %zu bytes in %llu bytes of memory; the daemon %s\n", acknowledged,
              bytes.size(), static_cast<unsigned long long>(kLimit),
              is_dead ? "was killed" : "went on");
  if (!is_dead) {
    EXPECT_NE(access((mount_ + "/deleted").c_str(), F_OK), 0)
        << "deleting does not work: " << after.err;
  }
  EXPECT_GT(acknowledged, 10);
  EXPECT_LT(acknowledged, 170);
  Shell("for p in $(cat " + group_ + "/cgroup.procs); do kill -9 $p; done");
  umount2(mount_.c_str(), MNT_DETACH);
  WaitUntilFree();
  const Ran check = Shell(Pkramctl() + " check " + region_);
  EXPECT_EQ(check.status, 0) << check.out;
  Mount();
  for (int i = 0; i < acknowledged; ++i) {
    EXPECT_TRUE(Slurp(mount_ + "/f" + std::to_string(i)) == bytes) << i;
  }
  ASSERT_EQ(Shell("rm -f " + mount_ + "/[fm]*").status, 0);
}

TEST_F(CgroupTest, ByDefaultAndInPercentASizeIsOfTheLimit) {
  for (const char* options : {"", " -o size=50%"}) {
    const Ran ran = Shell("exec sh -c 'echo $$ >" + group_ + "/cgroup.procs || exit 77; exec " +
                          Pkramfs() + " " + region_ + " " + mount_ + options + "'");
    if (ran.status == 77) GTEST_SKIP() << "no process can be moved to a cgroup here";
    ASSERT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(ran.err, "");
    struct statvfs st;
    ASSERT_EQ(statvfs(mount_.c_str(), &st), 0);
    EXPECT_NEAR(static_cast<double>(st.f_blocks * st.f_frsize), kLimit / 2.0, 2 << 20);
    Unmount();
    unlink(region_.c_str());
  }
}

// Otherwise the kernel finds nothing to swap out, and kills the program that writes, and then the
// daemon.
TEST_F(CgroupTest, WhatWaitsToBeWrittenFitsBesideTheRegion) {
  for (const std::string mode : {"", ",writeback"}) {
    MountInside("size=64m" + mode);
    if (IsSkipped() || HasFailure()) return;
    EXPECT_EQ(warned_, "");
    const std::string bdi = "/sys/class/bdi/" + MountsOf(region_).at(0).device;
    if (access((bdi + "/max_bytes").c_str(), F_OK) != 0) GTEST_SKIP() << "Linux before 6.2";
    const auto most = [&] { return std::stoull(Slurp(bdi + "/max_bytes")); };
    EXPECT_EQ(Slurp(bdi + "/strict_limit"), "1\n");
    EXPECT_LE(most(), (160 - 64) * kMiB / 4);
    if (mode != "") {
      EXPECT_GT(most(), 20 * kMiB);
    }
    EXPECT_EQ(Shell(Pkramctl() + " resize " + region_ + " size=94m").status, 0);
    EXPECT_LE(most(), (160 - 94) * kMiB / 4);
    Unmount();
    unlink(region_.c_str());
  }
}

TEST_F(CgroupTest, GrowingBeyondTheLimitIsSaid) {
  MountInside("size=32m");
  if (IsSkipped() || HasFailure()) return;
  EXPECT_EQ(warned_, "");
  const Ran within = Shell(Pkramctl() + " resize " + region_ + " size=64m");
  EXPECT_EQ(within.status, 0);
  EXPECT_EQ(within.err, "");
  for (const std::string& command :
       {Pkramctl() + " resize " + region_ + " size=128m",
        Pkramfs() + " " + region_ + " " + mount_ + " -o remount,size=129m"}) {
    const Ran beyond = Shell(command);
    EXPECT_EQ(beyond.status, 0);
    EXPECT_THAT(beyond.err,
                testing::AllOf(testing::HasSubstr("warning: this process may have 160 MiB of "
                                                  "memory (" +
                                                  group_),
                               testing::HasSubstr("unmount it, and mount it again")));
  }
}

// A server that the kernel would spare could have nothing swapped out; nor may its heirs be spared.
TEST_F(CgroupTest, WhereMemoryIsTightNoServerIsSpared) {
  MountInside("size=240m");
  if (IsSkipped() || HasFailure()) return;
  ExpectWarned();
  constexpr unsigned long kSpared = 0x180000;  // both flags of PR_SET_IO_FLUSHER
  for (int i = 0; i < 2; ++i) {
    const std::string words = WordsOf("/proc/" + std::to_string(DaemonPid()) + "/stat");
    unsigned long flags = kSpared;
    EXPECT_EQ(
        std::sscanf(words.c_str() + words.rfind(") "), ") %*c %*d %*d %*d %*d %*d %lu", &flags), 1);
    EXPECT_EQ(flags & kSpared, 0u) << i;
    ASSERT_TRUE(KillOne(Victim::kServer, region_));
  }
}

// A cgroup, and data that is written to a mount whose daemon is in it.
struct Group {
  const char* name;
  uint64_t limit, size, bytes;  // MiB
  const char* wrapper = "";     // of the daemon
  bool swaps = true;
};
void PrintTo(const Group& group, std::ostream* out) { *out << group.name; }
// Most of these are more than the group may have, and part of it is swapped out.
constexpr Group kGroups[] = {
    {"middling", 160, 400, 240},
    // (Each of the daemon's threads has a MiB.)
    {"small", 64, 240, 200},
    {"small_and_may_little", 64, 240, 100, "setpriv --bounding-set=-sys_resource "},
    // The files fit, and with the kernel's cache of them they do not.
    {"full", 160, 95, 90},
    {"full_without_swap", 160, 95, 90, "", false},
};

class SwappingTest : public CgroupTest,
                     public testing::WithParamInterface<std::tuple<Group, std::string>> {
 protected:
  static constexpr uint64_t kMostBytes = 240 * kMiB;
  static constexpr uint64_t kPage = 4096;

  static void SetUpTestSuite() {
    // One at a time: swapoff brings back whatever is there, into groups that have no room for it.
    lock_ = open("/tmp/pkramfs-test-swap.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    flock(lock_, LOCK_EX);
    struct sysinfo info;
    if (PKRAMFS_IS_SANITIZED || geteuid() != 0 || sysinfo(&info) != 0 ||
        info.freeswap * info.mem_unit > 3 * kMostBytes)
      return;
    char file[] = "/var/tmp/pkramfs-swap-XXXXXX";
    close(mkstemp(file));
    swap_ = file;
    Shell("fallocate -l 768m " + swap_ + " && mkswap " + swap_);
    has_swap_ = swapon(file, 0) == 0;
    if (!has_swap_) unlink(file);
  }
  static void TearDownTestSuite() {
    if (has_swap_) {
      EXPECT_EQ(swapoff(swap_.c_str()), 0) << std::strerror(errno);
      unlink(swap_.c_str());
    }
    close(lock_);
  }
  void SetUp() override {
    const auto& [group, mode] = GetParam();
    limit_ = group.limit * kMiB;
    bytes_ = group.bytes * kMiB;
    CgroupTest::SetUp();
    if (IsSkipped()) return;
    if (PKRAMFS_IS_SANITIZED) GTEST_SKIP() << "a sanitizer's own memory is swapped all the time";
    struct sysinfo info;
    sysinfo(&info);
    if (info.freeswap * info.mem_unit < 2 * kMostBytes) GTEST_SKIP() << "no swap can be had here";
    if (!group.swaps) KeepFromSwapping();
    MountInside("size=" + std::to_string(group.size) + "m" + mode, group.wrapper);
    if (IsSkipped() || HasFailure()) return;
    if (group.size > group.limit) {
      ExpectWarned();
    } else {
      EXPECT_EQ(warned_, "");
    }
  }

  static uint64_t Word(uint64_t page) { return page * 0x9e3779b97f4a7c15 + 1; }

  // Whether a process, in the group or not, comes to its end, and to a good one.
  template <typename Work>
  void ExpectDone(bool inside, Work work) {
    const pid_t child = fork();
    if (child == 0) {
      if (inside) std::ofstream(group_ + "/cgroup.procs") << getpid() << std::flush;
      _exit(work() ? 0 : std::max(1, errno));
    }
    int status = 0;
    if (!Eventually([&] { return waitpid(child, &status, WNOHANG) == child; })) {
      // The way out that semantics.md names.
      const std::string device = MountsOf(region_).at(0).device;
      mount("none", "/sys/fs/fuse/connections", "fusectl", 0, nullptr);
      std::ofstream("/sys/fs/fuse/connections/" + device.substr(2) + "/abort") << 1;
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      FAIL() << "hangs";
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << status << ": " << (WIFEXITED(status) ? std::strerror(WEXITSTATUS(status)) : "");
  }

  bool WriteAll() const {
    const int fd = open(file().c_str(), O_RDWR | O_CREAT, 0644);
    std::vector<uint64_t> block(1 << 17);
    for (uint64_t at = 0; at < bytes_; at += 1 << 20) {
      std::fill(block.begin(), block.end(), 0);
      for (uint64_t in = 0; in < 1 << 20; in += kPage) block[in / 8] = Word((at + in) / kPage);
      if (write(fd, block.data(), 1 << 20) != 1 << 20) return false;
    }
    return fsync(fd) == 0 && close(fd) == 0;
  }
  bool StoreAll() const {
    const int fd = open(file().c_str(), O_RDWR | O_CREAT, 0644);
    if (ftruncate(fd, bytes_) != 0) return false;
    void* const mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) return false;
    auto* const words = static_cast<uint64_t*>(mapped);
    for (uint64_t page = 0; page < bytes_ / kPage; ++page) words[page * kPage / 8] = Word(page);
    return msync(mapped, bytes_, MS_SYNC) == 0;
  }
  bool ReadAll() const {
    // What the kernel has cached would be read without the daemon.
    const int fd = open(file().c_str(), O_RDONLY);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    for (uint64_t page = 0; page < bytes_ / kPage; ++page) {
      uint64_t word = 0;
      if (pread(fd, &word, 8, static_cast<off_t>(page * kPage)) != 8 || word != Word(page)) {
        return false;
      }
    }
    return close(fd) == 0;
  }
  std::string file() const { return mount_ + "/f"; }

  uint64_t bytes_ = 0;
  static std::string swap_;
  static bool has_swap_;
  static int lock_;
};

std::string SwappingTest::swap_;
bool SwappingTest::has_swap_ = false;
int SwappingTest::lock_ = -1;

TEST_P(SwappingTest, AWriterOutside) {
  ExpectDone(false, [this] { return WriteAll(); });
  for (int i = 0; i < 2; ++i) ExpectDone(false, [this] { return ReadAll(); });
}

TEST_P(SwappingTest, AWriterInside) {
  ExpectDone(true, [this] { return WriteAll(); });
  ExpectDone(true, [this] { return ReadAll(); });
}

TEST_P(SwappingTest, AMappingInside) {
  ExpectDone(true, [this] { return StoreAll(); });
  ExpectDone(false, [this] { return ReadAll(); });
}

// A checkpoint reads pages that are swapped out, and copies pages that change meanwhile.
class CheckpointInAGroupTest : public SwappingTest {};
TEST_P(CheckpointInAGroupTest, IsMadeBesideAWriter) {
  ExpectDone(true, [this] { return WriteAll(); });
  for (int i = 0; i < 2; ++i) {
    const pid_t checkpoint = fork();
    if (checkpoint == 0) {
      execl(PKRAMCTL_BINARY, "pkramctl", "checkpoint", region_.c_str(), (dir_ + "/image").c_str(),
            nullptr);
      _exit(127);
    }
    ExpectDone(true, [this] { return WriteAll(); });
    int status = -1;
    EXPECT_EQ(waitpid(checkpoint, &status, 0), checkpoint);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Shell(Pkramctl() + " check " + dir_ + "/image").status, 0);
}

std::string NameOf(const testing::TestParamInfo<SwappingTest::ParamType>& info) {
  const auto& [group, mode] = info.param;
  return std::string(group.name) + (mode.empty() ? "_default" : "_writeback");
}

INSTANTIATE_TEST_SUITE_P(All, SwappingTest,
                         testing::Combine(testing::ValuesIn(kGroups),
                                          testing::Values(std::string(),
                                                          std::string(",writeback"))),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(All, CheckpointInAGroupTest,
                         testing::Combine(testing::ValuesIn(kGroups),
                                          testing::Values(std::string())),
                         NameOf);

}  // namespace
}  // namespace pkramfs
