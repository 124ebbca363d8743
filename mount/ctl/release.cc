#include "mount/ctl/release.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mount/ctl/output.h"
#include "mount/region/holder.h"
#include "mount/region/memfd.h"
#include "mount/region/region_file.h"

namespace pkramfs {
namespace {

absl::Status Release(const std::string& given) {
  if (!IsMemfd(given)) {
    return absl::InvalidArgumentError(
        absl::StrCat(given, ": not memfd:NAME: a region in a file is deleted with rm"));
  }
  {
    auto region = OpenRegionBacking(given, pkram::OpenFor::kWriting);
    if (!region.ok()) return region.status();
    // Nobody mounts it meanwhile.
    if (absl::Status s = (*region)->Lock(true); !s.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat(std::string(s.message()), ": unmount it first"));
    }
    if (!HoldersOf((*region)->fd(), Holds::kSession).empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(given, ": is preserved for a kexec: pkramctl unpreserve it first"));
    }
    for (const pkram::Descriptor& holder : HoldersOf((*region)->fd())) EndHolder(holder);
  }
  const std::string path = FindMemfd(given);
  if (path.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(given, ": ", path, " still has it open: if that is systemd, then for a unit: ",
                   "systemctl clean --what=fdstore UNIT"));
}

}  // namespace

int RunRelease(const std::string& given) {
  const absl::Status released = Release(given);
  return released.ok() ? 0 : Fail(released);
}

}  // namespace pkramfs
