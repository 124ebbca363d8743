// The region of a mount: found, made on first use, opened, or refused with a
// sentence that says why and what to do.
#ifndef MOUNT_REGION_FILE_H_
#define MOUNT_REGION_FILE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mount/options.h"
#include "pkram/region.h"

namespace pkramfs {

// A region that is open, and what its opening changed.
// Pages of a region that holds `size` bytes of contents.
uint64_t RegionPages(uint64_t size);

class RegionFile {
 public:
  // Waits up to 10 s for a daemon whose mount is gone already.  `warn` gets
  // sentences about what will go wrong later.
  static absl::StatusOr<std::unique_ptr<RegionFile>> Open(
      const MountOptions& options, const std::function<void(const std::string&)>& warn);

  pkram::Region* region() const { return region_.get(); }
  const std::string& path() const { return path_; }

  // The mount came about: what was made stays.
  void Keep() { made_ = created_ = false; }
  // Seals and closes.
  absl::Status Close();
  // Without Keep, what was made on the way is unmade.
  ~RegionFile();

 private:
  RegionFile() = default;

  std::string path_;
  bool made_ = false;     // formatted here, to be undone
  bool created_ = false;  // and the file made, too
  int lock_ = -1;
  std::unique_ptr<pkram::Region> region_;
};

}  // namespace pkramfs

#endif  // MOUNT_REGION_FILE_H_
