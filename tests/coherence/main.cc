// coherence tmpfs|mount|writeback|exact|/DIRECTORY [--seconds N]
//     [--logs]      only the logs, for all of the time
//   An hour of it: build/gcc/tests/coherence mount --seconds 3600
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <memory>

#include "mount/tools/command_line.h"
#include "tests/coherence/coherence.h"
#include "tests/mount_process.h"

namespace pkramfs {
namespace {

bool only_logs = false;

int Check(const std::string& directory, double seconds, bool exact) {
  if (only_logs) return CheckLogs(directory, seconds, exact) ? 0 : 1;
  const bool contents_are_right = CheckContents(directory, seconds * 0.6);
  const bool batches_are_right = CheckBatches(directory, seconds * 0.1);
  const bool logs_are_right = CheckLogs(directory, seconds * 0.3, exact);
  return contents_are_right && batches_are_right && logs_are_right ? 0 : 1;
}

int OnTmpfs(double seconds) {
  char directory[] = "/tmp/coherence-XXXXXX";
  if (mkdtemp(directory) == nullptr || mount("none", directory, "tmpfs", 0, "size=64m") != 0) {
    throw std::runtime_error("cannot mount a tmpfs");
  }
  // Before 6.6 none has O_DIRECT.
  const int direct = open(directory, O_TMPFILE | O_RDWR | O_DIRECT, 0600);
  const bool has_direct = direct >= 0;
  if (has_direct) close(direct);
  if (!has_direct) std::puts("skipped: this kernel's tmpfs has no O_DIRECT");
  const int status = has_direct ? Check(directory, seconds, true) : 77;
  umount2(directory, MNT_DETACH);
  rmdir(directory);
  return status;
}

int OnAMount(const std::string& options, double seconds) {
  MountProcess mount;
  mount.Mount(options);
  return Check(mount.mount_point(), seconds, options.find("writeback") != std::string::npos);
}

int Main(int argc, char** argv) {
  CommandLine line("coherence", "Every way to write a file beside every way to read it.");
  std::string where;
  uint64_t seconds = 20;
  line.Required("where", &where, "tmpfs, mount, writeback, exact (writeback,sync), or a directory");
  line.Option("--seconds", &seconds, "How long, in all");
  line.Flag("--logs", &only_logs, "Only the logs: files that grow while they are read");
  if (const auto status = line.Parse(argc, argv)) return *status;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto time = static_cast<double>(seconds);
  if (where.rfind('/', 0) == 0) return Check(where, time, false);
  if (geteuid() != 0 || access("/dev/fuse", F_OK) != 0) {
    std::puts("skipped: needs root and /dev/fuse");
    return 77;
  }
  if (where == "tmpfs") return OnTmpfs(time);
  if (where == "mount") return OnAMount("size=64m", time);
  if (where == "writeback") return OnAMount("size=64m,writeback", time);
  if (where == "exact") return OnAMount("size=64m,writeback,sync", time);
  std::fprintf(stderr, "coherence: %s: not tmpfs, mount, writeback, exact or a directory\n",
               where.c_str());
  return 2;
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
