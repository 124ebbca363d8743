// Ends a mount when its test hangs or dies.  A process that waits for a mount's answer cannot be
// killed.  So without this, CTest would wait for such a test for ever.
#ifndef TESTS_LAST_RESORT_H_
#define TESTS_LAST_RESORT_H_

#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <stdexcept>
#include <string>

#include "tests/eventually.h"
#include "tests/processes.h"

namespace pkramfs {

// REQUIRES: the process has no other threads, except threads that wait for a mount.
class LastResort {
 public:
  // Shorter than what CTest gives a test (tests/CMakeLists.txt).
  static constexpr std::chrono::milliseconds kPatience = std::chrono::minutes(9);

  explicit LastResort(const std::string& mount_point,
                      std::chrono::milliseconds patience = kPatience) {
    const pid_t test = getpid();
    child_ = fork();
    if (child_ < 0) throw std::runtime_error("fork: nobody would end a mount whose test hangs");
    if (child_ > 0) return;
    // CTest waits until nobody has the test's output open.
    syscall(SYS_close_range, 0, UINT_MAX, 0);
    pollfd ended{static_cast<int>(syscall(SYS_pidfd_open, test, 0)), POLLIN, 0};
    poll(&ended, 1, static_cast<int>(patience.count()));
    // A keeper that is stopped starts no other server, and a server that is gone no other keeper.
    const auto keeper = [&] { return ProcessOf("pkramfs-keeper", mount_point); };
    const auto server = [&] { return ProcessOf("pkramfs", mount_point); };
    while (keeper() != 0 || server() != 0) {
      const pid_t kept = keeper();
      if (kept != 0) Stop(kept);
      for (const pid_t pid : {server(), kept}) {
        if (pid == 0) continue;
        kill(pid, SIGKILL);
        Eventually([pid] { return IsGone(pid); });
      }
    }
    // By force: the test may have the connection's descriptor.
    while (umount2(mount_point.c_str(), MNT_FORCE | MNT_DETACH) == 0) continue;
    _exit(0);
  }
  ~LastResort() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  LastResort(const LastResort&) = delete;
  LastResort& operator=(const LastResort&) = delete;

 private:
  pid_t child_;
};

}  // namespace pkramfs

#endif  // TESTS_LAST_RESORT_H_
