// The region of a mount.  It is found, made on first use, and opened; or refused with a sentence
// that says why and what to do.
#ifndef MOUNT_REGION_REGION_FILE_H_
#define MOUNT_REGION_REGION_FILE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/filesystem.h"
#include "mount/region/options.h"
#include "pkram/descriptor.h"
#include "pkram/region.h"

namespace pkramfs {

// Pages of a region that holds `size` bytes of contents.
uint64_t RegionPages(uint64_t size);

// The path that a user's word for a region stands for (see RegionPath), without links.
std::string RegionName(const std::string& given);

// Whether the descriptor that a user's word for a region names (fd=N), if it names one, is open.
// NOT_FOUND.
absl::Status CheckDescriptor(const std::string& given);

// Does what pkram::OpenBacking does.  Its errors also say what a user should know when the region
// is not there.  kCreating makes no file where devices are.
absl::StatusOr<std::unique_ptr<pkram::Backing>> OpenRegionBacking(const std::string& path,
                                                                  pkram::OpenFor mode);

// Checks a region, and the filesystems in it (pkram::Region::Check).  Changes nothing.
absl::StatusOr<pkram::Region::Report> InspectRegion(const std::string& path);

// What to do with a file or device that holds something already.
enum class Existing {
  kUse,        // a region is used; an empty file becomes one
  kKeep,       // only what holds nothing becomes a region; on a device, any but a region
  kOverwrite,  // it becomes a region, whatever it was
};

// A region that is open, and what its opening changed.
class RegionFile {
 public:
  // Opens the region, or makes it.  Waits up to 10 s for a daemon whose mount is gone already; with
  // checkpoint= 10 minutes, because that daemon may be writing an image.  `warn` gets sentences
  // about what will go wrong later.  `watch` hears of each page that changes, and outlives this.
  static absl::StatusOr<std::unique_ptr<RegionFile>> Open(
      const MountOptions& options, Existing existing,
      const std::function<void(const std::string&)>& warn, pkram::Watch* watch = nullptr);

  // Goes on in the place of a server that died.  `region` is the descriptor that it had, with its
  // lock. Changes what Region::Open changes, and no size.
  static absl::StatusOr<std::unique_ptr<RegionFile>> TakeOver(const MountOptions& options,
                                                              const pkram::Descriptor& region,
                                                              std::vector<pkram::Receipt*> receipts,
                                                              pkram::Watch* watch = nullptr);

  pkram::Region* region() const { return region_.get(); }
  // Whether this is a copy of an image, which shows the image and must not change.
  bool shows_image() const { return shows_image_; }
  // A path of the region that other processes can use, too, while this process lives.
  const std::string& path() const { return path_; }

  // The filesystem that the options name; made when there is none of that name.
  absl::StatusOr<std::unique_ptr<Filesystem>> OpenFilesystem(const MountOptions& options,
                                                             bool frozen = false);

  // Says that this has succeeded, so what was made stays.  A memfd stays by its holder; a mount,
  // whose own processes have it open, ends that holder.
  enum class For { kMount, kOther };
  absl::Status Keep(For what);
  // Seals and closes.
  absl::Status Close();
  // Without Keep, deletes what was made.
  ~RegionFile();

 private:
  RegionFile() = default;
  absl::Status Prepare(const MountOptions& options, Existing existing,
                       const std::function<void(const std::string&)>& warn, pkram::Watch* watch);
  absl::StatusOr<std::unique_ptr<pkram::Backing>> OpenAndLock(const MountOptions& options);
  absl::StatusOr<std::unique_ptr<pkram::Backing>> OpenAndLockMemfd(const MountOptions& options,
                                                                   std::chrono::seconds patience);
  absl::StatusOr<std::unique_ptr<pkram::Backing>> CopyImage(const MountOptions& options);
  void NamePath(const std::string& path, const pkram::Backing& backing);
  absl::Status WithLoss(const absl::Status& status) const;
  absl::Status RestoreImage(const MountOptions& options, pkram::Backing* backing);
  absl::Status Format(const MountOptions& options, Existing existing, pkram::Backing* backing);

  std::string path_;
  bool created_ = false;  // the file was made here
  bool made_ = false;     // and is to be unmade; or what was there was, and is to be emptied
  bool lost_ = false;     // it held something, which is given up
  bool shows_image_ = false;
  int lock_ = -1;
  bool is_memfd_ = false;  // which Keep has not been called for
  std::unique_ptr<pkram::Region> region_;
};

}  // namespace pkramfs

#endif  // MOUNT_REGION_REGION_FILE_H_
