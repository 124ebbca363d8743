#include "mount/tools/bulk_commands.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <thread>

#include "mount/region/progress_line.h"
#include "mount/tools/command_line.h"
#include "pkram/types.h"

namespace pkramfs {
namespace {

// Of an import, until it is done.
void ShowProgress(const ImportOptions& options, const ImportProgress& progress,
                  const std::stop_token& stop) {
  ImportProgress whole;
  if (!CountTree(options.sources, &whole).ok()) return;
  ProgressLine line("import");
  std::mutex mu;
  std::condition_variable_any ended;
  std::unique_lock lock(mu);
  while (!ended.wait_for(lock, stop, std::chrono::milliseconds(100), [] { return false; }) &&
         !stop.stop_requested()) {
    line.Show(std::min<uint64_t>(progress.bytes, whole.bytes), std::max<uint64_t>(1, whole.bytes));
  }
}

}  // namespace

absl::Status RunExport(ExportOptions options) {
  options.output = STDOUT_FILENO;
  if (options.directory.empty() && isatty(STDOUT_FILENO)) {
    return absl::InvalidArgumentError(
        "export: an archive is nothing for a terminal: > FILE, or name a directory");
  }
  ImportProgress progress;
  return Export(options, &progress, [](const std::string& line) {
    std::fprintf(stderr, "pkramctl: %s\n", Printable(line).c_str());
  });
}

absl::Status RunImport(const ImportOptions& options, bool dry_run, bool as_json) {
  ImportProgress progress;
  absl::Status done;
  if (dry_run) {
    done = CountTree(options.sources, &progress);
  } else {
    std::jthread shows;
    if (ProgressLine::IsSeen()) {
      shows =
          std::jthread([&](const std::stop_token& stop) { ShowProgress(options, progress, stop); });
    }
    done = Import(options, &progress);
  }
  if (!done.ok()) return done;
  const uint64_t inodes = progress.inodes, bytes = progress.bytes;
  const uint64_t takes = progress.pages * pkram::kPageSize;
  if (as_json) {
    nlohmann::ordered_json json = {{"inodes", inodes}, {"bytes", bytes}};
    if (dry_run) json["takes"] = takes;
    std::printf("%s\n", json.dump(2).c_str());
  } else if (dry_run) {
    std::printf("%llu inodes, %.1f MiB; in the region about %.1f MiB\n",
                static_cast<unsigned long long>(inodes), static_cast<double>(bytes) / (1 << 20),
                static_cast<double>(takes) / (1 << 20));
  } else {
    std::printf("%s: %llu inodes, %.1f MiB\n", Printable(options.target).c_str(),
                static_cast<unsigned long long>(inodes), static_cast<double>(bytes) / (1 << 20));
  }
  return absl::OkStatus();
}

}  // namespace pkramfs
