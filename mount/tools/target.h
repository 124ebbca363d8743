// The place that a word of a command line names: a path in the filesystem of a region, which may be
// mounted or not.
#ifndef MOUNT_TOOLS_TARGET_H_
#define MOUNT_TOOLS_TARGET_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/region/mounts.h"
#include "pkram/lender.h"

namespace pkramfs {

struct Target {
  std::string region;  // file of the region
  std::optional<MountEntry> mount;
  std::string path;  // in the filesystem: begins with a slash, ends with none; "" is its root
  std::string parent() const { return path.substr(0, path.rfind('/')); }
  std::string name() const { return path.empty() ? "" : path.substr(path.rfind('/') + 1); }
};

// Finds the place for a path on a mount, REGION:/PATH or MOUNT:/PATH.  NOT_FOUND, INVALID_ARGUMENT.
absl::StatusOr<Target> FindTarget(const std::string& given);

// Gets pages from the daemon of a mount.  `directory` is an open directory of it.
class MountLender final : public pkram::Lender {
 public:
  // `region` is the file that is said to be the region's.
  MountLender(int directory, int region, std::string name)
      : directory_(directory), region_(region), name_(std::move(name)) {}
  absl::StatusOr<pkram::PageRun> Lend(uint64_t want) override;
  absl::StatusOr<bool> Keep(pkram::PageRun run) override;
  // The error of an ioctl that has just failed, by errno.
  absl::Status Refused() const;

 private:
  const int directory_, region_;
  const std::string name_;
};

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_TARGET_H_
