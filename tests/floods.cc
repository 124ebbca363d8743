// Floods: many of everything, on a real mount.  Every operation works, the daemon's own
// memory (not the region) stays within a bound that grows with what it serves, and goes back
// when that is gone.
//
//   floods [--scale N]     thousandths of the full size: 1000 is a directory of a million
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <new>
#include <sstream>

#include "mount/tools/command_line.h"
#include "tests/mount_process.h"

namespace pkramfs {
namespace {

using Clock = std::chrono::steady_clock;

// The bound: what a daemon has at rest, and for each inode that is in use (whose names or
// attributes the kernel has cached) and each link of 510 pages of an open file so much.
constexpr uint64_t kAtRest = 48 << 20;
constexpr uint64_t kPerInode = 320;
constexpr uint64_t kPerLink = 64;
// And for each inode that there was: its number can be used again.
constexpr uint64_t kPerNumber = 32;

[[noreturn]] void Fail(const std::string& what) { throw std::runtime_error(what); }
void Must(bool done, const std::string& what) {
  if (!done) Fail(what + ": " + std::strerror(errno));
}

class Floods {
 public:
  explicit Floods(uint64_t scale) : scale_(scale) { mount_.Mount(kOptions); }

  void Run() {
    Report("at rest", 0, 0);
    Directory();
    Deep();
    Holes();
    OpenUnlinked();
    Processes();
    Interrupted();
    Killed();
    StalledReader();
    const uint64_t inodes = StatisticsOf(root())["inodes"];
    if (inodes != 1) Fail(std::to_string(inodes) + " inodes are left");
    mount_.Unmount();
    if (std::system((PKRAMCTL_BINARY " check " + mount_.region()).c_str()) != 0) {
      Fail("the region is not sound");
    }
  }

 private:
  static constexpr const char* kOptions = "size=12g";

  const std::string& root() const { return mount_.mount_point(); }
  uint64_t Of(uint64_t full) const { return std::max<uint64_t>(full * scale_ / 1000, 10); }

  uint64_t OwnMemory() const {
    std::ifstream in("/proc/" + std::to_string(mount_.Pid()) + "/status");
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("RssAnon:", 0) == 0) return std::stoull(line.substr(8)) << 10;
    }
    return 0;
  }
  // Looks, now and then, how much it is in the middle of something.
  void Sample() { peak_ = std::max(peak_, OwnMemory()); }
  // The most of it since the last report, or what there is where all is `gone`.
  void Report(const std::string& what, uint64_t inodes, uint64_t links, uint64_t gone = 0) {
    const uint64_t memory = std::max(OwnMemory(), gone > 0 ? 0 : peak_);
    peak_ = 0;
    const uint64_t bound = kAtRest + inodes * kPerInode + links * kPerLink + gone * kPerNumber;
    std::printf("%-44s %8.1f MiB of its own, at most %.1f\n", what.c_str(),
                static_cast<double>(memory) / (1 << 20), static_cast<double>(bound) / (1 << 20));
    std::fflush(stdout);
    if (memory > bound) Fail(what + ": the daemon has taken more memory than its bound");
  }
  // Seconds of the processor that the daemon has had.
  double Worked() const {
    std::ifstream in("/proc/" + std::to_string(mount_.Pid()) + "/stat");
    std::string text, field;
    std::getline(in, text);
    std::istringstream fields(text.substr(text.rfind(')')));
    for (int i = 0; i < 12; ++i) fields >> field;
    uint64_t user = 0, system = 0;
    fields >> user >> system;
    return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  // Something that looks at all that is there each time would work 19 times as long in the
  // last tenth as in the first; half a second is what a small number of steps may differ by.
  static void MustNotGrow(const std::string& what, double first, double last) {
    if (last > 4 * first + 0.5) {
      Fail(what + ": the daemon worked " + std::to_string(first) + " s at the beginning, and " +
           std::to_string(last) + " s in the end");
    }
  }
  // `n` times, and how fast the first and the last tenth were.
  void Each(const std::string& what, uint64_t n, const std::function<void(uint64_t)>& fn) {
    double tenths[2] = {0, 0}, worked[2] = {0, 0};
    for (uint64_t tenth = 0; tenth < 10; ++tenth) {
      const double before = Worked();
      const auto begin = Clock::now();
      for (uint64_t i = n * tenth / 10; i < n * (tenth + 1) / 10; ++i) fn(i);
      tenths[tenth > 0] = std::chrono::duration<double>(Clock::now() - begin).count();
      worked[tenth > 0] = Worked() - before;
      Sample();
    }
    MustNotGrow(what, worked[0], worked[1]);
    std::printf("  %-42s %8llu: %.1f us each at the beginning, %.1f in the end\n", what.c_str(),
                static_cast<unsigned long long>(n), tenths[0] * 1e7 / static_cast<double>(n),
                tenths[1] * 1e7 / static_cast<double>(n));
  }
  static uint64_t Entries(const std::string& path) {
    DIR* const dir = opendir(path.c_str());
    Must(dir != nullptr, path);
    uint64_t entries = 0;
    while (readdir(dir) != nullptr) ++entries;
    closedir(dir);
    return entries - 2;
  }
  // Of each of `n` entries, and what the daemon worked for that.
  double MicrosecondsToList(const std::string& dir, uint64_t n, double* worked) {
    const double before = Worked();
    const auto begin = Clock::now();
    if (Entries(root() + "/" + dir) != n) Fail("not all names are listed");
    *worked = (Worked() - before) / static_cast<double>(n);
    Sample();
    return std::chrono::duration<double>(Clock::now() - begin).count() * 1e6 /
           static_cast<double>(n);
  }
  std::string In(const std::string& dir, uint64_t i) const {
    return root() + "/" + dir + "/file" + std::to_string(i);
  }

  void Directory() {
    const uint64_t n = Of(1000000);
    Must(mkdir((root() + "/many").c_str(), 0755) == 0, "mkdir");
    double list_some = 0, work_of_some = 0, work_of_all = 0;
    Each("create", n, [&](uint64_t i) {
      if (i == n / 10) list_some = MicrosecondsToList("many", i, &work_of_some);
      const int fd = open(In("many", i).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644);
      Must(fd >= 0, "create");
      close(fd);
    });
    Report("a directory of " + std::to_string(n), n, 0);
    mount_.Kill();
    mount_.Mount(kOptions);
    const double list_all = MicrosecondsToList("many", n, &work_of_all);
    std::printf("  %-42s %8llu: %.1f us each of the first tenth, %.1f of all\n", "list",
                static_cast<unsigned long long>(n), list_some, list_all);
    MustNotGrow("list", work_of_some * static_cast<double>(n),
                work_of_all * static_cast<double>(n));
    Report("the same, killed, mounted again and listed", n, 0);
    struct stat st;
    Each("look up", n,
         [&](uint64_t i) { Must(stat(In("many", i * 7919 % n).c_str(), &st) == 0, "stat"); });
    Each("delete", n, [&](uint64_t i) {
      Must(unlink(In("many", n % 7919 != 0 ? i * 7919 % n : i).c_str()) == 0, "unlink");
    });
    Must(rmdir((root() + "/many").c_str()) == 0, "rmdir");
    Settle(1);
    Report("all of them deleted", 0, 0, n);
  }

  void Deep() {
    constexpr int kDepth = 1000;
    int fd = open(root().c_str(), O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < kDepth; ++i) {
      Must(mkdirat(fd, "d", 0755) == 0, "mkdirat");
      const int below = openat(fd, "d", O_RDONLY | O_DIRECTORY);
      Must(below >= 0, "openat");
      close(fd);
      fd = below;
    }
    const int file = openat(fd, "bottom", O_CREAT | O_WRONLY, 0644);
    Must(write(file, "here", 4) == 4, "write");
    close(file);
    close(fd);
    mount_.Kill();
    mount_.Mount(kOptions);
    std::string path = root();
    for (int i = 0; i < kDepth; ++i) path += "/d";
    struct stat st;
    Must(stat((path + "/bottom").c_str(), &st) == 0 && st.st_size == 4, "a path that is deep");
    Report("a path of a thousand directories", kDepth, 0);
    Must(std::system(("rm -r " + root() + "/d").c_str()) == 0, "rm -r");
  }

  void Holes() {
    const uint64_t n = Of(1000000);
    const std::string path = root() + "/holes";
    int fd = open(path.c_str(), O_CREAT | O_RDWR, 0644);
    Each("write between holes", n, [&](uint64_t i) {
      Must(pwrite(fd, "x", 1, static_cast<off_t>(i * 8192)) == 1, "pwrite");
    });
    Report("a file of " + std::to_string(n) + " holes", 1, 2 * n / 510 + 2);
    close(fd);
    mount_.Kill();
    mount_.Mount(kOptions);
    fd = open(path.c_str(), O_RDWR);
    off_t at = 0;
    Each("seek to data and to holes", n, [&](uint64_t i) {
      at = lseek(fd, at, SEEK_DATA);
      if (at != static_cast<off_t>(i * 8192)) Fail("a hole is not where it was");
      at = lseek(fd, at, SEEK_HOLE);
    });
    Report("the same, killed and mounted again", 1, 2 * n / 510 + 2);
    Must(ftruncate(fd, 0) == 0, "ftruncate");
    close(fd);
    Must(unlink(path.c_str()) == 0, "unlink");
  }

  void OpenUnlinked() {
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    const uint64_t n = std::min<uint64_t>(10000, limit.rlim_cur - 100);
    std::vector<int> open_files;
    for (uint64_t i = 0; i < n; ++i) {
      const std::string path = root() + "/gone" + std::to_string(i);
      const int fd = open(path.c_str(), O_CREAT | O_RDWR, 0644);
      Must(fd >= 0 && write(fd, &i, sizeof(i)) == sizeof(i), "create");
      Must(unlink(path.c_str()) == 0, "unlink");
      open_files.push_back(fd);
    }
    Report(std::to_string(n) + " open files without a name", n, 0);
    for (uint64_t i = 0; i < n; ++i) {
      uint64_t is = 0;
      Must(pread(open_files[i], &is, sizeof(is), 0) == sizeof(is) && is == i, "pread");
      close(open_files[i]);
    }
    Settle(1);
  }

  // Waits until nothing is in use except files that have a name.
  void Settle(uint64_t inodes) const {
    if (!Eventually([&] { return StatisticsOf(root())["inodes"] <= inodes; })) {
      Fail("inodes without names stay");
    }
  }

  pid_t InAChild(const std::function<void()>& fn) {
    std::fflush(stdout);
    const pid_t pid = fork();
    if (pid != 0) return pid;
    try {
      fn();
      _exit(0);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      _exit(1);
    }
  }
  // Of a child, or of any (-1).
  int StatusOf(pid_t pid) {
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(pid, &status, WNOHANG)) == 0) {
      Sample();
      usleep(2000);
    }
    Must(ended > 0, "waitpid");
    return status;
  }
  void MustSucceed(pid_t pid, const char* what) {
    if (StatusOf(pid) != 0) Fail(what);
  }

  // All start together, and none is left behind while others are served.
  void Processes() {
    constexpr int kProcesses = 64;
    const uint64_t rounds = std::max<uint64_t>(Of(2000), 300);
    struct Shared {
      std::atomic<bool> may_start;
      std::atomic<int> done;         // processes that have done their rounds
      std::atomic<uint64_t> rounds;  // of all
    };
    void* const memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    Must(memory != MAP_FAILED, "mmap");
    auto* const shared = new (memory) Shared{};
    std::vector<pid_t> children;
    for (int p = 0; p < kProcesses; ++p) {
      children.push_back(InAChild([&] {
        const std::string dir = "process" + std::to_string(p);
        Must(mkdir((root() + "/" + dir).c_str(), 0755) == 0, "mkdir");
        while (!shared->may_start) usleep(1000);
        // On and on, until the slowest is done: if the others kept it from being served, that would
        // never be.
        for (uint64_t i = 0; shared->done < kProcesses; ++i, ++shared->rounds) {
          if (i == rounds) ++shared->done;
          const std::string bytes(1 + i * 37 % 20000, static_cast<char>('a' + p % 26));
          const int fd = open(In(dir, i).c_str(), O_CREAT | O_RDWR, 0644);
          Must(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
               "write");
          std::string back(bytes.size(), 0);
          Must(pread(fd, back.data(), back.size(), 0) == static_cast<ssize_t>(back.size()),
               "pread");
          if (back != bytes) Fail("other bytes come back");
          close(fd);
          Must(rename(In(dir, i).c_str(), (root() + "/" + dir + "/kept").c_str()) == 0, "rename");
        }
        Must(unlink((root() + "/" + dir + "/kept").c_str()) == 0, "unlink");
        Must(rmdir((root() + "/" + dir).c_str()) == 0, "rmdir");
      }));
    }
    shared->may_start = true;
    bool failed = false;
    for (int p = 0; p < kProcesses; ++p) {
      if (StatusOf(-1) != 0) failed = true;
      // Nobody waits for one that has ended.
      if (failed) shared->done = kProcesses;
    }
    const uint64_t all = shared->rounds;
    munmap(memory, sizeof(Shared));
    if (failed) Fail("one of the processes failed");
    std::printf("  %d processes: when the slowest had done %llu, all had done %llu\n", kProcesses,
                static_cast<unsigned long long>(rounds), static_cast<unsigned long long>(all));
    Settle(1);
    Report(std::to_string(kProcesses) + " processes", 64 * kProcesses, 0);
  }

  // Each call may be interrupted, and is done again where it says so.
  void Interrupted() {
    MustSucceed(
        InAChild([&] {
          struct sigaction action {};
          action.sa_handler = [](int) { signals_ = signals_ + 1; };  // without SA_RESTART
          sigaction(SIGALRM, &action, nullptr);
          const itimerval often{{0, 300}, {0, 300}};
          setitimer(ITIMER_REAL, &often, nullptr);
          const auto again = [](auto call) {
            for (;;) {
              const auto result = call();
              if (result >= 0 || errno != EINTR) return result;
            }
          };
          const std::string path = root() + "/interrupted";
          const std::string bytes(1 << 20, 'i');
          for (uint64_t i = 0; i < Of(1000); ++i) {
            const int fd =
                static_cast<int>(again([&] { return open(path.c_str(), O_CREAT | O_RDWR, 0644); }));
            Must(fd >= 0, "open");
            for (size_t at = 0; at < bytes.size();) {
              const ssize_t n = again([&] {
                return pwrite(fd, bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
              });
              Must(n > 0, "pwrite");
              at += static_cast<size_t>(n);
            }
            std::string back(bytes.size(), 0);
            for (size_t at = 0; at < back.size();) {
              const ssize_t n = again([&] {
                return pread(fd, back.data() + at, back.size() - at, static_cast<off_t>(at));
              });
              Must(n > 0, "pread");
              at += static_cast<size_t>(n);
            }
            if (back != bytes) Fail("other bytes come back");
            close(fd);
            again([&] { return unlink(path.c_str()); });
            if (access(path.c_str(), F_OK) == 0) Fail("unlink did nothing");
          }
          if (signals_ < static_cast<int>(Of(1000))) Fail("nothing was interrupted");
        }),
        "what was interrupted is not right");
    Settle(1);
    Report("requests that are interrupted", 0, 0);
  }

  // Programs that are killed while they wait for an answer.  Nothing that they asked for stays in
  // use.
  void Killed() {
    const std::string dir = root() + "/killed";
    Must(mkdir(dir.c_str(), 0755) == 0, "mkdir");
    for (uint64_t i = 0; i < std::max<uint64_t>(Of(2000), 200); ++i) {
      const pid_t child = InAChild([&] {
        for (uint64_t k = 0;; ++k) {
          const std::string path = dir + "/" + std::to_string(i) + "-" + std::to_string(k);
          close(open(path.c_str(), O_CREAT | O_WRONLY, 0644));
          mkdir((path + ".d").c_str(), 0755);
          struct stat st;
          stat((path + ".none").c_str(), &st);
          Entries(dir);
          unlink(path.c_str());
        }
      });
      usleep(static_cast<useconds_t>(200 + i * 7919 % 3000));
      kill(child, SIGKILL);
      if (const int status = StatusOf(child); !WIFSIGNALED(status)) Fail("it was not killed");
    }
    Must(std::system(("rm -r " + dir).c_str()) == 0, "rm -r");
    Settle(1);
    Report("callers that are killed", 64, 0);
  }

  // Whoever stops between two reads keeps nobody from anything.  (One that stops in the
  // middle of one: FileDataTest.AStalledReadNeverShowsAnotherFilesBytes.)
  void StalledReader() {
    const std::string path = root() + "/stalled";
    const std::string bytes(32 << 20, 's');
    int fd = open(path.c_str(), O_CREAT | O_RDWR, 0644);
    Must(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "write");
    close(fd);
    mount_.Kill();  // so that nothing of it is cached
    mount_.Mount(kOptions);
    const pid_t reader = InAChild([&] {
      const int in = open(path.c_str(), O_RDONLY);
      std::string back(1 << 20, 0);
      for (int i = 0;; ++i) {
        if (i == 4) raise(SIGSTOP);
        const ssize_t n = read(in, back.data(), back.size());
        Must(n >= 0, "read");
        if (n == 0) return;
        // Bytes that were cut off meanwhile cannot be read.  Bytes of another file never show up.
        if (back.find_first_not_of('s') < static_cast<size_t>(n)) Fail("another's bytes");
      }
    });
    int status = 0;
    waitpid(reader, &status, WUNTRACED);
    if (!WIFSTOPPED(status)) Fail("the reader did not stop");
    Must(truncate(path.c_str(), 4096) == 0, "truncate");
    for (uint64_t i = 0; i < 200; ++i) {
      fd = open(In("", i).c_str(), O_CREAT | O_RDWR, 0644);
      Must(write(fd, std::string(100000, 'o').data(), 100000) == 100000, "write");
      close(fd);
      Must(unlink(In("", i).c_str()) == 0, "unlink");
    }
    kill(reader, SIGCONT);
    MustSucceed(reader, "the reader that was stopped");
    Must(unlink(path.c_str()) == 0, "unlink");
    Settle(1);
    Report("a reader that stalls", 0, 0);
  }

  static inline volatile sig_atomic_t signals_ = 0;
  const uint64_t scale_;
  MountProcess mount_;
  uint64_t peak_ = 0;
};

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  pkramfs::CommandLine line("floods", "Many of everything, on a mount.");
  uint64_t scale = 1000;
  line.Option("--scale", &scale, "In thousandths");
  if (const auto status = line.Parse(argc, argv)) return *status;
  try {
    pkramfs::Floods(scale).Run();
  } catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
  return 0;
}
