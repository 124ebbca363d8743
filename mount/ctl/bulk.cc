#include "mount/ctl/bulk.h"

#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

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
  std::vector<std::string> skipped;  // said behind the progress line
  const absl::Status done = ShowingBytes(
      "export", {},
      [&](ImportProgress* p) {
        return Export(options, p, [&](const std::string& line) { skipped.push_back(line); });
      },
      &progress);
  for (const std::string& line : skipped) {
    std::fprintf(stderr, "pkramctl: %s\n", Printable(line).c_str());
  }
  return done.ok() ? 0 : Fail(done);
}

int RunImport(const ImportOptions& options, bool dry_run, bool as_json) {
  ImportProgress progress;
  const absl::Status done =
      dry_run ? CountTree(options.sources, &progress)
              : ShowingBytes(
                    "import", options.sources,
                    [&](ImportProgress* p) { return Import(options, p); }, &progress);
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
