// pkramfs REGION MOUNTPOINT [-o options]; as mount.fuse.pkramfs, mount(8)'s helper.
#include <cstdio>
#include <string>
#include <vector>

#include "mount/command_line.h"
#include "mount/daemon.h"
#include "mount/options.h"

namespace {

constexpr char kOptionsHelp[] = R"(Mount options (-o a,b=c):
  size=N         bytes that the files may take, or with k, m, g, t, or % of memory
                 (default: as the region is; a new one: half of the memory)
  nr_inodes=N    how many files there may be (default: as many as fit)
  mode= uid= gid=  of the root directory of a new filesystem (default: 1777, yours)
  pkram=NAME     which filesystem of the region (default: pkramfs)
  mlock          keep the region's memory from being swapped out
  writeback      what is written counts at fsync, msync and close, not before
  noexport       no file handles that outlive the kernel's caches (for NFS); overlayfs needs
                 that when its layers are on one mount, on Linux 6.16 and later
  ro, nosuid, nodev, noexec, allow_other, default_permissions, ...  as for any FUSE mount

Example:
  pkramfs cache.pkram /mnt -o size=2G      the region is /dev/shm/cache.pkram)";

std::string Name(const char* path) {
  const std::string text = path;
  return text.substr(text.rfind('/') + 1);
}

}  // namespace

int main(int argc, char** argv) {
  pkramfs::MountOptions options;
  std::vector<std::string> lists;
  bool flag_f = false;
  CLI::App app("A tmpfs-like filesystem whose files outlive its daemon and the kernel.", "pkramfs");
  app.footer(kOptionsHelp);
  app.add_option("region", options.region, "File of the region; without a slash: in /dev/shm")
      ->required();
  app.add_option("mountpoint", options.mount_point, "Directory to mount on")->required();
  app.add_option("-o", lists, "Mount options, separated by commas")->allow_extra_args(false);
  app.add_flag("-f", flag_f,
               "Stay in the foreground (as a helper of mount: do everything but mount)");
  // What mount(8) passes to a helper.
  bool ignored = false;
  std::string type, mount_namespace;
  const bool helper = Name(argv[0]).rfind("mount.", 0) == 0;
  if (helper) {
    app.add_flag("-s", options.sloppy, "Leave out options that are not known");
    app.add_flag("-n,-v", ignored, "(taken for mount's sake)");
    app.add_option("-t", type, "(taken for mount's sake)");
    app.add_option("-N", mount_namespace, "(refused: enter the namespace with nsenter)");
  }
  if (const auto status = pkramfs::ParseCommandLine(&app, argc, argv, 1)) return *status;
  if (!mount_namespace.empty()) {
    std::fprintf(stderr,
                 "pkramfs: cannot mount in another namespace (%s): enter it (nsenter --mount=%s)\n",
                 mount_namespace.c_str(), mount_namespace.c_str());
    return 1;
  }
  if (!pkramfs::ApplyLists("pkramfs", lists, &options)) return 1;
  if (helper && flag_f) return 0;
  options.foreground = flag_f;
  return pkramfs::Serve(options);
}
