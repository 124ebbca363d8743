// What a file and a directory cost in memory: on tmpfs, and on pkramfs in the region, the
// daemon and the kernel.
//   memory --json results.json
// The kernel's part is counted after what it can drop has been dropped, which is listed
// apart; the daemon's is counted before.
#include <fcntl.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>

#include "mount/tools/command_line.h"
#include "tests/benchmark/candidates.h"

namespace pkramfs {
namespace {

using Json = nlohmann::ordered_json;

// A field of /proc/meminfo or /proc/PID/status, in bytes.
double Field(const std::string& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::atof(line.c_str() + name.size() + 1) * 1024;
  }
  throw std::runtime_error(file + " has no " + name);
}

struct Memory {
  double contents = 0;  // pages of the tmpfs, or of the region
  double daemon = 0;    // its own pages, and its page tables
  double kernel = 0;    // slabs
  double cached = 0;    // page cache
};

Memory MemoryOf(const Candidate& candidate, const std::string& region) {
  const std::string system = "/proc/meminfo";
  Memory memory;
  const double shared = Field(system, "Shmem");
  memory.kernel = Field(system, "Slab");
  memory.cached = Field(system, "Cached") - shared;
  if (candidate.daemon() == 0) {
    memory.contents = shared;
  } else {
    struct stat st;
    Must(stat(region.c_str(), &st) == 0, region);
    memory.contents = static_cast<double>(st.st_blocks) * 512;
    const std::string status = "/proc/" + std::to_string(candidate.daemon()) + "/status";
    memory.daemon = Field(status, "RssAnon") + Field(status, "VmPTE");
  }
  return memory;
}

struct Cost {
  double contents, daemon, kernel, droppable;  // bytes each
  double All() const { return contents + daemon + kernel; }
};

// What each of `count` things that `make` makes takes.
Cost CostOf(Candidate* candidate, const std::string& region, double count,
            const std::function<void(const std::string&)>& make) {
  candidate->Mount();
  std::ofstream(candidate->dir() + "/first") << "x";
  const auto drop = [] {
    sync();
    std::ofstream("/proc/sys/vm/drop_caches") << 3;
    usleep(300000);
  };
  drop();
  const Memory before = MemoryOf(*candidate, region);
  make(candidate->dir());
  const Memory full = MemoryOf(*candidate, region);
  drop();
  const Memory after = MemoryOf(*candidate, region);
  candidate->Unmount();
  return {(after.contents - before.contents) / count, (full.daemon - before.daemon) / count,
          (after.kernel - before.kernel) / count,
          (full.kernel + full.cached - after.kernel - after.cached) / count};
}

void MakeFiles(const std::string& dir, int count, size_t size) {
  const std::string bytes(size, 'x');
  for (int i = 0; i < count; ++i) {
    if (i % 1000 == 0) Must(mkdir((dir + "/" + std::to_string(i / 1000)).c_str(), 0755) == 0, dir);
    const std::string path = dir + "/" + std::to_string(i / 1000) + "/" + std::to_string(i);
    const int fd = open(path.c_str(), O_CREAT | O_WRONLY, 0644);
    Must(fd >= 0 && write(fd, bytes.data(), size) == static_cast<ssize_t>(size), path);
    close(fd);
  }
}

// Entries cost, not what they lead to.
void MakeDirectories(const std::string& root, int count, int entries) {
  for (int i = 0; i < count; ++i) {
    const std::string dir = root + "/" + std::to_string(i);
    Must(mkdir(dir.c_str(), 0755) == 0, dir);
    for (int k = 0; k < entries; ++k) {
      Must(link((root + "/first").c_str(), (dir + "/" + std::to_string(k)).c_str()) == 0, dir);
    }
  }
}

int Main(int argc, char** argv) {
  std::string json_path;
  CommandLine line("memory", "Measures what files and directories take of memory.");
  line.Option("--json", &json_path, "Where to write all figures");
  if (const auto status = line.Parse(argc, argv)) return *status;

  struct Row {
    std::string name;
    int count;
    std::function<void(const std::string&)> make;
  };
  std::vector<Row> rows;
  for (const auto& [name, size, count] : {std::tuple{"file of 0 B", size_t{0}, 100000},
                                          {"file of 1 KiB", size_t{1} << 10, 100000},
                                          {"file of 4 KiB", size_t{4} << 10, 100000},
                                          {"file of 64 KiB", size_t{64} << 10, 10000},
                                          {"file of 1 MiB", kMiB, 1000}}) {
    rows.push_back({name, count, [count = count, size = size](const std::string& dir) {
                      MakeFiles(dir, count, size);
                    }});
  }
  for (const auto& [name, entries, count] : {std::tuple{"directory of 10 entries", 10, 10000},
                                             {"directory of 1,000 entries", 1000, 100},
                                             {"directory of 1,000,000 entries", 1000000, 1}}) {
    rows.push_back({name, count, [count = count, entries = entries](const std::string& dir) {
                      MakeDirectories(dir, count, entries);
                    }});
  }
  const Workplace workplace;
  Tmpfs tmpfs("tmpfs", workplace.path());
  Pkramfs pkramfs("pkramfs", workplace.path(), "size=4g");
  Json json;
  std::printf(
      "bytes each\n\n| | tmpfs: pages | kernel | all | pkramfs: region | daemon | kernel | all | x "
      "| droppable: tmpfs | pkramfs |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Row& row : rows) {
    const Cost theirs = CostOf(&tmpfs, "", row.count, row.make);
    const Cost ours = CostOf(&pkramfs, pkramfs.region(), row.count, row.make);
    std::printf("| %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.2f | %.0f | %.0f |\n",
                row.name.c_str(), theirs.contents, theirs.kernel, theirs.All(), ours.contents,
                ours.daemon, ours.kernel, ours.All(), theirs.All() / ours.All(), theirs.droppable,
                ours.droppable);
    std::fflush(stdout);
    for (const auto& [name, cost] : {std::pair{"tmpfs", theirs}, {"pkramfs", ours}}) {
      json[row.name][name] = {{"contents", cost.contents},
                              {"daemon", cost.daemon},
                              {"kernel", cost.kernel},
                              {"droppable", cost.droppable}};
    }
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
    std::fprintf(stderr, "memory: %s\n", e.what());
    return 1;
  }
}
