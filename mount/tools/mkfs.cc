// mkfs.pkramfs makes a region, and the filesystem in it, for mkfs(8).
#include <cstdio>
#include <string>
#include <vector>

#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"
#include "mount/tools/command_line.h"
#include "mount/tools/import.h"
#include "mount/tools/progress.h"
#include "pkram/parallel.h"

namespace pkramfs {
namespace {

absl::Status Make(const MountOptions& options, const std::string& directory, bool force,
                  bool quiet) {
  absl::StatusOr<std::unique_ptr<RegionFile>> file = RegionFile::Open(
      options, force ? Existing::kOverwrite : Existing::kKeep, [](const std::string& text) {
        std::fprintf(stderr, "mkfs.pkramfs: warning: %s\n", text.c_str());
      });
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<Filesystem>> fs = (*file)->OpenFilesystem(options);
  if (!fs.ok()) return fs.status();
  if (!directory.empty()) {
    ImportOptions import;
    import.sources = {directory};
    import.placing = Filesystem::Placing::kMerge;
    import.threads = pkram::Processors();
    ImportProgress counts;
    absl::Status filled = ShowingBytes(
        "import", import.sources,
        [&](ImportProgress* p) { return ImportInto(fs->get(), (*file)->path(), "", import, p); },
        &counts);
    if (!filled.ok()) {
      fs->reset();
      return filled;
    }
  }
  const FsStats made = (*fs)->StatFs();
  fs->reset();
  if (absl::Status s = (*file)->Close(); !s.ok()) return s;
  if (absl::Status s = (*file)->Keep(RegionFile::For::kOther); !s.ok()) return s;
  if (!quiet) {
    std::printf("%s: a filesystem of %llu MiB\n", (*file)->region()->backing().name().c_str(),
                static_cast<unsigned long long>((made.pages + 128) / 256));
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  MountOptions options;
  std::vector<std::string> lists;
  std::string directory;
  bool force = false, quiet = false, ignored = false;
  CommandLine line("mkfs.pkramfs",
                   "Makes a pkramfs region: in a file, or on a device made of memory.");
  line.Required("region", &options.region,
                "/dev/daxX.Y, or a file; without a slash: in /dev/shm; fd=N: an open descriptor");
  line.Option("-o", &lists, "size=, pkram=, mode=, uid=, gid=, as for a mount");
  line.Option("-d", &directory, "Fill it with what is in there; the root is as DIR is", "DIR");
  line.Flag("-f,--force", &force, "Even if a region or something else is there: it is lost");
  line.Flag("-q,--quiet", &quiet, "Say nothing when it went well");
  line.Flag("-v", &ignored, "Accepted and ignored: mkfs(8) passes it");
  if (const auto status = line.Parse(argc, argv, 1)) return *status;
  if (quiet) ProgressLine::Silence();
  if (!ApplyLists("mkfs.pkramfs", lists, &options)) return 1;
  if (!options.fuse.empty() || options.flags.set != 0 || options.flags.clear != 0 ||
      options.max_inodes || options.lock_memory || !options.export_handles) {
    std::fprintf(stderr,
                 "mkfs.pkramfs: -o takes size=, pkram=, mode=, uid= and gid=: give the others to "
                 "the mount\n");
    return 1;
  }
  const absl::Status made = Make(options, directory, force, quiet);
  if (made.ok()) return 0;
  std::fprintf(stderr, "mkfs.pkramfs: %s\n", std::string(made.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) { return pkramfs::Main(argc, argv); }
