#include "mount/tools/images.h"

#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "fs/page_owners.h"
#include "fs/survivors.h"
#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"
#include "pkram/checkpoints.h"
#include "pkram/image.h"

namespace pkramfs {

namespace {

// The owners of damaged pages, as far as they can be found.
std::map<pkram::Pfn, std::string> OwnersIn(const std::string& image,
                                           const std::set<pkram::Pfn>& wanted) {
  std::map<pkram::Pfn, std::string> owners;
  const auto backing = OpenRegionBacking(image, pkram::OpenFor::kReading);
  if (!backing.ok()) return owners;
  Survivors survivors;
  const auto find = [&](const pkram::PageView& pages, const pkram::Walk&) {
    for (const SurvivingTree& tree : survivors.trees()) {
      owners.merge(OwnersOf(wanted, pages, tree));
    }
    return absl::OkStatus();
  };
  pkram::Region::Check(backing->get(), &survivors, find).IgnoreError();
  return owners;
}

}  // namespace

bool IsImage(const std::string& path) {
  const auto image = pkram::Image::Open(path);
  return image.ok() || absl::IsDataLoss(image.status());
}

absl::StatusOr<std::map<pkram::Pfn, std::string>> DamagedPages(const std::string& path) {
  const auto image = pkram::Image::Open(path);
  if (!image.ok()) return image.status();
  std::set<pkram::Pfn> damaged;
  ProgressLine line("check", ProgressLine::Unit::kPages);
  uint64_t done = 0;
  const auto visited = [&](uint64_t pages) {
    done += pages;
    line.Show(done, (*image)->footer().pages_in_use);
  };
  const absl::Status read = (*image)->ForEach(
      [&](pkram::Pfn, absl::Span<const std::byte> bytes) {
        visited(bytes.size() / pkram::kPageSize);
        return absl::OkStatus();
      },
      [&](pkram::Pfn pfn) {
        visited(1);
        damaged.insert(pfn);
        return absl::OkStatus();
      });
  if (!read.ok()) return read;
  std::map<pkram::Pfn, std::string> owners;
  // (Beside a delta the image alone is no region yet.)
  if (!damaged.empty() && !(*image)->has_delta()) owners = OwnersIn(path, damaged);
  for (const pkram::Pfn pfn : damaged) owners.try_emplace(pfn);
  return owners;
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
  ProgressLine line("restore", ProgressLine::Unit::kPages);
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
