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
#include "mount/region/memory_limit.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr char kName[] = "pkramfs-holder", kNameOfSessions[] = "pkramfs-session";
// A holder's descriptors.
constexpr int kRegion = 3, kSession = 4, kStarter = 5;

absl::Status Failed() {
  return absl::ResourceExhaustedError("cannot start a process that holds the region");
}

// What a holder says to its starter, before the text of an error.
struct Report {
  absl::StatusCode code;
  size_t bytes;
};

// A mapping has the file open that it was made of, with its lock.
void UnmapMemfds() {
  std::ifstream maps("/proc/self/maps");
  std::vector<std::pair<uintptr_t, uintptr_t>> found;
  for (std::string line; std::getline(maps, line);) {
    unsigned long long begin = 0, end = 0;
    const bool is_one = line.find(" /memfd:pkramfs:") != std::string::npos ||
                        line.find(" /memfd: (deleted)") != std::string::npos ||
                        line.find(" / (deleted)") != std::string::npos;
    if (is_one && std::sscanf(line.c_str(), "%llx-%llx", &begin, &end) == 2) {
      found.emplace_back(begin, end);
    }
  }
  for (const auto& [begin, end] : found) munmap(reinterpret_cast<void*>(begin), end - begin);
}

// Says how it went.  The starter may be gone.
void Say(int starter, const absl::Status& status) {
  const std::string text(status.message());
  const Report report{status.code(), text.size()};
  std::ignore = write(starter, &report, sizeof(report)) == sizeof(report) &&
                write(starter, text.data(), text.size());
}

[[noreturn]] void Hold(const std::function<absl::StatusOr<Held>()>& get, int starter) {
  setsid();
  prctl(PR_SET_NAME, kName);
  // What was sent to the process group before is not meant for this process: ignoring drops it.
  for (const int number : {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGPIPE}) signal(number, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (chdir("/") != 0) _exit(1);
  LeaveCgroups();
  // (Any number below may be closed.)
  const auto above = [](int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, Held::kFree); };
  starter = above(starter);
  const int null = above(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (starter < 0 || null < 0) _exit(1);
  const absl::StatusOr<Held> held = get();
  if (!held.ok()) {
    Say(starter, held.status());
    _exit(1);
  }
  const int region = above(held->region.get());
  const int session = held->session.get() < 0 ? -1 : above(held->session.get());
  if (region < 0 || (held->session.get() >= 0 && session < 0)) _exit(1);
  if (session >= 0) prctl(PR_SET_NAME, kNameOfSessions);
  UnmapMemfds();
  dup2(region, kRegion);
  capng_clear(CAPNG_SELECT_ALL);
  std::ignore = capng_apply(CAPNG_SELECT_CAPS);
  // (The kernel hides what a process has open from those with fewer capabilities.)
  if (held->in_place) held->in_place();
  signal(SIGTERM, SIG_DFL);
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  session < 0 ? close(kSession) : dup2(session, kSession);
  // Nothing else is open, and no lock is held, when the starter goes on.
  dup2(starter, kStarter);
  syscall(SYS_close_range, static_cast<unsigned>(kStarter + 1), ~0u, 0u);
  Say(kStarter, absl::OkStatus());
  close(kStarter);
  for (;;) pause();
}

bool ReadAll(int fd, void* to, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = read(fd, static_cast<char*>(to) + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

absl::Status StartHolder(int region, int session) {
  return StartHolderThatGets([region, session]() -> absl::StatusOr<Held> {
    // Opened anew: the lock belongs to the descriptor that this process was started with.
    Held held{Descriptor(open(absl::StrCat("/proc/self/fd/", region).c_str(), O_RDWR | O_CLOEXEC))};
    if (session >= 0) held.session = Descriptor(fcntl(session, F_DUPFD_CLOEXEC, 3));
    if (held.region.get() < 0 || (session >= 0 && held.session.get() < 0)) return Failed();
    return held;
  });
}

// Forks twice, so that the holder is nobody's child.
absl::Status StartHolderThatGets(const std::function<absl::StatusOr<Held>()>& get) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Failed();
  Descriptor report_end(ends[0]), held_by_child(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    const pid_t holder = fork();
    if (holder == 0) Hold(get, held_by_child.get());
    _exit(holder < 0 ? 1 : 0);
  }
  held_by_child = Descriptor(-1);
  if (child < 0) return Failed();
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) continue;
  Report report{};
  if (!ReadAll(report_end.get(), &report, sizeof(report))) return Failed();
  std::string text(report.bytes, '\0');
  if (!ReadAll(report_end.get(), text.data(), text.size())) return Failed();
  return absl::Status(report.code, text);
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
