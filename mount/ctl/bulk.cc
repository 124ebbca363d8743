#include "mount/ctl/bulk.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "mount/ctl/output.h"
#include "mount/region/units.h"
#include "mount/tools/command_line.h"
#include "mount/tools/progress.h"
#include "pkram/types.h"

namespace pkramfs {

int RunExport(ExportOptions options) {
  options.output = STDOUT_FILENO;
  if (options.directory.empty() && isatty(STDOUT_FILENO)) {
    return Fail(absl::InvalidArgumentError(
        "export: an archive is nothing for a terminal: > FILE, or name a directory"));
  }
  ImportProgress progress;
  const absl::Status done = Export(options, &progress, [](const std::string& line) {
    std::fprintf(stderr, "pkramctl: %s\n", Printable(line).c_str());
  });
  return done.ok() ? 0 : Fail(done);
}

int RunImport(const ImportOptions& options, bool dry_run, bool as_json) {
  ImportProgress progress;
  const absl::Status done =
      dry_run
          ? CountTree(options.sources, &progress)
          : ShowingImport(
                options.sources, [&](ImportProgress* p) { return Import(options, p); }, &progress);
  if (!done.ok()) return Fail(done);
  const uint64_t inodes = progress.inodes, bytes = progress.bytes;
  const uint64_t takes = progress.pages * pkram::kPageSize;
  if (as_json) {
    Json json = {{"inodes", inodes}, {"bytes", bytes}};
    if (dry_run) json["takes"] = takes;
    return Print(json);
  }
  std::string text = absl::StrCat(inodes, " inodes, ", Rounded(bytes));
  if (dry_run) {
    absl::StrAppend(&text, "; in the region about ", Rounded(takes));
  } else {
    text = absl::StrCat(Printable(options.target), ": ", text);
  }
  return Print(text + "\n");
}

}  // namespace pkramfs
