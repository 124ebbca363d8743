// pkramctl: looks into regions, mounted or not, and moves bytes in and out of them.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "fs/check.h"
#include "mount/region/memory_limit.h"
#include "mount/region/options.h"
#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"
#include "mount/serve/control.h"
#include "mount/tools/bulk_commands.h"
#include "mount/tools/command_line.h"
#include "mount/tools/export.h"
#include "mount/tools/images.h"
#include "mount/tools/import.h"
#include "mount/tools/live_mount.h"
#include "mount/tools/salvage.h"
#include "pkram/region.h"
#include "pkram/stream.h"

namespace pkramfs {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kProblems = 1;  // exit status: what was asked for has problems
constexpr int kFailed = 2;    // exit status: it could not be done

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "pkramctl: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

const char* StateName(uint64_t state) {
  if (state == pkram::format::kLive) return "live";
  return state == pkram::format::kSaved ? "saved" : "unknown";
}

absl::Status IoError(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::StatusOr<Json> StatisticsOf(const LiveMount& mount) {
  Json json = Json::parse(mount.Statistics(), nullptr, false);
  if (json.is_discarded()) return absl::InternalError("the daemon's answer is not understood");
  json["mounted_on"] = mount.entry().mount_point;
  return json;
}

absl::Status Freeze(const LiveMount& mount) {
  if (absl::Status s = mount.Sync(); !s.ok()) return s;
  return mount.Ask("cannot freeze", kControlFreeze);
}

absl::Status Resize(const LiveMount& mount, const std::string& list) {
  MountOptions options;
  if (absl::Status s = ApplyMountOptions(list, MemorySize(), &options); !s.ok()) return s;
  if (!options.OnlySizes() || (!options.size && !options.max_inodes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", list, "': only size= and nr_inodes= can be changed, as size=2G"));
  }
  return mount.Resize(options, [](const std::string& text) {
    std::fprintf(stderr, "pkramctl: warning: %s\n", text.c_str());
  });
}

// The path that the daemon, which is elsewhere, is to find.
absl::Status Upgrade(const LiveMount& mount, std::string program) {
  if (program.empty()) {
    // The one that was installed with this one.
    const std::string self = Canonical("/proc/self/exe");
    program = self.substr(0, self.rfind('/')) + "/pkramfs";
  }
  return mount.Upgrade(Canonical(program));
}

// As the daemon, which is elsewhere, is to find it: the directory's links are followed.
std::string WholePath(const std::string& file) {
  if (file.empty()) return file;
  const size_t slash = file.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : file.substr(0, slash + 1);
  std::string path = Canonical(directory);
  if (path.back() != '/') path += '/';
  return path + file.substr(slash + 1);
}

// Of a checkpoint that is being made, until it is.
void ShowProgress(const LiveMount& mount, const std::stop_token& stop) {
  ProgressLine line("checkpoint");
  std::mutex mu;
  std::condition_variable_any ended;
  std::unique_lock lock(mu);
  while (!ended.wait_for(lock, stop, std::chrono::milliseconds(100), [] { return false; }) &&
         !stop.stop_requested()) {
    const auto live = LiveMount::On(mount.entry().mount_point);
    const absl::StatusOr<Json> json = live.ok() ? StatisticsOf(*live) : live.status();
    if (!json.ok() || !json->contains("/checkpoint/under_way"_json_pointer)) continue;
    const Json& at = (*json)["checkpoint"]["under_way"];
    line.Show(at["done"], at["of"]);
  }
}

absl::Status Checkpoint(const LiveMount& mount, const std::string& file, bool as_json) {
  if (absl::Status s = mount.Sync(); !s.ok()) return s;
  absl::StatusOr<ControlCheckpoint> made;
  {
    std::jthread shows;
    if (ProgressLine::IsSeen()) {
      shows = std::jthread([&](const std::stop_token& stop) { ShowProgress(mount, stop); });
    }
    made = mount.Checkpoint(WholePath(file));
  }
  if (!made.ok()) return made.status();
  const double milliseconds = static_cast<double>(made->took_us) / 1000;
  const double rest = static_cast<double>(made->rest_us) / 1000;
  if (as_json) {
    std::printf("%s\n", Json({{"pages", made->pages},
                              {"bytes", made->pages * pkram::kPageSize},
                              {"bytes_written", made->written * pkram::kPageSize},
                              {"pause_ms", rest},
                              {"took_ms", milliseconds}})
                            .dump(2)
                            .c_str());
  } else {
    std::printf("%s, %s of it written, in %.3g s; changes waited for %.2g ms\n",
                Human(made->pages * pkram::kPageSize).c_str(),
                Human(made->written * pkram::kPageSize).c_str(), milliseconds / 1000, rest);
  }
  return absl::OkStatus();
}

// What is done to a region through its mount.
template <typename Fn>
int ThroughMount(const std::string& path, Fn fn) {
  const absl::StatusOr<LiveMount> mount = LiveMount::Of(path);
  if (!mount.ok()) return Fail(mount.status());
  const absl::Status done = fn(*mount);
  return done.ok() ? 0 : Fail(done);
}

Json ToJson(const std::string& path, const pkram::Region::Report& report) {
  Json json;
  json["region"] = path;
  json["uuid"] = report.uuid;
  json["sealed"] = report.sealed;
  json["committed_journal_slots"] = report.committed_slots;
  uint64_t objects = 0, links = 0, data = 0, bytes = 0;
  Json nodes = Json::array();
  for (const pkram::NodeCounts& n : report.nodes) {
    objects += n.objects;
    links += n.link_pages;
    data += n.data_pages;
    bytes += n.byte_pages;
    nodes.push_back({{"name", n.name},
                     {"state", StateName(n.state)},
                     {"sealed", n.node_sealed && n.sealed == n.objects},
                     {"objects", n.objects},
                     {"link_pages", n.link_pages},
                     {"data_pages", n.data_pages},
                     {"byte_pages", n.byte_pages}});
  }
  json["pages"] = {{"total", report.pages},
                   {"used", report.used_pages},
                   {"free", report.pages - report.used_pages},
                   {"node", report.nodes.size()},
                   {"object", objects},
                   {"link", links},
                   {"data", data},
                   {"byte", bytes}};
  json["nodes"] = nodes;
  json["problems"] = report.problems.size();
  return json;
}

void PrintText(const Json& json, const std::string& indent = "") {
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      std::printf("%s%s:\n", indent.c_str(), key.c_str());
      PrintText(value, indent + "  ");
    } else if (value.is_array()) {
      for (const Json& element : value) {
        std::printf("%s%s:\n", indent.c_str(), key.c_str());
        PrintText(element, indent + "  ");
      }
    } else {
      std::printf("%s%s: %s\n", indent.c_str(), key.c_str(),
                  value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
    }
  }
}

int Print(const Json& json, bool as_json) {
  if (as_json) {
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    PrintText(json);
  }
  return std::fflush(stdout) == 0 ? 0 : kFailed;
}

int Info(const std::string& path, bool as_json) {
  const auto report = InspectRegion(path);
  if (report.ok()) {
    const int status = Print(ToJson(path, *report), as_json);
    return report->problems.empty() ? status : kProblems;
  }
  if (!absl::IsUnavailable(report.status())) return Fail(report.status());
  const absl::StatusOr<LiveMount> mount = LiveMount::Of(path);
  if (!mount.ok()) return Fail(report.status());
  const absl::StatusOr<Json> live = StatisticsOf(*mount);
  if (!live.ok()) return Fail(live.status());
  Json json;
  json["region"] = path;
  json.update(*live);
  return Print(json, as_json);
}

int FailCheck(const absl::Status& status) {
  if (absl::IsUnavailable(status)) {
    return Fail(absl::UnavailableError(
        absl::StrCat(std::string(status.message()), ": unmount it to have it checked")));
  }
  Fail(status);
  return absl::IsDataLoss(status) ? kProblems : kFailed;
}

int PrintProblems(const std::string& path, const pkram::Region::Report& report) {
  for (const pkram::Problem& p : report.problems) {
    std::printf("page %llu: %s\n", static_cast<unsigned long long>(p.page.value()),
                Printable(p.what).c_str());
  }
  std::printf("%s: %zu problems\n", path.c_str(), report.problems.size());
  return report.problems.empty() ? 0 : kProblems;
}

// An image, whose pages have checksums; it is a region, too.
int CheckImage(const std::string& path) {
  const auto damaged = DamagedPages(path);
  if (!damaged.ok()) return FailCheck(damaged.status());
  for (const auto& [page, owner] : *damaged) {
    std::printf("page %llu%s: its checksum is wrong\n",
                static_cast<unsigned long long>(page.value()),
                owner.empty() ? "" : Printable(absl::StrCat(" (of ", owner, ")")).c_str());
  }
  if (damaged->empty()) return -1;
  std::printf("%s: %zu pages are damaged\n", path.c_str(), damaged->size());
  return kProblems;
}

int Check(const std::string& path) {
  if (IsImage(path)) {
    if (const int status = CheckImage(path); status >= 0) return status;
  }
  const auto report = InspectRegion(path);
  return report.ok() ? PrintProblems(path, *report) : FailCheck(report.status());
}

int Salvage(const std::string& path, const std::string& directory) {
  const auto lost = [](const std::string& what) {
    std::printf("not intact: %s\n", Printable(what).c_str());
  };
  const auto salvaged = SalvageRegion(path, directory, lost);
  if (!salvaged.ok()) return FailCheck(salvaged.status());
  const auto count = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  if (salvaged->bare > 0) {
    std::printf("of %llu, attributes could not be set\n", count(salvaged->bare));
  }
  std::printf("%s: %llu files and %llu directories with %llu bytes copied to %s; %llu not intact\n",
              path.c_str(), count(salvaged->files), count(salvaged->directories),
              count(salvaged->bytes), directory.c_str(), count(salvaged->lost));
  const int status = PrintProblems(path, salvaged->report);
  return salvaged->lost > 0 ? kProblems : status;
}

// Opens a region for a change, has it made, and seals it again.
template <typename Fn>
int ChangeRegion(const std::string& path, Fn change) {
  auto backing = OpenRegionBacking(path, pkram::OpenFor::kWriting);
  if (!backing.ok()) return Fail(backing.status());
  FsCheck check;
  pkram::Region::OpenOptions options;
  options.client = &check;
  auto region = pkram::Region::Open(*std::move(backing), options);
  if (!region.ok()) return Fail(region.status());
  const absl::Status changed = change(region->get());
  const absl::Status closed = (*region)->Close(&check);
  if (!changed.ok()) return Fail(changed);
  return closed.ok() ? 0 : Fail(closed);
}

absl::Status PutBytes(pkram::Region* region, const std::string& name, int in) {
  auto save = pkram::SaveStream::Prepare(region, name);
  if (!save.ok()) return save.status();
  auto object = (*save)->PrepareObject();
  if (!object.ok()) return object.status();
  std::vector<std::byte> buffer(1 << 20);
  for (;;) {
    // Whole buffers, so that a pipe does not become many short writes.
    size_t have = 0;
    ssize_t n = 1;
    while (have < buffer.size() && n > 0) {
      n = read(in, buffer.data() + have, buffer.size() - have);
      if (n < 0 && errno == EINTR)
        n = 1;
      else if (n < 0)
        return IoError("read");
      else
        have += static_cast<size_t>(n);
    }
    if (have == 0) return (*save)->Finish();
    absl::Status s = (*object)->WriteBytes(absl::MakeConstSpan(buffer.data(), have));
    if (!s.ok()) return s;
  }
}

absl::Status WriteAll(int out, const std::byte* bytes, size_t size) {
  while (size > 0) {
    const ssize_t n = write(out, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("write");
    bytes += n;
    size -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

// The node stays: nothing is lost when the output is.
absl::Status GetBytes(pkram::Region* region, const std::string& name, int out) {
  auto load = pkram::LoadStream::Prepare(region, name);
  if (!load.ok()) return load.status();
  std::vector<std::byte> buffer(1 << 20);
  for (;;) {
    auto object = (*load)->NextObject();
    if (absl::IsOutOfRange(object.status())) return absl::OkStatus();
    if (!object.ok()) return object.status();
    while (const size_t n = (*object)->ReadBytes(absl::MakeSpan(buffer))) {
      if (absl::Status s = WriteAll(out, buffer.data(), n); !s.ok()) return s;
    }
  }
}

absl::Status RemoveNode(pkram::Region* region, const std::string& name) {
  if (absl::Status s = region->TakeName(name); !s.ok()) return s;
  const pkram::Pfn node = region->FindNode(name);
  if (!node) return absl::NotFoundError(absl::StrCat("no node '", name, "'"));
  region->RemoveNode(node);
  region->ReturnName(name);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CommandLine line("pkramctl", "Looks into pkramfs regions, and moves bytes in and out of them.");
  std::string region, name, sizes, salvage, program, file;
  bool as_json = false;
  const auto command = [&](const char* command_name, const char* what) -> CommandLine& {
    CommandLine& added = line.Command(command_name, what);
    added.Required("region", &region, "File of the region; without a slash: in /dev/shm");
    return added;
  };
  CommandLine& info = command("info", "What is in a region; of a mounted one, live statistics");
  info.Flag("--json", &as_json, "As JSON");
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
      command("freeze", "Keep a mounted region as it is, for a copy: what changes it waits");
  CommandLine& thaw = command("thaw", "End that");
  CommandLine& upgrade =
      command("upgrade", "Have another program serve a mounted region, while programs use it");
  upgrade.Option("program", &program, "Path (default: the pkramfs beside this pkramctl)");
  CommandLine& checkpoint =
      command("checkpoint", "Write a mounted region, as it is at one moment, to a file on a disk");
  checkpoint.Option("file", &file, "Path of the image (default: the mount's checkpoint=)");
  checkpoint.Flag("--json", &as_json, "As JSON");
  CommandLine& restore = line.Command("restore", "Make a region of an image again");
  restore.Required("image", &file, "Path of the image");
  restore.Required("region", &region, "The new region; without a slash: in /dev/shm");
  ImportOptions import_options;
  bool replace = false, merge = false, dry_run = false;
  CommandLine& import =
      line.Command("import", "Bring a tree of files in at once: it is there whole, or not at all");
  import.Required("target", &import_options.target,
                  "Path on a mount, or REGION:/PATH, or MOUNT:/PATH");
  import.Rest("source", &import_options.sources,
              "A file or directory; several: as they are in one");
  import.Flag("--replace", &replace, "Exchange what is there for it in one step, and delete that");
  import.Flag("--merge", &merge, "Into the directory that is there, each file in one step");
  import.Option("--threads", &import_options.threads, "How many read (default: one a processor)",
                "N");
  import.Flag("--dry-run", &dry_run, "Say what it would take, and do nothing");
  import.Flag("--json", &as_json, "As JSON");
  ExportOptions export_options;
  CommandLine& export_command =
      line.Command("export", "Bring a tree of files out, as it is at one moment");
  export_command.Required("source", &export_options.source,
                          "Path on a mount, or REGION:/PATH, or MOUNT:/PATH; or IMAGE:/PATH");
  export_command.Option("directory", &export_options.directory,
                        "New or empty (default: a tar archive to standard output)");
  if (const auto status = line.Parse(argc, argv, kFailed)) return *status;
  if (export_command.given()) {
    const absl::Status done = RunExport(export_options);
    return done.ok() ? 0 : Fail(done);
  }
  if (import.given()) {
    if (replace && merge) {
      return Fail(absl::InvalidArgumentError("import: --replace and --merge exclude each other"));
    }
    if (replace) import_options.placing = Filesystem::Placing::kReplace;
    if (merge) import_options.placing = Filesystem::Placing::kMerge;
    const absl::Status done = RunImport(import_options, dry_run, as_json);
    return done.ok() ? 0 : Fail(done);
  }
  const std::string path = RegionPath(region);
  if (info.given()) return Info(path, as_json);
  if (check.given()) return salvage.empty() ? Check(path) : Salvage(path, salvage);
  if (freeze.given()) return ThroughMount(path, Freeze);
  if (thaw.given()) {
    return ThroughMount(path,
                        [](const LiveMount& m) { return m.Ask("cannot thaw", kControlThaw); });
  }
  if (checkpoint.given()) {
    return ThroughMount(path, [&](const LiveMount& m) { return Checkpoint(m, file, as_json); });
  }
  if (restore.given()) {
    const absl::Status restored = RestoreImage(file, path);
    return restored.ok() ? 0 : Fail(restored);
  }
  if (upgrade.given()) {
    return ThroughMount(path, [&](const LiveMount& m) { return Upgrade(m, program); });
  }
  if (resize.given()) {
    return ThroughMount(path, [&](const LiveMount& m) { return Resize(m, sizes); });
  }
  return ChangeRegion(path, [&](pkram::Region* r) {
    if (put.given()) return PutBytes(r, name, STDIN_FILENO);
    if (get.given()) return GetBytes(r, name, STDOUT_FILENO);
    return RemoveNode(r, name);
  });
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) { return pkramfs::Main(argc, argv); }
