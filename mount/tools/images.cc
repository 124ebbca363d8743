#include "mount/tools/images.h"

#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"
#include "pkram/checkpoints.h"
#include "pkram/image.h"

namespace pkramfs {

bool IsImage(const std::string& path) {
  const auto image = pkram::Image::Open(path);
  return image.ok() || absl::IsDataLoss(image.status());
}

absl::StatusOr<std::vector<pkram::Pfn>> DamagedPages(const std::string& path) {
  const auto image = pkram::Image::Open(path);
  if (!image.ok()) return image.status();
  std::vector<pkram::Pfn> damaged;
  ProgressLine line(absl::StrCat("checking ", path));
  uint64_t done = 0;
  const auto visited = [&] { line.Show(++done, (*image)->footer().pages_in_use); };
  const absl::Status read = (*image)->ForEach(
      [&](pkram::Pfn, absl::Span<const std::byte>) {
        visited();
        return absl::OkStatus();
      },
      [&](pkram::Pfn pfn) {
        visited();
        damaged.push_back(pfn);
        return absl::OkStatus();
      });
  if (!read.ok()) return read;
  return damaged;
}

absl::Status RestoreImage(const std::string& image, const std::string& region) {
  const auto opened = pkram::Image::Open(image);
  if (!opened.ok()) return opened.status();
  struct stat st;
  const bool was_there = stat(region.c_str(), &st) == 0;
  auto backing = OpenRegionBacking(region, pkram::OpenFor::kCreating);
  if (!backing.ok()) return backing.status();
  if (absl::Status s = (*backing)->Lock(true); !s.ok()) return s;
  const auto holds = pkram::Region::Look(backing->get());
  if (!holds.ok()) return holds.status();
  using Holds = pkram::Region::Holds;
  const bool is_device = (*backing)->device_pages().has_value();
  if (*holds == Holds::kRegion) {
    return absl::AlreadyExistsError(absl::StrCat(
        region, ": a pkramfs region is there already: choose another path, or delete it"));
  }
  if (*holds == Holds::kOther && !is_device) {
    return absl::FailedPreconditionError(
        absl::StrCat(region, ": something is there already: choose another path, or delete it"));
  }
  ProgressLine line(absl::StrCat("restoring ", image));
  absl::Status restored = pkram::Restore(**opened, backing->get(), [&](uint64_t done, uint64_t of) {
    line.Show(done, of);
    return true;
  });
  if (!restored.ok() && !is_device) {
    (*backing)->ShrinkTo(0);
    if (!was_there) unlink(region.c_str());
  }
  return restored;
}

}  // namespace pkramfs
