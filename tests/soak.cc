// Mixed load for as long as it is told, with unmounts and kills: after each cycle all is
// deleted, and memory, descriptors, threads, inodes and pages of the region must be where
// they were after the first.
//
//   soak [--seconds N]
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <fstream>

#include "mount/tools/command_line.h"
#include "tests/mount_process.h"
#include "tests/noted_writers.h"

namespace pkramfs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kOptions = "size=512m";
constexpr uint64_t kMemorySlack = 8 << 20;  // what an allocator keeps at one time or another

struct Sample {
  uint64_t memory = 0, descriptors = 0, threads = 0, inodes = 0, pages = 0;
};

uint64_t FieldOf(pid_t pid, const std::string& field) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoull(line.substr(field.size() + 1));
  }
  return 0;
}

class Soak {
 public:
  Soak()
      : notes_(static_cast<Noted*>(
            mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    mount_.Mount(kOptions);
  }

  int Run(uint64_t seconds) {
    const auto end = Clock::now() + std::chrono::seconds(seconds);
    Sample first, last;
    uint64_t cycles = 0, remounts = 0, most_memory = 0;
    for (; cycles < 2 || Clock::now() < end; ++cycles) {
      Load();
      Clear();
      if (cycles == 0) first = Now();
      // Files that were deleted last may not be reclaimed yet.
      std::string more;
      for (int i = 0; i < 3000; ++i) {
        last = Now();
        more = Compare(first, last);
        if (more.empty()) break;
        usleep(20000);
      }
      most_memory = std::max(most_memory, last.memory);
      if (!more.empty()) {
        std::printf("cycle %llu: %s\n", static_cast<unsigned long long>(cycles), more.c_str());
        return 1;
      }
      // Most cycles are one daemon's, so that what it leaks adds up.
      if (random_() % 20 != 0) continue;
      ++remounts;
      random_() % 2 == 0 ? mount_.Unmount() : mount_.Kill();
      mount_.Mount(kOptions);
    }
    const auto count = [](uint64_t n) { return static_cast<unsigned long long>(n); };
    std::printf(
        "%llu cycles, %llu remounts; after the first and the last: %.1f and %.1f MiB of memory "
        "(%.1f at most), %llu and %llu descriptors, %llu and %llu threads, %llu and %llu pages\n",
        count(cycles), count(remounts), static_cast<double>(first.memory) / (1 << 20),
        static_cast<double>(last.memory) / (1 << 20), static_cast<double>(most_memory) / (1 << 20),
        count(first.descriptors), count(last.descriptors), count(first.threads),
        count(last.threads), count(first.pages), count(last.pages));
    return 0;
  }

 private:
  static constexpr size_t kSize = sizeof(Noted) * kWriters * kFilesOfAWriter;
  const std::string& root() const { return mount_.mount_point(); }

  // Writers, and readers of everything, for a second or two; and what they noted is there.
  void Load() {
    std::fill_n(notes_, kWriters * kFilesOfAWriter, Noted{});
    std::fflush(stdout);
    // A signal ends each child between two calls, so that nothing is in flight.  (Set before
    // they begin, who may be slow to.)
    signal(SIGTERM, [](int) { over_ = 1; });
    std::vector<pid_t> children;
    for (int w = 0; w < kWriters; ++w) {
      const uint64_t seed = random_();
      const pid_t pid = fork();
      if (pid == 0) {
        Writer writer(root() + "/" + std::to_string(w), notes_ + w * kFilesOfAWriter, seed);
        _exit(writer.Run([] { return over_ == 0; }) ? 0 : 1);
      }
      children.push_back(pid);
    }
    const pid_t reader = fork();
    if (reader == 0) {
      const std::string all = "find " + root() + " -type f -exec cat {} + >/dev/null 2>&1";
      while (over_ == 0) std::ignore = std::system(all.c_str());
      _exit(0);
    }
    children.push_back(reader);
    usleep(1500000);
    for (const pid_t pid : children) kill(pid, SIGTERM);
    for (const pid_t pid : children) {
      int status = 0;
      waitpid(pid, &status, 0);
      if (status != 0) throw std::runtime_error("a writer's call failed");
    }
    signal(SIGTERM, SIG_DFL);
    NotedCounts counts;
    if (const std::string fault = CheckNotes(root(), notes_, &counts); !fault.empty()) {
      throw std::runtime_error(fault);
    }
  }
  void Clear() {
    if (std::system(("rm -rf " + root() + "/*").c_str()) != 0) throw std::runtime_error("rm");
    Sample before, now = Now();
    for (int i = 0; i < 1000 && (now.inodes > 1 || now.pages != before.pages); ++i) {
      before = now;
      usleep(50000);
      now = Now();
    }
  }
  Sample Now() const {
    const pid_t pid = mount_.Pid();
    const nlohmann::json json = StatisticsOf(root());
    Sample sample{
        FieldOf(pid, "RssAnon") << 10, 0, FieldOf(pid, "Threads"), json["inodes"],
        json["pages"]["metadata"].get<uint64_t>() + json["pages"]["data"].get<uint64_t>()};
    DIR* const dir = opendir(("/proc/" + std::to_string(pid) + "/fd").c_str());
    while (dir != nullptr && readdir(dir) != nullptr) ++sample.descriptors;
    closedir(dir);
    return sample;
  }
  static std::string Compare(const Sample& first, const Sample& now) {
    const auto grown = [](const char* what, uint64_t was, uint64_t is) {
      return std::string(what) + " grew from " + std::to_string(was) + " to " + std::to_string(is);
    };
    if (now.memory > first.memory + kMemorySlack) return grown("memory", first.memory, now.memory);
    if (now.descriptors > first.descriptors) {
      return grown("descriptors", first.descriptors, now.descriptors);
    }
    // libfuse keeps as many as it needed at once.
    if (now.threads > first.threads + 16) return grown("threads", first.threads, now.threads);
    if (now.inodes > first.inodes) return grown("inodes", first.inodes, now.inodes);
    if (now.pages > first.pages) return grown("pages", first.pages, now.pages);
    return "";
  }

  inline static volatile sig_atomic_t over_ = 0;
  Noted* const notes_;
  MountProcess mount_;
  std::mt19937_64 random_{6};
};

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  pkramfs::CommandLine line("soak", "Mixed load, after which everything is where it was.");
  uint64_t seconds = 3600;
  line.Option("--seconds", &seconds, "How long");
  if (const auto status = line.Parse(argc, argv)) return *status;
  try {
    return pkramfs::Soak().Run(seconds);
  } catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
}
