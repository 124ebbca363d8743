// How long a caller waits when the server of a mount is killed, or makes way for a copy of the
// program: a process asks all the time (statfs, a request each), and its longest wait counts.
//   pause [--times N]
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mount/tools/command_line.h"
#include "tests/benchmark/images.h"
#include "tests/mount_process.h"

namespace pkramfs {
namespace {

using Clock = std::chrono::steady_clock;

// A mount on an image.
class ImageMount {
 public:
  ImageMount(std::unique_ptr<Image> image, const std::string& options) : image_(std::move(image)) {
    char dir[] = "/tmp/pkramfs-pause-XXXXXX";
    dir_ = mkdtemp(dir);
    region_ = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(image_->fd());
    Run(std::string(PKRAMFS_BINARY) + " " + region_ + " " + dir_ + options);
  }
  ~ImageMount() {
    umount2(dir_.c_str(), MNT_DETACH);
    while (flock(image_->fd(), LOCK_EX | LOCK_NB) != 0) usleep(1000);
    rmdir(dir_.c_str());
  }
  ImageMount(const ImageMount&) = delete;
  ImageMount& operator=(const ImageMount&) = delete;

  const std::string& dir() const { return dir_; }
  void Kill() const { kill(StatisticsOf(dir_)["pid"].get<pid_t>(), SIGKILL); }
  void Upgrade() const { Run(std::string(PKRAMCTL_BINARY) + " upgrade " + region_); }

 private:
  static void Run(const std::string& command) {
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  }
  std::string dir_, region_;
  const std::unique_ptr<Image> image_;
};

// Asks until it is told to end, and keeps the longest wait.
class Asker {
 public:
  explicit Asker(const std::string& dir) : thread_([this, dir] { Ask(dir); }) {}
  ~Asker() {
    over_ = true;
    thread_.join();
  }
  Asker(const Asker&) = delete;
  Asker& operator=(const Asker&) = delete;
  // In milliseconds, since it was asked last.
  double Longest() { return static_cast<double>(longest_.exchange(0)) / 1e6; }
  uint64_t answers() const { return answers_; }

 private:
  void Ask(const std::string& dir) {
    struct statvfs st;
    while (!over_) {
      const auto begin = Clock::now();
      if (statvfs(dir.c_str(), &st) != 0) std::abort();
      const int64_t took = (Clock::now() - begin).count();
      if (took > longest_) longest_ = took;
      ++answers_;
    }
  }
  std::atomic<bool> over_ = false;
  std::atomic<int64_t> longest_ = 0;
  std::atomic<uint64_t> answers_ = 0;
  std::thread thread_;
};

// Writes and reads 1 MiB all the time.
class Load {
 public:
  explicit Load(const std::string& dir) {
    for (int i = 0; i < 2; ++i) threads_.emplace_back([this, dir, i] { Work(dir, i); });
  }
  ~Load() {
    over_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

 private:
  void Work(const std::string& dir, int number) {
    const std::string path = dir + "/load" + std::to_string(number);
    std::string bytes(1 << 20, 'l');
    const auto all = static_cast<ssize_t>(bytes.size());
    const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
    while (!over_) {
      if (pwrite(fd, bytes.data(), bytes.size(), 0) != all) std::abort();
      posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
      if (pread(fd, bytes.data(), bytes.size(), 0) != all) std::abort();
    }
    close(fd);
    unlink(path.c_str());
  }
  std::atomic<bool> over_ = false;
  std::vector<std::thread> threads_;
};

void Measure(const ImageMount& mount, const std::string& what, int times) {
  for (const bool loaded : {false, true}) {
    std::unique_ptr<Load> load;
    if (loaded) load = std::make_unique<Load>(mount.dir());
    for (const bool upgrade : {false, true}) {
      std::vector<double> waits;
      Asker asker(mount.dir());
      for (int i = 0; i < times; ++i) {
        usleep(100000);
        asker.Longest();
        upgrade ? mount.Upgrade() : mount.Kill();
        // Until somebody serves again, and a while.
        const uint64_t before = asker.answers();
        while (asker.answers() < before + 100) usleep(1000);
        waits.push_back(asker.Longest());
      }
      std::sort(waits.begin(), waits.end());
      const auto at = [&](double part) {
        return waits[static_cast<size_t>(part * static_cast<double>(waits.size() - 1))];
      };
      std::printf("| %s | %s | %s | %.1f ms | %.1f ms | %.1f ms |\n", what.c_str(),
                  loaded ? "writers" : "", upgrade ? "upgrade" : "kill", at(0.5), at(0.99), at(1));
      std::fflush(stdout);
    }
  }
}

int Main(int argc, char** argv) {
  CommandLine line("pause", "Measures what a caller waits when a server dies, or is replaced.");
  int times = 30;
  line.Option("--times", &times, "How often each is measured");
  if (const auto status = line.Parse(argc, argv)) return *status;
  std::printf("| region | load | what | median | 99 %% | longest |\n|---|---|---|---|---|---|\n");
  for (const uint64_t gigabytes : {1, 10, 100}) {
    // A gigabyte more, for the load.
    const ImageMount mount(FileImage(gigabytes * kPagesOfAGigabyte, 1),
                           " -o size=" + std::to_string(gigabytes + 1) + "g 2>/dev/null");
    Measure(mount, std::to_string(gigabytes) + " GB", times);
  }
  const ImageMount mount(ManyFilesImage(1000000), "");
  Measure(mount, "1,000,000 files of 1 KiB", times);
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "pause: %s\n", e.what());
    return 1;
  }
}
