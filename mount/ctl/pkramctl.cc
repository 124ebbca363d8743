// pkramctl: looks into regions, mounted or not, and does things to them.
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "mount/ctl/bulk.h"
#include "mount/ctl/check.h"
#include "mount/ctl/info.h"
#include "mount/ctl/list.h"
#include "mount/ctl/live.h"
#include "mount/ctl/metrics.h"
#include "mount/ctl/named_bytes.h"
#include "mount/ctl/output.h"
#include "mount/ctl/preserve.h"
#include "mount/ctl/release.h"
#include "mount/region/options.h"
#include "mount/region/progress_line.h"
#include "mount/tools/command_line.h"
#include "mount/tools/images.h"
#include "mount/tools/live_mount.h"

namespace pkramfs {
namespace {

int RunRestore(const std::string& image, const std::string& region) {
  const absl::Status restored = RestoreImage(image, RegionPath(region));
  return restored.ok() ? 0 : Fail(restored);
}

int Main(int argc, char** argv) {
  CommandLine line("pkramctl", "Looks into pkramfs regions, and does things to them.");
  std::string region, name, sizes, salvage, program, file;
  bool as_json = false, quiet = false, watch = false;
  double interval = 2;
  line.Flag("-q,--quiet", &quiet, "Show no progress");
  const auto command = [&](const char* command_name, const char* what) -> CommandLine& {
    CommandLine& added = line.Command(command_name, what);
    added.Required("region", &region,
                   "A region (without a slash: in /dev/shm), or where it is mounted");
    return added;
  };
  CommandLine& list =
      line.Command("list", "Every region that can be seen: where, what size, by whom");
  list.Flag("--json", &as_json, "As JSON");
  bool names = false;
  list.Flag("--names", &names, "Only what a command takes for a region, one a line; asks nobody");
  CommandLine& info = command("info", "What is in a region; of a mounted one, live statistics");
  info.Flag("--json", &as_json, "As JSON");
  info.Flag("--watch", &watch, "Of a mounted one: again and again, with what has changed");
  info.Option("--interval", &interval, "Seconds between two looks", "SECONDS");
  std::vector<std::string> regions;
  CommandLine& metrics =
      line.Command("metrics", "What mounted regions count, in the text format of Prometheus");
  metrics.Rest("region", &regions, "Regions, or where they are mounted (default: all mounts)",
               CommandLine::Least::kNone);
  CommandLine& check = command("check", "Find every problem of a region; changes nothing");
  check.Option("--salvage", &salvage, "Copy what is intact to a new or empty directory", "DIR");
  CommandLine& put = command("put", "Save standard input under a name");
  CommandLine& get = command("get", "Write what was saved under a name to standard output");
  CommandLine& rm = command("rm", "Remove a name and all that it holds, a filesystem too");
  for (CommandLine* const named : {&put, &get, &rm}) {
    named->Required("name", &name, "Name of the node");
  }
  CommandLine& resize = command("resize", "Change the size of a mounted region");
  resize.Required("options", &sizes, "As for mount: size=2G, nr_inodes=1m, or both");
  CommandLine& freeze =
      command("freeze", "Let changes of a mounted region wait, so that its file can be copied");
  CommandLine& thaw = command("thaw", "Let changes go on after a freeze");
  CommandLine& upgrade =
      command("upgrade", "Have another program serve a mounted region, while programs use it");
  upgrade.Option("program", &program, "Path (default: the pkramfs beside this pkramctl)");
  CommandLine& checkpoint =
      command("checkpoint", "Write a mounted region, as it is at one moment, to a file on a disk");
  checkpoint.Option("file", &file, "Path of the image (default: the mount's checkpoint=)");
  checkpoint.Flag("--json", &as_json, "As JSON");
  CommandLine& release = line.Command(
      "release", "Free a region in a memfd that is not mounted; what it holds is lost");
  release.Required("region", &region, "memfd:NAME");
  CommandLine& preserve = line.Command(
      "preserve", "Have the kernel keep a region in a memfd over a kexec, mounted or not");
  preserve.Rest("region", &regions, "memfd:NAME, or where it is mounted",
                CommandLine::Least::kNone);
  bool check_only = false, if_kexec = false;
  preserve.Flag("--check", &check_only, "Only say what it takes, and whether it is there");
  preserve.Flag("--if-kexec", &if_kexec,
                "For units: only if systemd is about to kexec; an error calls the kexec off");
  CommandLine& unpreserve =
      line.Command("unpreserve", "Make a preserved region an ordinary one again");
  unpreserve.Required("region", &region, "memfd:NAME, or where it is mounted");
  CommandLine& restore = line.Command("restore", "Make a region of a checkpoint's image");
  restore.Required("image", &file, "Path of the image");
  restore.Required("region", &region, "The new region; without a slash: in /dev/shm");
  ImportOptions import_options;
  bool replace = false, merge = false, dry_run = false;
  CommandLine& import =
      line.Command("import", "Bring a tree of files in at once: it is there whole, or not at all");
  import.Required("target", &import_options.target,
                  "Path on a mount, or REGION:/PATH, or MOUNT:/PATH");
  import.Rest(
      "source", &import_options.sources,
      "A file or directory; several go into one directory; -: an archive from standard input");
  import.Flag("--replace", &replace,
              "Put the tree in place of the target in one step, and delete the old target");
  import.Flag("--merge", &merge, "Add the files to the existing directory, each in one step");
  import.Option("--threads", &import_options.threads,
                "Threads that read (0: one for each processor)", "N");
  import.Flag("--dry-run", &dry_run, "Say what it would take, and do nothing");
  import.Flag("--json", &as_json, "As JSON");
  ExportOptions export_options;
  CommandLine& export_command =
      line.Command("export", "Bring a tree of files out, as it is at one moment");
  export_command.Required("source", &export_options.source,
                          "Path on a mount, or REGION:/PATH, or MOUNT:/PATH; or IMAGE:/PATH");
  export_command.Option("directory", &export_options.directory,
                        "New or empty (default: a tar archive to standard output)");
  if (const auto status = line.Parse(argc, argv, kCannot)) return *status;

  if (quiet) ProgressLine::Silence();
  const auto wrong = [](const char* what) { return Fail(absl::InvalidArgumentError(what)); };
  if (list.given()) return names ? RunListNames() : RunList(as_json);
  if (metrics.given()) return RunMetrics(regions);
  if (export_command.given()) return RunExport(export_options);
  if (preserve.given()) {
    if (regions.size() > 1) return wrong("preserve: one region at a time");
    if (check_only && if_kexec) return wrong("preserve: --check and --if-kexec exclude each other");
    if (check_only) return RunPreserveCheck(regions.empty() ? "" : regions.front());
    if (regions.empty()) return wrong("preserve: region is required, as memfd:cache");
    return if_kexec ? RunPreserveIfKexec(regions.front()) : RunPreserve(regions.front());
  }
  if (unpreserve.given()) return RunUnpreserve(region);
  if (release.given()) return RunRelease(region);
  if (restore.given()) return RunRestore(file, region);
  if (import.given()) {
    if (replace && merge) return wrong("import: --replace and --merge exclude each other");
    if (replace) import_options.placing = Filesystem::Placing::kReplace;
    if (merge) import_options.placing = Filesystem::Placing::kMerge;
    return RunImport(import_options, dry_run, as_json);
  }
  const std::string place = RegionOrMountPoint(region);
  if (info.given()) {
    if (watch && as_json) return wrong("info: --watch and --json exclude each other");
    if (!(interval > 0 && interval <= 86400)) {
      return wrong("info: --interval takes seconds, more than 0 and at most a day");
    }
    return watch ? RunWatch(place, interval) : RunInfo(place, as_json);
  }
  if (freeze.given()) return RunFreeze(place);
  if (thaw.given()) return RunThaw(place);
  if (resize.given()) return RunResize(place, sizes);
  if (upgrade.given()) return RunUpgrade(place, program);
  if (checkpoint.given()) return RunCheckpoint(place, file, as_json);
  // The others open the region themselves.
  const absl::StatusOr<std::string> path = RegionAt(place);
  if (!path.ok()) return Fail(path.status());
  if (check.given()) return salvage.empty() ? RunCheck(*path) : RunSalvage(*path, salvage);
  if (put.given()) return RunPut(*path, name);
  if (get.given()) return RunGet(*path, name);
  return RunRemove(*path, name);
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    const int status = pkramfs::Main(argc, argv);
    // Output that is lost is no success.
    const int flushed = pkramfs::Flush();
    return status != 0 ? status : flushed;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "pkramctl: %s\n", pkramfs::Printable(e.what()).c_str());
    return pkramfs::kCannot;
  }
}
