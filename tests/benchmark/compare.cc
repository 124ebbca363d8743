// pkramfs, tmpfs and other FUSE filesystems side by side: the same work on each in turn, round
// by round, medians, and their ratio to tmpfs.
//   compare --rounds 5 --json results.json --repository DIR
//   compare --repository DIR --only pkramfs --only other --other PROGRAM     before and after a
//   change
// Peers that are not installed are left out, and that is said.
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mount/tools/command_line.h"
#include "tests/benchmark/candidates.h"

namespace pkramfs {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

std::vector<pid_t> ThreadsOf(pid_t pid) {
  std::vector<pid_t> threads;
  DIR* const dir = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (dir == nullptr) return threads;
  while (const dirent* e = readdir(dir)) {
    if (e->d_name[0] != '.') threads.push_back(std::atoi(e->d_name));
  }
  closedir(dir);
  return threads;
}

// --- The work ----------------------------------------------------------------------------

// What one measurement took.
struct Sample {
  double seconds = 0;
  double daemon_cpu = 0;
  double requests = 0;  // per operation
};

using Samples = std::vector<std::pair<std::string, Sample>>;

class Work {
 public:
  Work(Candidate* candidate, const std::string& source, bool one_cpu, Samples* samples)
      : fs_(candidate), source_(source), one_cpu_(one_cpu), samples_(samples) {}

  void SmallOperations() {
    constexpr int kCount = 3000;
    Pin();
    const std::string dir = fs_->dir() + "/small";
    Must(mkdir(dir.c_str(), 0755) == 0, dir);
    Measure("one request (statfs)", kCount, [&] {
      struct statvfs st;
      for (int i = 0; i < kCount; ++i) Must(statvfs(fs_->dir().c_str(), &st) == 0, "statvfs");
    });
    Measure("create 1 KiB files", kCount, [&] { CreateFiles(dir, kCount); });
    StatFiles(dir, kCount);
    Measure("stat, cached", kCount, [&] { StatFiles(dir, kCount); });
    ReadFiles(dir, kCount);
    Measure("open, read, close", kCount, [&] { ReadFiles(dir, kCount); });
    List(dir);
    Measure("list", kCount, [&] { List(dir); });
    Measure("unlink", kCount, [&] {
      for (int i = 0; i < kCount; ++i) Must(unlink(File(dir, i).c_str()) == 0, "unlink");
    });
    Must(rmdir(dir.c_str()) == 0, "rmdir");
    const std::string file = fs_->dir() + "/small";
    Overwrite(file, 4096, 4 * kMiB);
    Measure("overwrite a small file, 4 KiB", 4 * kMiB / 4096,
            [&] { Overwrite(file, 4096, 4 * kMiB); });
    Must(unlink(file.c_str()) == 0, "unlink");
  }

  void LargeFile() {
    const std::string file = fs_->dir() + "/large";
    const size_t size = 256 * kMiB;
    Measure("cp a large file in, fresh", 1, [&] { Shell("cp " + source_ + "/large " + file); });
    Measure("read it after that, 128 KiB", size / (kMiB / 8), [&] { ReadAll(file, kMiB / 8); });
    Measure("dd into a new file, 4 KiB", 16384, [&] {
      Shell("dd if=" + source_ + "/large of=" + file + "2 bs=4k count=16384 status=none");
    });
    Must(unlink((file + "2").c_str()) == 0, "unlink");
    for (const auto& [name, piece, bytes] :
         {std::tuple{"overwrite, 1 MiB", kMiB, size},
          std::tuple{"overwrite, 128 KiB", kMiB / 8, size},
          std::tuple{"overwrite, 4 KiB", kMiB / 256, size / 8}}) {
      Measure(name, bytes / piece, [&] { Overwrite(file, piece, bytes); });
    }
    fs_->Remount();
    Measure("first read after remount, 128 KiB", size / (kMiB / 8),
            [&] { ReadAll(file, kMiB / 8); });
    for (const auto& [name, piece] :
         {std::tuple{"read again, 1 MiB", kMiB}, std::tuple{"read again, 128 KiB", kMiB / 8},
          std::tuple{"read again, 4 KiB", kMiB / 256}}) {
      Measure(name, size / piece, [&] { ReadAll(file, piece); });
    }
    Measure("random read 4 KiB", 20000, [&] { Randomly(file, size, 20000, false); });
    Measure("random write 4 KiB", 4000, [&] { Randomly(file, size, 4000, true); });
    Measure("mmap read", size / kMiB, [&] { Map(file, size, false); });
    Measure("mmap write, msync", 64, [&] { Map(file, 64 * kMiB, true); });
    Measure("cp within", 1, [&] { Shell("cp " + file + " " + file + "2"); });
    Must(unlink(file.c_str()) == 0 && unlink((file + "2").c_str()) == 0, "unlink");
  }

  void Tree() {
    const std::string dir = fs_->dir() + "/tree";
    Measure("cp -r a tree in", 1, [&] { Shell("cp -r /usr/include " + dir); });
    Measure("grep -r after that", 1,
            [&] { Shell("grep -r no-such-word-here " + dir + " || true"); });
    fs_->Remount();
    Measure("tar a tree out, cold", 1,
            [&] { Shell("tar cf - -C " + dir + " . | cat >/dev/null"); });
    Measure("grep -r, warm", 1, [&] { Shell("grep -r pkramfs-is-not-in-here " + dir + "; true"); });
    Measure("rm -r", 1, [&] { Shell("rm -r " + dir); });
    if (!fs_->keeps_bytes()) return;
    const std::string clone = fs_->dir() + "/clone";
    Shell("git clone -q " + source_ + "/repository " + clone);
    Shell("git -C " + clone + " status >/dev/null");
    Measure("git status", 1, [&] { Shell("git -C " + clone + " status >/dev/null"); });
    Shell("rm -r " + clone);
  }

  void Together() {
    Measure("2 processes: create 1 KiB files", 3000, [&] {
      InTwo([&](const std::string& dir) {
        Must(mkdir(dir.c_str(), 0755) == 0, dir);
        CreateFiles(dir, 1500);
      });
    });
    Shell("rm -r " + fs_->dir() + "/0 " + fs_->dir() + "/1");
    const auto write = [&](const std::string& file) { Overwrite(file, kMiB / 8, 64 * kMiB); };
    InTwo(write);
    Measure("2 processes: overwrite, 128 KiB", 1024, [&] { InTwo(write); });
    const auto read = [&](const std::string& file) { ReadAll(file, kMiB / 8); };
    InTwo(read);
    Measure("2 processes: read again, 128 KiB", 1024, [&] { InTwo(read); });
    Shell("rm " + fs_->dir() + "/0 " + fs_->dir() + "/1");
  }

 private:
  template <typename Fn>
  void Measure(const std::string& name, uint64_t operations, Fn fn) {
    const uint64_t requests = fs_->Requests();
    const double cpu = DaemonCpu();
    const auto begin = Clock::now();
    fn();
    Sample sample;
    sample.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    sample.daemon_cpu = DaemonCpu() - cpu;
    // Asking takes a request or two itself.
    const uint64_t asked = fs_->Requests() - requests;
    sample.requests = static_cast<double>(asked) / static_cast<double>(operations);
    samples_->emplace_back(one_cpu_ ? name + ", on one CPU" : name, sample);
  }

  double DaemonCpu() const {
    if (fs_->daemon() == 0) return 0;
    std::ifstream in("/proc/" + std::to_string(fs_->daemon()) + "/stat");
    std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    std::istringstream fields(text.substr(text.rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    uint64_t user = 0, system = 0;
    fields >> user >> system;
    return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }

  void Pin() const {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    if (!one_cpu_) CPU_SET(1, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    for (const pid_t thread : ThreadsOf(fs_->daemon())) {
      sched_setaffinity(thread, sizeof(cpus), &cpus);
    }
  }

  static std::string File(const std::string& dir, int i) { return dir + "/" + std::to_string(i); }

  static void CreateFiles(const std::string& dir, int count) {
    const std::string bytes(1024, 'x');
    for (int i = 0; i < count; ++i) {
      const int fd = open(File(dir, i).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644);
      Must(fd >= 0 && write(fd, bytes.data(), bytes.size()) == 1024 && close(fd) == 0, "create");
    }
  }
  static void StatFiles(const std::string& dir, int count) {
    struct stat st;
    for (int i = 0; i < count; ++i) Must(stat(File(dir, i).c_str(), &st) == 0, "stat");
  }
  static void ReadFiles(const std::string& dir, int count) {
    char bytes[1024];
    for (int i = 0; i < count; ++i) {
      const int fd = open(File(dir, i).c_str(), O_RDONLY);
      Must(fd >= 0 && read(fd, bytes, sizeof(bytes)) == 1024 && close(fd) == 0, "read");
    }
  }
  static void List(const std::string& path) {
    DIR* const dir = opendir(path.c_str());
    Must(dir != nullptr, path);
    while (readdir(dir) != nullptr) continue;
    closedir(dir);
  }
  static void Overwrite(const std::string& file, size_t piece, size_t bytes) {
    const std::vector<char> buffer(piece, 'o');
    const int fd = open(file.c_str(), O_WRONLY | O_CREAT, 0644);
    for (size_t at = 0; at < bytes; at += piece) {
      Must(write(fd, buffer.data(), piece) == static_cast<ssize_t>(piece), "write");
    }
    Must(close(fd) == 0, "close");
  }
  static void ReadAll(const std::string& file, size_t piece) {
    std::vector<char> buffer(piece);
    const int fd = open(file.c_str(), O_RDONLY);
    ssize_t n;
    while ((n = read(fd, buffer.data(), piece)) > 0) continue;
    Must(n == 0 && close(fd) == 0, "read");
  }
  static void Randomly(const std::string& file, size_t size, int count, bool writes) {
    std::mt19937_64 random(1);
    char page[4096] = {};
    const int fd = open(file.c_str(), O_RDWR);
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<off_t>(random() % (size / 4096) * 4096);
      const ssize_t n = writes ? pwrite(fd, page, 4096, at) : pread(fd, page, 4096, at);
      Must(n == 4096, "random");
    }
    Must(close(fd) == 0, "close");
  }
  static void Map(const std::string& file, size_t size, bool writes) {
    const int fd = open(file.c_str(), O_RDWR);
    auto* const at =
        static_cast<volatile char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    Must(at != MAP_FAILED, "mmap");
    char sum = 0;
    for (size_t i = 0; i < size; i += 64) {
      if (writes) {
        at[i] = 1;
      } else {
        sum = static_cast<char>(sum + at[i]);
      }
    }
    auto* const memory = const_cast<char*>(at);
    Must(!writes || msync(memory, size, MS_SYNC) == 0, "msync");
    munmap(memory, size);
    close(fd);
  }
  template <typename Fn>
  void InTwo(Fn fn) {
    std::vector<pid_t> pids;
    for (int i = 0; i < 2; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        try {
          fn(fs_->dir() + "/" + std::to_string(i));
        } catch (const std::exception& e) {
          std::fprintf(stderr, "%s\n", e.what());
          _exit(1);
        }
        _exit(0);
      }
      pids.push_back(pid);
    }
    for (const pid_t pid : pids) {
      int status;
      waitpid(pid, &status, 0);
      Must(status == 0, "one of two processes");
    }
  }

  Candidate* const fs_;
  const std::string source_;
  const bool one_cpu_;
  Samples* const samples_;
};

// --- The comparison -------------------------------------------------------------------------

bool Installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null").c_str()) == 0;
}

std::vector<std::unique_ptr<Candidate>> Candidates(const std::string& work,
                                                   const std::string& other) {
  std::vector<std::unique_ptr<Candidate>> all;
  all.push_back(std::make_unique<Tmpfs>("tmpfs", work));
  all.push_back(std::make_unique<Pkramfs>("pkramfs", work, "size=4g"));
  all.push_back(std::make_unique<Pkramfs>("writeback", work, "size=4g,writeback"));
  if (!other.empty()) all.push_back(std::make_unique<Pkramfs>("other", work, "size=4g", other));
  all.push_back(std::make_unique<Null>(work, NULL_BINARY));
  const auto peer = [&](const std::string& name, const std::vector<std::string>& command) {
    if (Installed(command[0])) {
      all.push_back(std::make_unique<Peer>(name, work, command));
    } else {
      std::printf("left out: %s (not installed)\n", name.c_str());
    }
  };
  peer("mergerfs", {"mergerfs", "-f", "SOURCE", "TARGET"});
  peer("bindfs", {"bindfs", "-f", "SOURCE", "TARGET"});
  const std::string example = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c";
  const std::string built = work + "/example";
  std::ignore = std::system(("src=" + example + "; [ -e $src ] || zcat $src.gz >" + work +
                             "/passthrough_ll.c 2>/dev/null; [ -e $src ] && cp $src " + work +
                             "/passthrough_ll.c; cp " + example.substr(0, example.rfind('/')) +
                             "/passthrough_helpers.h " + work + "/ 2>/dev/null; cc -O2 -w " + work +
                             "/passthrough_ll.c $(pkg-config --cflags --libs fuse3) -o " + built +
                             " 2>/dev/null")
                                .c_str());
  peer("passthrough_ll", {built, "-f", "-o", "source=SOURCE", "TARGET"});
  return all;
}

int Main(int argc, char** argv) {
  int rounds = 5;
  std::string json_path, repository, other;
  std::vector<std::string> only;
  CommandLine line("compare", "Compares pkramfs with tmpfs and other FUSE filesystems.");
  line.Option("--rounds", &rounds, "How often each is measured");
  line.Option("--json", &json_path, "Where to write all samples");
  line.Required("--repository", &repository, "A git repository to clone");
  line.Option("--only", &only, "Leave out candidates but these (and tmpfs)");
  line.Option("--other", &other, "Another build of pkramfs, to be measured beside this one");
  if (const auto status = line.Parse(argc, argv)) return *status;

  const Workplace workplace;
  const std::string& work = workplace.path();
  const std::string source = work + "/source";
  Must(mkdir(source.c_str(), 0755) == 0, source);
  Must(mount("none", source.c_str(), "tmpfs", 0, "size=1g") == 0, "mount tmpfs");
  Shell("head -c 256M /dev/urandom >" + source + "/large && git clone -q " + repository + " " +
        source + "/repository");
  std::vector<std::unique_ptr<Candidate>> candidates = Candidates(work, other);
  std::erase_if(candidates, [&](const auto& c) {
    return !only.empty() && c->name() != "tmpfs" &&
           std::find(only.begin(), only.end(), c->name()) == only.end();
  });
  TouchMemory(size_t{6} << 30);
  std::map<std::string, std::map<std::string, std::vector<Sample>>> results;  // work, candidate
  std::vector<std::string> order;
  for (int round = 0; round < rounds; ++round) {
    for (size_t k = 0; k < candidates.size(); ++k) {
      Candidate& candidate = *candidates[(k + static_cast<size_t>(round)) % candidates.size()];
      std::fprintf(stderr, "round %d of %d: %-30s\r", round + 1, rounds, candidate.name().c_str());
      Samples samples;
      candidate.Mount();
      Work(&candidate, source, true, &samples).SmallOperations();
      Work freely(&candidate, source, false, &samples);
      freely.SmallOperations();
      freely.LargeFile();
      freely.Tree();
      freely.Together();
      candidate.Unmount();
      for (const auto& [name, sample] : samples) {
        if (!results.contains(name)) order.push_back(name);
        results[name][candidate.name()].push_back(sample);
      }
    }
  }

  Json json;
  std::printf(
      "\nx = tmpfs's time / its time, median of %d rounds; beside null: null's time / pkramfs's\n\n"
      "| work | tmpfs |",
      rounds);
  for (size_t k = 1; k < candidates.size(); ++k)
    std::printf(" %s |", candidates[k]->name().c_str());
  std::printf(" pkramfs beside null | requests an operation | daemon's CPU |\n|---|---|");
  for (size_t k = 1; k < candidates.size() + 3; ++k) std::printf("---|");
  std::printf("\n");
  for (const std::string& name : order) {
    std::map<std::string, double> medians, cpus, requests;
    for (const auto& [candidate, samples] : results[name]) {
      std::vector<double> seconds, cpu, asked;
      for (const Sample& s : samples) {
        seconds.push_back(s.seconds);
        cpu.push_back(s.daemon_cpu);
        asked.push_back(s.requests);
      }
      medians[candidate] = Median(seconds);
      cpus[candidate] = Median(cpu);
      requests[candidate] = Median(asked);
      json[name][candidate] = {{"seconds", seconds},
                               {"median", medians[candidate]},
                               {"daemon_cpu_seconds", cpus[candidate]},
                               {"requests_per_operation", requests[candidate]}};
    }
    std::printf("| %s | %.1f ms |", name.c_str(), medians["tmpfs"] * 1e3);
    const auto ratio = [&](const std::string& of, const std::string& to) {
      if (medians.contains(of) && medians.contains(to)) {
        std::printf(" %.2f |", medians[of] / medians[to]);
      } else {
        std::printf(" |");
      }
    };
    for (size_t k = 1; k < candidates.size(); ++k) ratio("tmpfs", candidates[k]->name());
    ratio("null", "pkramfs");
    std::printf(" %.2f | %.0f ms |\n", requests["pkramfs"], cpus["pkramfs"] * 1e3);
  }
  if (!json_path.empty()) std::ofstream(json_path) << json.dump(1) << '\n';
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "compare: %s\n", e.what());
    return 1;
  }
}
