// What a checkpoint takes, beside what scripts do with a tmpfs (rsync to a disk) and beside a copy
// of a frozen region, for many small files and a few large ones: the first time, and after one file
// in a hundred, or one page in a hundred, has changed.
//   checkpoints [--files N] [--large MIB] [--rounds N] [--disk DIR] [--json FILE]
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "mount/tools/command_line.h"
#include "tests/mount_process.h"

namespace pkramfs {
namespace {

using Clock = std::chrono::steady_clock;

void Run(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

double Seconds(const std::function<void()>& work) {
  const auto from = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - from).count();
}

// One of the two trees, to be made anywhere.
struct Tree {
  const char* name;
  std::function<void(const std::string&dir)> make, change;
};

void Write(const std::string& path, const std::string& bytes, off_t at) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT, 0644);
  if (fd < 0 || pwrite(fd, bytes.data(), bytes.size(), at) != static_cast<ssize_t>(bytes.size())) {
    throw std::runtime_error(path);
  }
  close(fd);
}

Tree SmallFiles(int count) {
  const auto path = [](const std::string& dir, int i) {
    return dir + "/" + std::to_string(i / 1000) + "/" + std::to_string(i);
  };
  return {"small files",
          [=](const std::string& dir) {
            for (int i = 0; i < count; ++i) {
              if (i % 1000 == 0) mkdir((dir + "/" + std::to_string(i / 1000)).c_str(), 0755);
              Write(path(dir, i), std::string(static_cast<size_t>(i * 37 % 8000), 's'), 0);
            }
          },
          [=](const std::string& dir) {
            for (int i = 0; i < count; i += 100) Write(path(dir, i), std::string(900, 'c'), 0);
          }};
}

Tree LargeFiles(int mib) {
  constexpr int kFiles = 4;
  return {"large files",
          [=](const std::string& dir) {
            const std::string bytes(1 << 20, 'l');
            for (int i = 0; i < mib; ++i) {
              Write(dir + "/" + std::to_string(i % kFiles), bytes, off_t{i / kFiles} << 20);
            }
          },
          [=](const std::string& dir) {
            const std::string bytes(4096, 'c');
            for (int page = 0; page < mib * 256 / kFiles; page += 100) {
              for (int i = 0; i < kFiles; ++i) {
                Write(dir + "/" + std::to_string(i), bytes, off_t{page} << 12);
              }
            }
          }};
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Figures by row and column, of all rounds.
class Table {
 public:
  void Add(const std::string& row, const std::string& column, double value) {
    values_[row][column].push_back(value);
  }
  // Medians.
  nlohmann::json Json() const {
    nlohmann::json rows;
    for (const auto& [row, columns] : values_) {
      for (const auto& [column, values] : columns) rows[row][column] = Median(values);
    }
    return rows;
  }

 private:
  std::map<std::string, std::map<std::string, std::vector<double>>> values_;
};

void Measure(const Tree& tree, const std::string& disk, Table* table) {
  MountProcess mount;
  mount.Mount("size=4g");
  const std::string tmpfs = disk + "/tmpfs", image = disk + "/image";
  mkdir(tmpfs.c_str(), 0755);
  if (::mount("none", tmpfs.c_str(), "tmpfs", 0, "size=4g") != 0) throw std::runtime_error(tmpfs);
  for (const char* when : {"first", "1 % changed"}) {
    const std::string row = std::string(tree.name) + ", " + when;
    for (const std::string& dir : {mount.mount_point(), tmpfs}) {
      (std::string(when) == "first" ? tree.make : tree.change)(dir);
    }
    Run("sync");
    table->Add(row, "checkpoint, s", Seconds([&] {
                 Run(PKRAMCTL_BINARY " checkpoint " + mount.region() + " " + image + " >/dev/null");
               }));
    const nlohmann::json last = StatisticsOf(mount.mount_point())["checkpoint"]["last"];
    table->Add(row, "checkpoint: changes waited, ms", last["pause_ms"]);
    table->Add(row, "checkpoint: MiB written", last["written"].get<double>() / 256);
    table->Add(row, "rsync -aHAX --delete, and sync, s", Seconds([&] {
                 Run("rsync -aHAX --delete " + tmpfs + "/ " + disk + "/rsync && sync");
               }));
    table->Add(row, "freeze, cp --sparse=always, thaw, sync, s", Seconds([&] {
                 Run(PKRAMCTL_BINARY " freeze " + mount.region());
                 Run("cp --sparse=always " + mount.region() + " " + disk + "/copy");
                 Run(PKRAMCTL_BINARY " thaw " + mount.region());
                 Run("sync " + disk + "/copy");
               }));
  }
  umount2(tmpfs.c_str(), MNT_DETACH);
  Run("rm -rf " + disk + "/rsync " + disk + "/copy " + image + "*");
}

int Main(int argc, char** argv) {
  CommandLine line("checkpoints", "Measures checkpoints beside rsync and a copy.");
  int files = 100'000, large = 1024, rounds = 3;
  std::string disk = "/var/tmp", json;
  line.Option("--files", &files, "Small files");
  line.Option("--large", &large, "MiB of large files");
  line.Option("--rounds", &rounds, "The figures are medians of so many");
  line.Option("--disk", &disk, "Directory on the disk");
  line.Option("--json", &json, "Where the figures go, too");
  if (const auto status = line.Parse(argc, argv)) return *status;
  disk += "/pkramfs-checkpoints-" + std::to_string(getpid());
  mkdir(disk.c_str(), 0700);
  Table table;
  for (int i = 0; i < rounds; ++i) {
    Measure(SmallFiles(files), disk, &table);
    Measure(LargeFiles(large), disk, &table);
  }
  Run("rm -rf --one-file-system " + disk);
  const nlohmann::json rows = table.Json();
  std::puts(rows.dump(2).c_str());
  if (!json.empty() && !(std::ofstream(json) << rows.dump(2) << '\n')) {
    throw std::runtime_error(json + ": cannot be written");
  }
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "checkpoints: %s\n", e.what());
    return 1;
  }
}
