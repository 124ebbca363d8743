// G1, G2 and G4 under fire: writers note what was acknowledged, the daemon is killed at a
// random moment, pkramctl must find the region sound, and a new mount must show all that was
// noted, and nothing half.  In the end everything is deleted, and no page may be left.
//
//   kill_weather [--kills N] [--seed N]
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdio>
#include <random>

#include "mount/tools/command_line.h"
#include "tests/mount_process.h"
#include "tests/noted_writers.h"

namespace pkramfs {
namespace {

constexpr const char* kOptions = "size=256m";

uint64_t PagesInUse(const std::string& mount_point) {
  const nlohmann::json pages = StatisticsOf(mount_point)["pages"];
  return pages["total"].get<uint64_t>() - pages["free"].get<uint64_t>();
}

uint64_t CallsOf(const Noted* notes) {
  uint64_t calls = 0;
  for (int i = 0; i < kWriters * kFilesOfAWriter; ++i) calls += notes[i].calls;
  return calls;
}

void RunWriters(const std::string& mount_point, Noted* notes, std::mt19937_64* random) {
  // The notes are shared; what else the writers inherit is none of theirs.
  std::fflush(nullptr);
  std::vector<pid_t> writers;
  const uint64_t calls_before = CallsOf(notes);
  for (int w = 0; w < kWriters; ++w) {
    const uint64_t seed = (*random)();
    const pid_t pid = fork();
    if (pid == 0) {
      Writer(mount_point + "/" + std::to_string(w), notes + w * kFilesOfAWriter, seed).Run();
      // It ends when the daemon is gone, and for no other reason.
      _exit(IsDead(mount_point.c_str()) ? 0 : 1);
    }
    writers.push_back(pid);
  }
  // Once they are at work, which takes its time where others have the processor.
  for (int i = 0; i < 100000 && CallsOf(notes) == calls_before; ++i) usleep(100);
  usleep(static_cast<useconds_t>(1000 + (*random)() % 30000));
  KillBoth(mount_point);
  for (const pid_t pid : writers) {
    int status = 0;
    waitpid(pid, &status, 0);
    if (status != 0) throw std::runtime_error("a call failed while the daemon was there");
  }
}

int Main(int argc, char** argv) {
  CommandLine line("kill_weather",
                   "Kills a daemon again and again, and compares what is there with what was.");
  uint64_t kills = 100, seed = 20261123;
  line.Option("--kills", &kills, "How many");
  line.Option("--seed", &seed, "Of the writers");
  if (const auto status = line.Parse(argc, argv)) return *status;
  const size_t size = sizeof(Noted) * kWriters * kFilesOfAWriter;
  auto* const notes = static_cast<Noted*>(
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::mt19937_64 random(seed);
  NotedCounts counts;
  MountProcess mount;
  mount.Mount(kOptions);
  const uint64_t pages_before = PagesInUse(mount.mount_point());
  for (uint64_t i = 0; i < kills; ++i) {
    RunWriters(mount.mount_point(), notes, &random);
    umount2(mount.mount_point().c_str(), MNT_DETACH);
    mount.WaitUntilFree();
    if (std::system((PKRAMCTL_BINARY " check " + mount.region() + " >/dev/null").c_str()) != 0) {
      std::printf("kill %llu: the region is not sound\n", static_cast<unsigned long long>(i));
      return 1;
    }
    mount.Mount(kOptions);
    const std::string fault = CheckNotes(mount.mount_point(), notes, &counts);
    if (!fault.empty()) {
      std::printf("kill %llu: %s\n", static_cast<unsigned long long>(i), fault.c_str());
      return 1;
    }
  }
  if (std::system(("rm -rf " + mount.mount_point() + "/*").c_str()) != 0) return 1;
  // Files that were deleted last may not be reclaimed yet.
  uint64_t pages_after = 0;
  Eventually([&] {
    pages_after = PagesInUse(mount.mount_point());
    return pages_after <= pages_before;
  });
  const uint64_t calls = CallsOf(notes);
  std::printf(
      "%llu kills: %llu calls were acknowledged, %llu were in flight, %llu of them done, %llu "
      "overwritten in part, %llu appended in part; pages "
      "in use: %llu before, %llu after all was deleted\n",
      static_cast<unsigned long long>(kills), static_cast<unsigned long long>(calls),
      static_cast<unsigned long long>(counts.in_flight),
      static_cast<unsigned long long>(counts.done), static_cast<unsigned long long>(counts.torn),
      static_cast<unsigned long long>(counts.partly), static_cast<unsigned long long>(pages_before),
      static_cast<unsigned long long>(pages_after));
  if (pages_after > pages_before) {
    std::printf("pages were leaked\n");
    return 1;
  }
  if (calls < kills || counts.in_flight == 0) {
    std::printf("too little was done to say anything\n");
    return 1;
  }
  return 0;
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
