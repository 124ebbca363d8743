// What bringing trees in and out takes, past the transport and through it, beside tmpfs; and
// reading without a copy.  As root, on a machine that has nothing else to do:
//   build/gcc/tests/bulk [--rounds 5] [--large 1024] [--map 4096] [--tree DIR] [--json FILE]
//   build/gcc/tests/bulk --only-map --map 10240
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "mount/library/pkramfs.h"
#include "mount/tools/command_line.h"
#include "tests/mount_process.h"

namespace pkramfs {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

void Run(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

double Milliseconds(const std::function<void()>& work) {
  const auto begin = Clock::now();
  work();
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One way to do a piece of work, and what undoes it.
struct Way {
  std::string name;
  std::string command;
  std::string before, after;
};

// Each way once a round, in turns: medians, in ms, beside the first one's.
void Measure(const std::string& what, int rounds, const std::vector<Way>& ways, Json* json) {
  std::map<std::string, std::vector<double>> times;
  for (int round = 0; round < rounds; ++round) {
    for (const Way& way : ways) {
      if (!way.before.empty()) Run(way.before);
      times[way.name].push_back(Milliseconds([&] { Run(way.command); }));
      if (!way.after.empty()) Run(way.after);
    }
  }
  std::printf("\n| %s | ms | times as fast |\n|---|---|---|\n", what.c_str());
  const double first = Median(times[ways.front().name]);
  for (const Way& way : ways) {
    const double median = Median(times[way.name]);
    std::printf("| %s | %.0f | %.2f |\n", way.name.c_str(), median, first / median);
    (*json)[what][way.name] = median;
  }
  std::fflush(stdout);
}

uint64_t SumOf(const void* address, size_t size) {
  uint64_t sum = 0;
  const auto* const words = static_cast<const uint64_t*>(address);
  for (size_t i = 0; i < size / sizeof(uint64_t); ++i) sum += words[i];
  return sum;
}

// Mapping a file, and the first pass over its bytes.
void MeasureMaps(int rounds, const std::string& ours, const std::string& tmpfs, size_t size,
                 Json* json) {
  std::map<std::string, std::vector<double>> maps, passes;
  for (int round = 0; round < rounds; ++round) {
    for (const std::string& path : {ours, tmpfs}) {
      const int fd = open(path.c_str(), O_RDONLY);
      void* address = nullptr;
      int how = 0;
      maps[path].push_back(Milliseconds([&] {
        address = path == ours ? pkramfs_map(fd, 0, 0, &how)
                               : mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
      }));
      if (address == MAP_FAILED || (path == ours && how != PKRAMFS_OWN_PAGES)) {
        throw std::runtime_error("cannot map " + path + ": " + pkramfs_why());
      }
      uint64_t sum = 0;
      passes[path].push_back(Milliseconds([&] { sum = SumOf(address, size); }));
      if (sum == 1) std::printf("\n");  // it is needed
      path == ours ? pkramfs_unmap(address) : munmap(address, size);
      close(fd);
    }
  }
  std::printf("\n| %zu MiB | mapped, ms | first pass, ms |\n|---|---|---|\n", size >> 20);
  std::printf("| pkramfs_map | %.2f | %.0f |\n", Median(maps[ours]), Median(passes[ours]));
  std::printf("| mmap of a file on tmpfs | %.2f | %.0f |\n", Median(maps[tmpfs]),
              Median(passes[tmpfs]));
  std::fflush(stdout);
  Json& group = (*json)["first pass over " + std::to_string(size >> 20) + " MiB"];
  group["mmap of a file on tmpfs"] = Median(passes[tmpfs]);
  group["pkramfs_map"] = Median(passes[ours]);
  group["mmap of a file on tmpfs: mapping"] = Median(maps[tmpfs]);
  group["pkramfs_map: mapping"] = Median(maps[ours]);
}

int Main(int argc, char** argv) {
  int rounds = 5;
  uint64_t large = 1024, map = 4096;
  std::string tree = "/usr/include", json_path;
  Json json;
  CommandLine line("bulk", "Compares import, export and pkramfs_map with cp, tar and mmap.");
  line.Option("--rounds", &rounds, "How often each is measured");
  line.Option("--large", &large, "MiB of the large file");
  line.Option("--map", &map, "MiB of the file that is mapped");
  bool only_map = false;
  line.Flag("--only-map", &only_map, "Measure mappings only");
  line.Option("--tree", &tree, "A tree of real files");
  line.Option("--json", &json_path, "Where the figures go, too");
  if (const auto status = line.Parse(argc, argv)) return *status;

  MountProcess mounted;
  mounted.Mount("size=" + std::to_string(2 * map + large + 2048) + "m");
  const std::string ctl = PKRAMCTL_BINARY, ours = mounted.mount_point() + "/x";
  const std::string base = mounted.region() + "-bench";
  const std::string source = base + "/source", tmpfs = base + "/x";
  Run("mkdir -p " + base);
  const auto compare_import = [&](const std::string& what, const std::string& from) {
    const std::string gone = "rm -rf " + tmpfs, gone_ours = "rm -rf " + ours;
    Run("cp -a " + from + " " + tmpfs);  // the machine gives memory for the first time
    Run(gone);
    // The source is read from memory.
    const std::string warm = "tar cf - -C " + from + " . | cat >/dev/null";
    const auto tar_to = [&](const std::string& to) {
      return "mkdir " + to + " && tar cf - -C " + from + " . | tar xf - -C " + to;
    };
    const auto import = [&](const std::string& threads) {
      return ctl + " import --threads " + threads + " " + ours + " " + from + " >/dev/null";
    };
    Measure(what, rounds,
            {{"cp -a onto tmpfs", "cp -a " + from + " " + tmpfs, warm, gone},
             {"tar | tar onto tmpfs", tar_to(tmpfs), warm, gone},
             {"import, 1 thread", import("1"), warm, gone_ours},
             {"import, 2 threads", import("2"), warm, gone_ours},
             {"cp -a onto the mount", "cp -a " + from + " " + ours, warm, gone_ours},
             {"tar | tar onto the mount", tar_to(ours), warm, gone_ours}},
            &json);
  };
  const auto compare_trees = [&] {
    Run("mkdir -p " + source + "; cd " + source +
        "; for d in $(seq 200); do mkdir $d; for f in $(seq 100); do head -c $((f * 80)) "
        "/dev/zero > $d/$f; done; done");
    compare_import("20,000 files of up to 8 KB", source);
    Run("rm -rf " + source);
    compare_import(tree, tree);
    Run("mkdir " + source + "; head -c " + std::to_string(large) + "m /dev/urandom > " + source +
        "/large");
    compare_import("one file of " + std::to_string(large) + " MiB", source);
    Run("rm -rf " + source);

    Run(ctl + " import " + ours + " " + tree + " >/dev/null");
    const std::string cold = "sync; echo 3 > /proc/sys/vm/drop_caches";
    Measure("out of the mount, cold: " + tree, rounds,
            {{"tar cf - | cat", "tar cf - -C " + ours + " . | cat >/dev/null", cold, ""},
             {"export | cat", ctl + " export " + ours + " | cat >/dev/null", cold, ""}},
            &json);
    Run("rm -rf " + ours);
  };
  if (!only_map) compare_trees();

  Run("head -c " + std::to_string(map) + "m /dev/urandom > " + tmpfs + "; " + ctl + " import " +
      ours + " " + tmpfs + " >/dev/null");
  MeasureMaps(rounds, ours, tmpfs, map << 20, &json);
  Run("rm -rf " + base);
  if (!json_path.empty() && !(std::ofstream(json_path) << json.dump(1) << '\n')) {
    throw std::runtime_error(json_path + ": cannot be written");
  }
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bulk: %s\n", e.what());
    return 2;
  }
}
