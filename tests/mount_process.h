// A mount of the pkramfs that was just built, on a region and a directory of its own.
#ifndef TESTS_MOUNT_PROCESS_H_
#define TESTS_MOUNT_PROCESS_H_

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <tuple>

#include "mount/region/mounts.h"
#include "mount/serve/control.h"
#include "tests/eventually.h"
#include "tests/processes.h"

namespace pkramfs {

// The statistics that the daemon of a mount reports.
inline nlohmann::json StatisticsOf(const std::string& mount_point) {
  const int fd = open(mount_point.c_str(), O_RDONLY | O_DIRECTORY);
  ControlReply reply{};
  const int asked = ioctl(fd, kControlStatistics, &reply);
  close(fd);
  if (asked != 0) throw std::runtime_error("no daemon answers on " + mount_point);
  return nlohmann::json::parse(std::string(reply.json, reply.size));
}

// Waits until the daemon of a mount that is gone has sealed the region.  False if it does not.  (If
// a process makes a mount namespace meanwhile, the mount lives on there, too.)
inline bool WaitUntilRegionIsFree(const std::string& region) {
  const int fd = open(region.c_str(), O_RDONLY);
  if (fd < 0) return true;
  const bool is_free = Eventually([fd] { return flock(fd, LOCK_EX | LOCK_NB) == 0; });
  close(fd);
  return is_free;
}

// Kills a mount's keeper, and then its server, with kill -9.  The mount is dead when this returns.
inline void KillBoth(const std::string& mount_point) {
  const nlohmann::json statistics = StatisticsOf(mount_point);
  const pid_t server = statistics["pid"], keeper = statistics.value("keeper", 0);
  if (keeper != 0) Stop(keeper);
  kill(server, SIGKILL);
  if (keeper != 0) kill(keeper, SIGKILL);
  Eventually([&] { return IsGone(server) && (keeper == 0 || IsGone(keeper)); });
}

class MountProcess {
 public:
  enum class As { kRoot, kUser };
  // With kUser the calling process becomes an ordinary user's, for good.
  explicit MountProcess(As as = As::kRoot) : as_(as) {
    char dir[] = "/tmp/pkramfs-test-XXXXXX";
    dir_ = mkdtemp(dir);
    // The daemon of an ordinary user must be able to reach this directory, too.
    chmod(dir_.c_str(), 0755);
    mount_point_ = dir_ + "/mnt";
    mkdir(mount_point_.c_str(), 0777);
    region_ = "/dev/shm/" + dir_.substr(5);
    if (as_ == As::kUser) {
      // Sets the mode that udev sets, because some containers do not.  And the user must be able to
      // run the program, wherever it was built.
      Run("chmod 666 /dev/fuse && install -m 755 " + binary_ + " " + dir_ + "/pkramfs");
      binary_ = dir_ + "/pkramfs";
      Run("chown -R 65534:65534 " + dir_);
      if (setgroups(0, nullptr) != 0 || setresgid(65534, 65534, 65534) != 0 ||
          setresuid(65534, 65534, 65534) != 0) {
        throw std::runtime_error("cannot become an ordinary user");
      }
    }
  }
  ~MountProcess() {
    Detach();
    WaitUntilRegionIsFree(region_);
    unlink(region_.c_str());
    std::ignore = std::system(("rm -rf --one-file-system " + dir_).c_str());
  }
  MountProcess(const MountProcess&) = delete;
  MountProcess& operator=(const MountProcess&) = delete;

  const std::string& mount_point() const { return mount_point_; }
  const std::string& region() const { return region_; }

  void Mount(const std::string& options) {
    Run(binary_ + " " + region_ + " " + mount_point_ + " -o " + options);
  }
  // A clean unmount.
  void Unmount() {
    if (as_ == As::kUser) {
      Run("fusermount3 -u " + mount_point_);
    } else if (umount2(mount_point_.c_str(), 0) != 0) {
      throw std::runtime_error("cannot unmount");
    }
    WaitUntilFree();
  }
  // kill -9 of the keeper and the server, then umount -l.
  void Kill() {
    KillBoth(mount_point_);
    Detach();
  }
  // Makes a copy of the program.
  std::string CopyOfTheProgram() const {
    const std::string copy = dir_ + "/copy-of-pkramfs";
    Run("install -m 755 " + binary_ + " " + copy);
    return copy;
  }
  pid_t Pid() const { return StatisticsOf(mount_point_)["pid"]; }
  void WaitUntilFree() const {
    if (!WaitUntilRegionIsFree(region_)) throw std::runtime_error(region_ + " stays in use");
  }

 private:
  static void Run(const std::string& command) {
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  }
  void Detach() {
    if (as_ == As::kUser) {
      std::ignore = std::system(("fusermount3 -uz " + mount_point_).c_str());
    } else {
      umount2(mount_point_.c_str(), MNT_DETACH);
    }
  }

  const As as_;
  std::string binary_ = PKRAMFS_BINARY;
  std::string dir_, mount_point_, region_;
};

}  // namespace pkramfs

#endif  // TESTS_MOUNT_PROCESS_H_
