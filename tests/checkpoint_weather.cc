// G10 under fire: checkpoints are made while writers go on, and each image, restored elsewhere,
// must be what there was at one moment: of each writer's calls the first so many, and no others, of
// as many as had been acknowledged when the checkpoint began, and had begun when it ended.
//
//   checkpoint_weather [--checkpoints N] [--seed N]
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdio>
#include <random>
#include <vector>

#include "mount/tools/command_line.h"
#include "tests/killer.h"
#include "tests/mount_process.h"
#include "tests/noted_writers.h"

namespace pkramfs {
namespace {

// What the writers share with the test.
struct Shared {
  uint32_t over;
  Noted notes[kWriters * kFilesOfAWriter];
  CallLog logs[kWriters];
};

using Tree = std::vector<State>;  // of one writer's files

// What of the files is there, and whether their bytes are right, for a state that it is to be.
bool Shows(const std::string& dir, int file, const State& state) {
  std::string fault;
  return Look(dir, file, state.version, state.version, &fault) == state && fault.empty();
}

// The last call may be there in part: an append by whole pages, bytes that are overwritten.
bool ShowsInPart(const std::string& dir, int file, const State& before, const State& after) {
  std::string fault;
  if (before.exists == 0 || after.exists != before.exists) return false;
  const State seen = Look(dir, file, after.version, before.version, &fault);
  State whole = after;
  if (after.version == before.version && seen.size > before.size && seen.size % 4096 == 0) {
    whole.size = seen.size;
  }
  return fault.empty() && seen == whole && seen.size <= after.size;
}

// How many of a writer's calls an image shows, from `first` to `last`; nothing when it is none.
std::optional<uint64_t> CallsIn(const std::string& dir, const CallLog& log, uint64_t first,
                                uint64_t last) {
  Tree tree(kFilesOfAWriter);
  for (uint64_t i = 0; i < first; ++i) tree[log.calls[i].file] = log.calls[i].after;
  for (uint64_t n = first;; ++n) {
    // The call behind the n that are there may be there in part.
    const int file = n < last ? static_cast<int>(log.calls[n].file) : -1;
    bool shown = true;
    for (int i = 0; i < kFilesOfAWriter && shown; ++i) {
      shown =
          Shows(dir, i, tree[i]) || (i == file && ShowsInPart(dir, i, tree[i], log.calls[n].after));
    }
    if (shown) return n;
    if (n == last) return std::nullopt;
    tree[file] = log.calls[n].after;
  }
}

int Main(int argc, char** argv) {
  CommandLine line("checkpoint_weather", "Makes checkpoints below writers, and restores each.");
  uint64_t checkpoints = 10, seed = 20261127;
  line.Option("--checkpoints", &checkpoints, "How many");
  line.Option("--seed", &seed, "Of the writers");
  if (const auto status = line.Parse(argc, argv)) return *status;
  auto* const shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::mt19937_64 random(seed);
  MountProcess mount, restored;
  mount.Mount("size=256m");
  const std::string image = "/var/tmp/pkramfs-image-" + std::to_string(getpid());
  std::fflush(nullptr);
  std::vector<pid_t> writers;
  for (int w = 0; w < kWriters; ++w) {
    Writer writer(mount.mount_point() + "/" + std::to_string(w),
                  shared->notes + w * kFilesOfAWriter, random(), &shared->logs[w]);
    const pid_t pid = fork();
    if (pid == 0) {
      const bool well = writer.Run([shared] {
        return std::atomic_ref<uint32_t>(shared->over).load(std::memory_order_acquire) == 0;
      });
      if (!well) std::perror("a writer's call failed");
      _exit(well ? 0 : 1);
    }
    writers.push_back(pid);
  }
  // As many as a log holds.
  const auto begun = [](const CallLog& log) {
    return std::atomic_ref<const uint64_t>(log.begun).load(std::memory_order_acquire);
  };
  const auto acknowledged = [](const CallLog& log) {
    return std::atomic_ref<const uint64_t>(log.acknowledged).load(std::memory_order_acquire);
  };
  uint64_t calls = 0, written = 0, aside = 0;
  bool well = true;
  for (uint64_t i = 0; i < checkpoints && well; ++i) {
    for (const CallLog& log : shared->logs) {
      const uint64_t before = acknowledged(log);
      well = well && Eventually([&] { return acknowledged(log) > before + 50; });
    }
    // Now and then the server dies in the middle, or before.
    if (i % 4 == 3) KillOne(Victim::kServer, mount.region());
    uint64_t first[kWriters], last[kWriters];
    for (int w = 0; w < kWriters; ++w) first[w] = acknowledged(shared->logs[w]);
    const std::string command =
        PKRAMCTL_BINARY " checkpoint " + mount.region() + " " + image + " >/dev/null";
    if (std::system(command.c_str()) != 0) return 1;
    for (int w = 0; w < kWriters; ++w) last[w] = begun(shared->logs[w]);
    const nlohmann::json made = StatisticsOf(mount.mount_point())["checkpoint"]["last"];
    written += made["written"].get<uint64_t>();
    aside += made["aside"].get<uint64_t>();
    const std::string restore =
        PKRAMCTL_BINARY " restore " + image + " " + restored.region() + " >/dev/null";
    if (std::system(restore.c_str()) != 0) return 1;
    restored.Mount("size=256m");
    for (int w = 0; w < kWriters; ++w) {
      const std::string dir = restored.mount_point() + "/" + std::to_string(w);
      const auto shown = CallsIn(dir, shared->logs[w], first[w], last[w]);
      if (!shown) {
        std::printf("checkpoint %llu: writer %d: no moment between calls %llu and %llu\n",
                    static_cast<unsigned long long>(i), w,
                    static_cast<unsigned long long>(first[w]),
                    static_cast<unsigned long long>(last[w]));
        well = false;
      }
      calls += last[w] - first[w];
    }
    restored.Unmount();
    if (std::system((PKRAMCTL_BINARY " check " + restored.region() + " >/dev/null").c_str()) != 0) {
      well = false;
    }
    unlink(restored.region().c_str());
  }
  std::atomic_ref<uint32_t>(shared->over).store(1, std::memory_order_release);
  for (const pid_t pid : writers) {
    int status = 0;
    waitpid(pid, &status, 0);
    well = well && status == 0;
  }
  unlink(image.c_str());
  std::printf(
      "%llu checkpoints, each of one moment; %llu calls were made meanwhile, %llu pages written, "
      "%llu of them copied aside\n",
      static_cast<unsigned long long>(checkpoints), static_cast<unsigned long long>(calls),
      static_cast<unsigned long long>(written), static_cast<unsigned long long>(aside));
  return well ? 0 : 1;
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
