// fsck.pkramfs checks a region for fsck(8).  It changes nothing: the next mount puts right what a
// crash has left, and the owner of a damaged region must decide about it.
#include <cstdio>
#include <string>

#include "mount/region/region_file.h"
#include "mount/tools/command_line.h"
#include "mount/tools/progress.h"

namespace pkramfs {
namespace {

// fsck(8)'s.
constexpr int kSound = 0;
constexpr int kErrorsLeft = 4;
constexpr int kOperationalError = 8;
constexpr int kUsage = 16;

int Check(const std::string& path) {
  const absl::StatusOr<pkram::Region::Report> report = CheckShowingProgress(path);
  if (!report.ok()) {
    std::fprintf(stderr, "fsck.pkramfs: %s\n", std::string(report.status().message()).c_str());
    return absl::IsDataLoss(report.status()) ? kErrorsLeft : kOperationalError;
  }
  for (const pkram::Problem& p : report->problems) {
    std::printf("page %llu: %s\n", static_cast<unsigned long long>(p.page.value()), p.what.c_str());
  }
  if (!report->problems.empty()) {
    std::printf("%s: %zu problems; it cannot be mounted\n", path.c_str(), report->problems.size());
    return kErrorsLeft;
  }
  std::printf("%s: sound, %s, %llu of %llu pages in use\n", path.c_str(),
              report->sealed ? "sealed by a clean unmount" : "not sealed (it was not unmounted)",
              static_cast<unsigned long long>(report->used_pages),
              static_cast<unsigned long long>(report->pages));
  return kSound;
}

int Main(int argc, char** argv) {
  std::string region;
  bool ignored = false;
  CommandLine line("fsck.pkramfs", "Checks a pkramfs region; changes nothing.");
  line.Required("region", &region, "/dev/daxX.Y, or a file; without a slash: in /dev/shm");
  line.Flag("-a,-p,-n,-y,-f,-r,-v", &ignored, "Accepted and ignored: fsck(8) passes them");
  line.Ignored("-C", "Accepted and ignored: fsck(8) passes it");
  if (const auto status = line.Parse(argc, argv, kUsage)) return *status;
  return Check(RegionPath(region));
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) { return pkramfs::Main(argc, argv); }
