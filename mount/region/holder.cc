#include "mount/region/holder.h"

#include <cap-ng.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/region/memfd.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr char kName[] = "pkramfs-holder", kNameOfSessions[] = "pkramfs-session";
// A holder's descriptors.
constexpr int kRegion = 3, kSession = 4, kStarter = 5;

absl::Status Failed() {
  return absl::ResourceExhaustedError("cannot start a process that holds the region");
}

// A mapping has the file open that it was made of, with its lock.
void UnmapMemfds() {
  std::ifstream maps("/proc/self/maps");
  std::vector<std::pair<uintptr_t, uintptr_t>> found;
  for (std::string line; std::getline(maps, line);) {
    unsigned long long begin = 0, end = 0;
    const bool is_one = line.find(" /memfd:pkramfs:") != std::string::npos ||
                        line.find(" /memfd: (deleted)") != std::string::npos;
    if (is_one && std::sscanf(line.c_str(), "%llx-%llx", &begin, &end) == 2) {
      found.emplace_back(begin, end);
    }
  }
  for (const auto& [begin, end] : found) munmap(reinterpret_cast<void*>(begin), end - begin);
}

[[noreturn]] void Hold(int region, int session, int starter) {
  setsid();
  prctl(PR_SET_NAME, session < 0 ? kName : kNameOfSessions);
  if (chdir("/") != 0) _exit(1);
  // Opened anew: the lock belongs to the descriptor that this process was started with.  (Any
  // number below may be closed.)
  const auto above = [](int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, kStarter + 1); };
  const int own = above(open(absl::StrCat("/proc/self/fd/", region).c_str(), O_RDWR | O_CLOEXEC));
  starter = above(starter);
  session = session < 0 ? -1 : above(session);
  const int null = above(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (own < 0 || null < 0) _exit(1);
  UnmapMemfds();
  capng_clear(CAPNG_SELECT_ALL);
  std::ignore = capng_apply(CAPNG_SELECT_CAPS);
  // What was sent to the process group before is not meant for this process: ignoring drops it.
  for (const int number : {SIGTERM, SIGINT, SIGQUIT, SIGHUP}) signal(number, SIG_IGN);
  signal(SIGTERM, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  dup2(own, kRegion);
  session < 0 ? close(kSession) : dup2(session, kSession);
  // Nothing else is open, and no lock is held, when the starter goes on.
  dup2(starter, kStarter);
  syscall(SYS_close_range, static_cast<unsigned>(kStarter + 1), ~0u, 0u);
  if (write(kStarter, "", 1) != 1) _exit(1);
  close(kStarter);
  for (;;) pause();
}

}  // namespace

// Forks twice, so that the holder is nobody's child.
absl::Status StartHolder(int region, int session) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Failed();
  Descriptor ready(ends[0]), held_by_child(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    const pid_t holder = fork();
    if (holder == 0) Hold(region, session, held_by_child.get());
    _exit(holder < 0 ? 1 : 0);
  }
  held_by_child = Descriptor(-1);
  if (child < 0) return Failed();
  waitpid(child, nullptr, 0);
  char byte;
  ssize_t n;
  do {
    n = read(ready.get(), &byte, 1);
  } while (n < 0 && errno == EINTR);
  return n == 1 ? absl::OkStatus() : Failed();
}

std::vector<Descriptor> HoldersOf(int region, Holds what) {
  const char* const called = what == Holds::kRegion ? kName : kNameOfSessions;
  std::vector<Descriptor> holders;
  struct stat wanted, other;
  if (fstat(region, &wanted) != 0) return holders;
  for (const std::string& process : NumbersIn("/proc")) {
    const std::string directory = "/proc/" + process;
    std::string name;
    if (!std::getline(std::ifstream(directory + "/comm"), name) || name != called) continue;
    Descriptor holder(static_cast<int>(syscall(SYS_pidfd_open, std::stoi(process), 0)));
    // (Looked at while the descriptor says that it is the same process.)
    if (holder.get() >= 0 && stat(absl::StrCat(directory, "/fd/", kRegion).c_str(), &other) == 0 &&
        other.st_ino == wanted.st_ino && other.st_dev == wanted.st_dev) {
      holders.push_back(std::move(holder));
    }
  }
  return holders;
}

void EndHolder(const Descriptor& holder) {
  if (syscall(SYS_pidfd_send_signal, holder.get(), SIGKILL, nullptr, 0) != 0) return;
  pollfd ends{holder.get(), POLLIN, 0};
  while (poll(&ends, 1, -1) < 0 && errno == EINTR) continue;
}

}  // namespace pkramfs
