// Kills a mount's processes, one at a time.  Programs that use the mount must not notice.
#ifndef TESTS_KILLER_H_
#define TESTS_KILLER_H_

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <string>
#include <utility>

#include "tests/eventually.h"
#include "tests/processes.h"

namespace pkramfs {

enum class Victim { kServer, kKeeper };

// Kills the server or the keeper of a mount, which is known by its region or directory, once both
// are there. (The death of both at once would end the mount.)  False when one of them never comes.
inline bool KillOne(Victim victim, const std::string& where) {
  const std::pair<const char*, const char*> names = victim == Victim::kServer
                                                        ? std::pair("pkramfs", "pkramfs-keeper")
                                                        : std::pair("pkramfs-keeper", "pkramfs");
  pid_t pid = 0;
  if (!Eventually([&] { return (pid = ProcessOf(names.first, where)) != 0; })) return false;
  if (!Eventually([&] { return ProcessOf(names.second, where) != 0; })) return false;
  kill(pid, SIGKILL);
  return Eventually([&] { return IsGone(pid); });
}

// A process that kills all the time: the server, and now and then the keeper.
class Killer {
 public:
  explicit Killer(const std::string& where) : pid_(fork()) {
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::mt19937_64 random(1);
    for (;;) {
      // Waits until requests under way have got somewhere.
      usleep(static_cast<useconds_t>(random() % 50000));
      KillOne(random() % 4 == 0 ? Victim::kKeeper : Victim::kServer, where);
    }
  }
  ~Killer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Killer(const Killer&) = delete;
  Killer& operator=(const Killer&) = delete;

 private:
  const pid_t pid_;
};

}  // namespace pkramfs

#endif  // TESTS_KILLER_H_
