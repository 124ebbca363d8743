#include "mount/ctl/check.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "mount/ctl/output.h"
#include "mount/region/region_file.h"
#include "mount/tools/command_line.h"
#include "mount/tools/images.h"
#include "mount/tools/progress.h"
#include "mount/tools/salvage.h"
#include "pkram/region.h"

namespace pkramfs {
namespace {

unsigned long long Count(uint64_t n) { return n; }

int FailCheck(const absl::Status& status) {
  if (absl::IsUnavailable(status)) {
    return Fail(absl::UnavailableError(
        absl::StrCat(std::string(status.message()), ": unmount it to have it checked")));
  }
  Fail(status);
  return absl::IsDataLoss(status) ? kProblems : kCannot;
}

int PrintProblems(const std::string& path, const pkram::Region::Report& report) {
  for (const pkram::Problem& p : report.problems) {
    std::printf("page %llu: %s\n", Count(p.page.value()), Printable(p.what).c_str());
  }
  std::printf("%s: %zu problems\n", Printable(path).c_str(), report.problems.size());
  return report.problems.empty() ? 0 : kProblems;
}

// Of an image, whose pages have checksums.  Returns -1 if no page is damaged.
int CheckImage(const std::string& path) {
  const auto damaged = DamagedPages(path);
  if (!damaged.ok()) return FailCheck(damaged.status());
  for (const auto& [page, owner] : *damaged) {
    std::printf("page %llu%s: its checksum is wrong\n", Count(page.value()),
                owner.empty() ? "" : Printable(absl::StrCat(" (of ", owner, ")")).c_str());
  }
  if (damaged->empty()) return -1;
  std::printf("%s: %zu pages are damaged\n", Printable(path).c_str(), damaged->size());
  return kProblems;
}

}  // namespace

int RunCheck(const std::string& region) {
  // An image is a region, too: both checks apply.
  if (IsImage(region)) {
    if (const int status = CheckImage(region); status >= 0) return status;
  }
  const auto report = CheckShowingProgress(region);
  return report.ok() ? PrintProblems(region, *report) : FailCheck(report.status());
}

int RunSalvage(const std::string& region, const std::string& directory) {
  const auto lost = [](const std::string& what) {
    std::printf("not intact: %s\n", Printable(what).c_str());
  };
  const auto salvaged = SalvageRegion(region, directory, lost);
  if (!salvaged.ok()) return FailCheck(salvaged.status());
  if (salvaged->bare > 0) {
    std::printf("of %llu, attributes could not be set\n", Count(salvaged->bare));
  }
  std::printf("%s: %llu files and %llu directories with %llu bytes copied to %s; %llu not intact\n",
              Printable(region).c_str(), Count(salvaged->files), Count(salvaged->directories),
              Count(salvaged->bytes), Printable(directory).c_str(), Count(salvaged->lost));
  const int status = PrintProblems(region, salvaged->report);
  return salvaged->lost > 0 ? kProblems : status;
}

}  // namespace pkramfs
