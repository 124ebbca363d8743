// A fixture for import and export: mounts, and sources on tmpfs.
#ifndef TESTS_BULK_FIXTURE_H_
#define TESTS_BULK_FIXTURE_H_

#include <signal.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <string>

#include "tests/manifest.h"
#include "tests/mount_fixture.h"
#include "tests/odd_tree.h"

namespace pkramfs {

class BulkTest : public MountTest {
 protected:
  Ran Import(const std::string& words) { return Shell(Pkramctl() + " import " + words); }
  // A source on tmpfs, which takes attributes of any size.
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
  // Makes a tree of many small files and a large one.  Each contains `name`.
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
      // Whoever runs the tests may ignore these.
      for (const int ends : {SIGINT, SIGHUP, SIGTERM}) signal(ends, SIG_DFL);
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

}  // namespace pkramfs

#endif  // TESTS_BULK_FIXTURE_H_
