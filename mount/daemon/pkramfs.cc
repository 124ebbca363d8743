// pkramfs REGION MOUNTPOINT [-o options]; as mount.fuse.pkramfs, mount(8)'s helper.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "mount/daemon/daemon.h"
#include "mount/daemon/program.h"
#include "mount/region/options.h"
#include "mount/tools/command_line.h"

namespace {

constexpr char kOptionsHelp[] = R"(Mount options (-o a,b=c):
  size=N         bytes that the files may take, or with k, m, g, t, or % of memory
                 (default: as the region is; a new one: half of the memory)
  nr_blocks=N    the same in blocks of 4 KiB
  nr_inodes=N    how many files there may be (default: as many as fit)
  mode=OCTAL     of the root directory of a new filesystem (default: 1777)
  uid=USER       its owner (default: you)
  gid=GROUP      its group (default: yours)
  pkram=NAME     which filesystem of the region (default: pkramfs)
  checkpoint=FILE  keep an image on a disk, and restore it when the region is gone
  checkpoint_every=TIME  make one this often, as 10m
  checkpoint_at_exit=no  make none at the unmount
  mlock          keep the region's memory from being swapped out (also: noswap)
  writeback      the kernel collects writes; data is safe after fsync, msync or close
  notakeover     run no keeper: if the server dies, the mount is dead
  noexport       no file handles that outlive the kernel's caches (for NFS); overlayfs needs
                 that when its layers are on one mount, on Linux 6.16 and later
  max_read=N     largest read request of the kernel, in bytes
  remount        change flags, size=, nr_inodes= and mlock of what is mounted there

Those of every filesystem and of FUSE, among them:
  ro             read-only
  sync           with writeback: each write counts at once
  nosuid         set-user-id bits have no effect
  nodev          device files cannot be opened
  noexec         programs cannot be run
  noatime        reading sets no times
  allow_other    other users may use the mount (root's mounts: always)
  default_permissions  the kernel checks permissions (always)
  auto_unmount   fusermount3 unmounts when the server is gone

Example:
  pkramfs cache.pkram /mnt -o size=2G      the region is /dev/shm/cache.pkram)";

std::string Name(const char* path) {
  const std::string text = path;
  return text.substr(text.rfind('/') + 1);
}

// systemd takes a path in /dev of fstab for a device, and waits for that before it mounts.
void WarnAboutFstab(bool helper, const std::string& region) {
  const std::string directory = "/dev/shm/";
  if (!helper || region.rfind(directory, 0) != 0 || access("/run/systemd/system", F_OK) != 0) {
    return;
  }
  std::fprintf(stderr,
               "pkramfs: warning: in /etc/fstab, write %s without %s: systemd would wait for a "
               "device of that name\n",
               region.c_str() + directory.size(), directory.c_str());
}

using Run = int(const pkramfs::Role&, const pkramfs::MountOptions&,
                const std::vector<std::string>& arguments);

int CanTakeOver(const pkramfs::Role&, const pkramfs::MountOptions&,
                const std::vector<std::string>&) {
  return 0;
}

// The function to run in place of a mount, if the first argument is "--successor=5" or the like.
// This program starts itself again with such an argument.  Null for other arguments.
Run* RunFor(const std::string& argument, pkramfs::Role* role) {
  const size_t at = argument.find('=');
  const std::string name = argument.substr(0, at);
  if (at == std::string::npos) return nullptr;
  const std::string value = argument.substr(at + 1);
  if (name == "--can-take-over") return value == pkramfs::HandoverVersion() ? CanTakeOver : nullptr;
  if (name != "--keeper" && name != "--successor") return nullptr;
  std::sscanf(value.c_str(), "%d,%d,%d", &role->link, &role->estate, &role->server);
  return name == "--keeper" ? pkramfs::KeepFor : pkramfs::ServeInPlaceOf;
}

}  // namespace

int main(int argc, char** argv) {
  pkramfs::Role role;
  Run* const run = argc > 1 ? RunFor(argv[1], &role) : nullptr;
  if (run != nullptr) {
    --argc;
    ++argv;
  }
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  pkramfs::MountOptions options;
  std::vector<std::string> lists;
  bool flag_f = false;
  pkramfs::CommandLine line(
      "pkramfs", "A tmpfs-like filesystem whose files outlive its daemon and the kernel.",
      kOptionsHelp);
  line.Required("region", &options.region, "File of the region; without a slash: in /dev/shm");
  line.Required("mountpoint", &options.mount_point, "Directory to mount on");
  line.Option("-o", &lists, "Mount options, separated by commas");
  line.Flag("-f", &flag_f,
            "Stay in the foreground (as a helper of mount: do everything but mount)");
  // What mount(8) passes to a helper.
  bool ignored = false;
  std::string type, mount_namespace;
  const bool helper = run != nullptr || Name(argv[0]).rfind("mount.", 0) == 0;
  if (helper) {
    line.Flag("-s", &options.sloppy, "Leave out options that are not known");
    line.Flag("-n,-v", &ignored, "(taken for mount's sake)");
    line.Option("-t", &type, "(taken for mount's sake)");
    line.Option("-N", &mount_namespace, "(refused: enter the namespace with nsenter)");
  }
  if (const auto status = line.Parse(argc, argv, 1)) return *status;
  if (!mount_namespace.empty()) {
    std::fprintf(stderr,
                 "pkramfs: cannot mount in another namespace (%s): enter it (nsenter --mount=%s)\n",
                 mount_namespace.c_str(), mount_namespace.c_str());
    return 1;
  }
  if (!pkramfs::ApplyLists("pkramfs", lists, &options)) return 1;
  if (helper && flag_f && run == nullptr) return 0;
  // mount(8) calls its helper by another name.
  prctl(PR_SET_NAME, run == pkramfs::KeepFor ? "pkramfs-keeper" : "pkramfs");
  options.foreground = flag_f;
  if (run != nullptr) return run(role, options, arguments);
  WarnAboutFstab(helper, options.region);
  return pkramfs::Serve(options, arguments);
}
