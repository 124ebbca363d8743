// What the benchmarks measure: filesystems that are mounted and unmounted, and where.
#ifndef TESTS_BENCHMARK_CANDIDATES_H_
#define TESTS_BENCHMARK_CANDIDATES_H_

#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/mount_process.h"

namespace pkramfs {

inline constexpr size_t kMiB = 1 << 20;

inline void Must(bool done, const std::string& what) {
  if (!done) throw std::runtime_error(what + ": " + std::strerror(errno));
}

inline void Shell(const std::string& command) {
  Must(std::system(command.c_str()) == 0, "failed: " + command);
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// Memory that nobody has touched yet is slow on a virtual machine, for everybody.
inline void TouchMemory(size_t bytes) {
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Must(at != MAP_FAILED, "touch memory");
  std::memset(at, 1, bytes);
  munmap(at, bytes);
}

// Where everything is, and nothing stays.
class Workplace {
 public:
  Workplace() {
    char path[] = "/tmp/pkramfs-compare-XXXXXX";
    path_ = mkdtemp(path);
  }
  ~Workplace() {
    std::ignore = std::system(("for m in $(awk '{print $2}' /proc/mounts | grep ^" + path_ +
                               "/); do umount -l $m; done; rm -rf --one-file-system " + path_ +
                               " /dev/shm/" + path_.substr(5) + ".pkram")
                                  .c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A filesystem, mounted on dir().
class Candidate {
 public:
  Candidate(std::string name, const std::string& work)
      : name_(std::move(name)), mount_point_(work + "/" + name_), dir_(mount_point_) {
    std::replace(mount_point_.begin(), mount_point_.end(), ' ', '_');
    dir_ = mount_point_;
    Must(mkdir(mount_point_.c_str(), 0755) == 0, mount_point_);
  }
  virtual ~Candidate() = default;
  Candidate(const Candidate&) = delete;
  Candidate& operator=(const Candidate&) = delete;

  const std::string& name() const { return name_; }
  const std::string& dir() const { return dir_; }
  virtual void Mount() = 0;
  virtual void Unmount() = 0;
  // With nothing in any cache, where there is one.
  virtual void Remount() {}
  virtual pid_t daemon() const { return 0; }
  virtual uint64_t Requests() const { return 0; }
  // Whether what was written can be read.
  virtual bool keeps_bytes() const { return true; }

 private:
  const std::string name_;

 protected:
  std::string mount_point_;
  std::string dir_;
};

class Tmpfs final : public Candidate {
 public:
  using Candidate::Candidate;
  void Mount() override {
    Must(mount("none", mount_point_.c_str(), "tmpfs", 0, "size=8g") == 0, "mount tmpfs");
  }
  void Unmount() override { Must(umount(mount_point_.c_str()) == 0, "umount tmpfs"); }
};

// One whose daemon is started in the foreground.
class Fuse : public Candidate {
 public:
  using Candidate::Candidate;
  pid_t daemon() const override { return pid_; }

 protected:
  void Start(const std::vector<std::string>& command) {
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    Must(posix_spawnp(&pid_, argv[0], nullptr, nullptr, argv.data(), environ) == 0, command[0]);
    WaitUntilMounted();
  }
  void WaitUntilMounted() const {
    struct stat above, now;
    Must(stat((mount_point_ + "/..").c_str(), &above) == 0, mount_point_);
    for (int i = 0; i < 2000; ++i) {
      if (stat(mount_point_.c_str(), &now) == 0 && now.st_dev != above.st_dev) return;
      usleep(5000);
    }
    throw std::runtime_error(name() + " does not mount");
  }
  void Umount() const {
    for (int i = 0; i < 200 && umount(mount_point_.c_str()) != 0; ++i) usleep(10000);
  }
  void End() {
    Umount();
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
};

class Pkramfs final : public Fuse {
 public:
  Pkramfs(const std::string& name, const std::string& work, std::string options,
          std::string program = PKRAMFS_BINARY)
      : Fuse(name, work),
        program_(std::move(program)),
        region_("/dev/shm/" + work.substr(work.rfind('/') + 1) + ".pkram"),
        options_(std::move(options)) {}
  void Mount() override {
    unlink(region_.c_str());
    Remount(false);
  }
  void Unmount() override {
    End();
    unlink(region_.c_str());
  }
  void Remount() override { Remount(true); }
  // The process that serves: the one that was started is its keeper.
  pid_t daemon() const override { return server_; }
  const std::string& region() const { return region_; }
  uint64_t Requests() const override {
    const nlohmann::json statistics = StatisticsOf(dir());
    uint64_t sum = 0;
    for (const auto& [kind, count] : statistics["requests"].items()) {
      if (kind != "forget" && kind != "release") sum += count.get<uint64_t>();
    }
    return sum;
  }

 private:
  void Remount(bool mounted) {
    if (mounted) End();
    Start({program_, region_, mount_point_, "-f", "-o", options_});
    server_ = StatisticsOf(dir())["pid"];
  }
  pid_t server_ = 0;
  const std::string program_, region_, options_;
};

// What any FUSE filesystem takes at least: see null.cc.
class Null final : public Fuse {
 public:
  Null(const std::string& work, std::string program)
      : Fuse("null", work), program_(std::move(program)) {}
  void Mount() override { Start({program_, mount_point_}); }
  void Unmount() override {
    kill(daemon(), SIGTERM);
    End();
  }
  // Its names stay.
  void Remount() override {
    Umount();
    WaitUntilMounted();
  }
  bool keeps_bytes() const override { return false; }

 private:
  const std::string program_;
};

// A FUSE filesystem that shows another one, which is a tmpfs.
class Peer final : public Fuse {
 public:
  // `command` gets the directory shown and the mount point in place of SOURCE and TARGET.
  Peer(const std::string& name, const std::string& work, std::vector<std::string> command)
      : Fuse(name, work), under_(work + "/under-" + name), command_(std::move(command)) {
    Must(mkdir(under_.c_str(), 0755) == 0, under_);
  }
  void Mount() override {
    Must(mount("none", under_.c_str(), "tmpfs", 0, "size=8g") == 0, "mount tmpfs");
    StartShowing();
  }
  void Unmount() override {
    End();
    Must(umount(under_.c_str()) == 0, "umount tmpfs");
  }
  void Remount() override {
    End();
    StartShowing();
  }

 private:
  void StartShowing() {
    std::vector<std::string> command = command_;
    for (std::string& word : command) {
      for (const auto& [from, to] :
           {std::pair{"SOURCE", under_}, std::pair{"TARGET", mount_point_}}) {
        if (const size_t at = word.find(from); at != std::string::npos) word.replace(at, 6, to);
      }
    }
    Start(command);
  }
  const std::string under_;
  const std::vector<std::string> command_;
};

}  // namespace pkramfs

#endif  // TESTS_BENCHMARK_CANDIDATES_H_
