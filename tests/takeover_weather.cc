// G9 under fire: writers note what was acknowledged, and another process reads and overwrites a
// large file, while servers, or their keepers, are killed one after the other, or are upgraded, and
// the mount stays.  No call may fail; in the end all that was noted is there, and nothing else;
// everything is deleted, and no page may be left.
//
//   takeover_weather [--kills N] [--seed N] [--other PROGRAM]
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdio>
#include <random>

#include "mount/tools/command_line.h"
#include "tests/killer.h"
#include "tests/mount_process.h"
#include "tests/noted_writers.h"

namespace pkramfs {
namespace {

uint64_t PagesInUse(const std::string& mount_point) {
  const nlohmann::json pages = StatisticsOf(mount_point)["pages"];
  return pages["total"].get<uint64_t>() - pages["free"].get<uint64_t>();
}

// What the writers share with the test.
struct Shared {
  uint32_t over;
  Noted notes[kWriters * kFilesOfAWriter];
};

constexpr size_t kLargeBytes = 16 << 20;

bool MakeLargeFile(const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  out << Pattern(1, 0, kLargeBytes);
  return static_cast<bool>(out.flush());
}

// Reads and overwrites it with the same bytes, as large requests; the kernel keeps nothing.
bool UseLargeFile(const std::string& path, const std::function<bool()>& go_on) {
  const std::string right = Pattern(1, 0, kLargeBytes);
  std::string bytes(1 << 20, 0);
  const int fd = open(path.c_str(), O_RDWR);
  for (size_t at = 0; fd >= 0 && go_on(); at = (at + bytes.size()) % kLargeBytes) {
    const auto offset = static_cast<off_t>(at);
    const auto all = static_cast<ssize_t>(bytes.size());
    if (pwrite(fd, right.data() + at, bytes.size(), offset) != all) return false;
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) return false;
    if (pread(fd, bytes.data(), bytes.size(), offset) != all) return false;
    errno = 0;
    if (right.compare(at, bytes.size(), bytes) != 0) return false;
  }
  close(fd);
  return fd >= 0;
}

int Main(int argc, char** argv) {
  CommandLine line("takeover_weather",
                   "Kills servers and keepers below writers that must not notice.");
  uint64_t kills = 100, seed = 20261126;
  std::string other;
  line.Option("--kills", &kills, "How many");
  line.Option("--seed", &seed, "Of the writers, and of when");
  line.Option("--other", &other, "Upgrade to this program and back, not to a copy");
  if (const auto status = line.Parse(argc, argv)) return *status;
  auto* const shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::mt19937_64 random(seed);
  MountProcess mount;
  mount.Mount("size=256m");
  const uint64_t pages_before = PagesInUse(mount.mount_point());
  const std::string large = mount.mount_point() + "/large";
  if (!MakeLargeFile(large)) return 1;
  std::fflush(nullptr);
  const auto go_on = [shared] {
    return std::atomic_ref<uint32_t>(shared->over).load(std::memory_order_acquire) == 0;
  };
  std::vector<pid_t> processes;
  const auto start = [&](const char* who, const std::function<bool()>& run) {
    const pid_t pid = fork();
    if (pid == 0) {
      const bool well = run();
      if (!well) std::perror(who);
      _exit(well ? 0 : 1);
    }
    processes.push_back(pid);
  };
  for (int w = 0; w < kWriters; ++w) {
    Writer writer(mount.mount_point() + "/" + std::to_string(w),
                  shared->notes + w * kFilesOfAWriter, random());
    start("a writer's call failed", [&] { return writer.Run(go_on); });
  }
  start("a call on the large file failed", [&] { return UseLargeFile(large, go_on); });
  // An upgrade is a kill, too, to another program and back.
  if (other.empty()) other = mount.CopyOfTheProgram();
  const std::string programs[] = {other, PKRAMFS_BINARY};
  uint64_t servers = 0, keepers = 0, upgrades = 0;
  const auto calls = [shared] {
    uint64_t n = 0;
    for (const Noted& note : shared->notes) n += note.calls;
    return n;
  };
  for (uint64_t i = 0; i < kills; ++i) {
    if (random() % 8 == 0) {
      const std::string command = PKRAMCTL_BINARY " upgrade " + mount.region() + " " +
                                  programs[upgrades++ % 2] + " 2>/dev/null";
      // A keeper that was killed a moment ago may not have been replaced yet.
      if (Eventually([&] { return std::system(command.c_str()) == 0; })) continue;
      std::printf("kill %llu: no upgrade\n", static_cast<unsigned long long>(i));
      return 1;
    }
    // Of either, also while the one before is being replaced.
    const Victim victim = random() % 4 == 0 ? Victim::kKeeper : Victim::kServer;
    if (!KillOne(victim, mount.region())) {
      std::printf("kill %llu: a process is not there\n", static_cast<unsigned long long>(i));
      return 1;
    }
    ++(victim == Victim::kServer ? servers : keepers);
    if (random() % 2 == 0) continue;
    const uint64_t before = calls();
    if (!Eventually([&] { return calls() > before + 20; })) {
      std::printf("kill %llu: nothing goes on\n", static_cast<unsigned long long>(i));
      return 1;
    }
  }
  std::atomic_ref<uint32_t>(shared->over).store(1, std::memory_order_release);
  bool well = true;
  for (const pid_t pid : processes) {
    int status = 0;
    waitpid(pid, &status, 0);
    well = well && status == 0;
  }
  if (!well) return 1;
  NotedCounts counts;
  const std::string fault = CheckNotes(mount.mount_point(), shared->notes, &counts);
  if (!fault.empty() || counts.in_flight != 0) {
    std::printf("%s\n", fault.empty() ? "a call was not answered" : fault.c_str());
    return 1;
  }
  const uint64_t done = calls();
  if (std::system(("rm -rf " + mount.mount_point() + "/*").c_str()) != 0) return 1;
  // A name may have been counted once too often for a request that two servers have answered: until
  // the next mount its file stays, though it is deleted.
  mount.Unmount();
  mount.Mount("size=256m");
  const uint64_t pages_after = PagesInUse(mount.mount_point());
  std::printf(
      "%llu servers and %llu keepers killed, %llu upgrades, %llu calls, none failed; pages in use: "
      "%llu before, %llu after all was deleted\n",
      static_cast<unsigned long long>(servers), static_cast<unsigned long long>(keepers),
      static_cast<unsigned long long>(upgrades), static_cast<unsigned long long>(done),
      static_cast<unsigned long long>(pages_before), static_cast<unsigned long long>(pages_after));
  if (pages_after > pages_before) {
    std::printf("pages were leaked\n");
    return 1;
  }
  mount.Unmount();
  return std::system((PKRAMCTL_BINARY " check " + mount.region() + " >/dev/null").c_str()) == 0 ? 0
                                                                                                : 1;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main(argc, argv);
  } catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
}
