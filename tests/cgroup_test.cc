// A cgroup that has less memory than the region: the daemon may be killed, or say that there
// is no space; what was acknowledged is there afterwards.
#include <gmock/gmock.h>
#include <sys/wait.h>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

constexpr uint64_t kLimit = 160 << 20;  // a sanitizer takes some of it

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
      out << kLimit << std::flush;
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

  std::string group_;
};

TEST_F(CgroupTest, WhatWasAcknowledgedIsThere) {
  // The daemon is in the group, and who writes is not.
  const Ran ran = Shell("exec sh -c 'echo $$ >" + group_ + "/cgroup.procs || exit 77; exec " +
                        Pkramfs() + " " + region_ + " " + mount_ + " -o size=512m'");
  if (ran.status == 77) GTEST_SKIP() << "no process can be moved to a cgroup here";
  ASSERT_EQ(ran.status, 0) << ran.err;
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
  const bool is_dead = Slurp(group_ + "/cgroup.procs").empty();
  std::printf("  %d files of %zu bytes in %llu bytes of memory; the daemon %s\n", acknowledged,
              bytes.size(), static_cast<unsigned long long>(kLimit),
              is_dead ? "was killed" : "went on");
  if (!is_dead) {
    EXPECT_NE(access((mount_ + "/deleted").c_str(), F_OK), 0) << "deleting does not work";
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

}  // namespace
}  // namespace pkramfs
