// Real mounts for the tests: the pkramfs that was just built, a region of its own
// in /dev/shm, and a directory to mount on.
#ifndef TESTS_MOUNT_FIXTURE_H_
#define TESTS_MOUNT_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "mount/region/mounts.h"
#include "pkram/backing.h"
#include "tests/last_resort.h"
#include "tests/mount_process.h"

namespace pkramfs {

inline std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

inline void Spill(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// What a shell command did.
struct Ran {
  int status;
  std::string out;
  std::string err;
};

inline Ran Shell(const std::string& command) {
  char out[] = "/tmp/pkramfs-out-XXXXXX", err[] = "/tmp/pkramfs-err-XXXXXX";
  close(mkstemp(out));
  close(mkstemp(err));
  const int raw = std::system(("( " + command + "\n) </dev/null >" + out + " 2>" + err).c_str());
  Ran ran{WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw), Slurp(out), Slurp(err)};
  unlink(out);
  unlink(err);
  return ran;
}

inline bool IsMounted(const std::string& mount_point) {
  for (const MountEntry& m : PkramfsMounts()) {
    if (m.mount_point == mount_point) return true;
  }
  return false;
}

class MountTest : public testing::Test {
 protected:
  void SetUp() override {
    if (access("/dev/fuse", F_OK) != 0 || geteuid() != 0) {
      GTEST_SKIP() << "needs root and /dev/fuse";
    }
    char dir[] = "/tmp/pkramfs-test-XXXXXX";
    dir_ = mkdtemp(dir);
    // The daemon of an ordinary user must be able to reach this directory, too.
    chmod(dir_.c_str(), 0755);
    mount_ = dir_ + "/mnt";
    mkdir(mount_.c_str(), 0777);
    chmod(mount_.c_str(), 0777);
    region_ = "/dev/shm/" + dir_.substr(5);
    last_resort_.emplace(mount_);
  }
  void TearDown() override {
    if (dir_.empty()) return;
    while (IsMounted(mount_)) {
      if (umount2(mount_.c_str(), MNT_DETACH) != 0) break;
    }
    // A daemon that a failed test has left frozen, for example, does not end by itself.
    if (HasFailure()) {
      const int fd = open(region_.c_str(), O_RDONLY);
      const int pid = fd < 0 ? 0 : pkram::LockHolder(fd);
      close(fd);
      usleep(500000);
      if (pid > 0 && pid != getpid()) kill(pid, SIGKILL);
    }
    WaitUntilFree();
    unlink(region_.c_str());
    Shell("rm -rf --one-file-system " + dir_ + " " + region_ + ".* " + region_ + "-*");
  }

  static std::string Pkramfs() { return PKRAMFS_BINARY; }
  static std::string Pkramctl() { return PKRAMCTL_BINARY; }

  Ran TryMount(const std::string& options = "size=256m") {
    return Shell(Pkramfs() + " " + region_ + " " + mount_ + " -o " + options);
  }
  void Mount(const std::string& options = "size=256m") {
    const Ran ran = TryMount(options);
    ASSERT_EQ(ran.status, 0) << ran.err;
    ASSERT_EQ(ran.err, "");
  }
  void Unmount() {
    ASSERT_EQ(umount2(mount_.c_str(), 0), 0) << std::strerror(errno);
    WaitUntilFree();
  }
  // kill -9 of the keeper and the server, then umount -l.
  void Kill() {
    KillBoth(mount_);
    umount2(mount_.c_str(), MNT_DETACH);
  }
  nlohmann::json Statistics() { return StatisticsOf(mount_); }
  pid_t DaemonPid() { return Statistics()["pid"]; }

  // Waits until the daemon of a mount that is gone has sealed the region.
  void WaitUntilFree() { ASSERT_TRUE(WaitUntilRegionIsFree(region_)) << region_; }

  std::string dir_, mount_, region_;

 private:
  std::optional<LastResort> last_resort_;
};

}  // namespace pkramfs

#endif  // TESTS_MOUNT_FIXTURE_H_
