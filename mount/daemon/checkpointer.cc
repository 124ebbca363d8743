#include "mount/daemon/checkpointer.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "mount/daemon/log.h"

namespace pkramfs {

using pkram::Checkpoints;

void Checkpointer::Start(Filesystem* fs, pkram::Region* region, const std::string& where,
                         const std::string& device) {
  fs_ = fs;
  region_ = region;
  where_ = where;
  device_ = device;
  if (every_ != 0) timer_ = std::thread([this] { MakeNowAndThen(); });
}

void Checkpointer::Stop() {
  {
    pkram::MutexLock lock(&mu_);
    ends_ = true;
    changed_.NotifyAll();
  }
  if (timer_.joinable()) timer_.join();
}

void Checkpointer::MakeNowAndThen() {
  const auto ends = [this] {
    pkram::MutexLock lock(&mu_);
    return ends_;
  };
  bool failed = false;
  for (;;) {
    {
      const auto next = std::chrono::steady_clock::now() + std::chrono::seconds(every_);
      pkram::MutexLock lock(&mu_);
      while (!ends_ && std::chrono::steady_clock::now() < next) changed_.WaitUntil(&mu_, next);
      if (ends_) return;
    }
    const auto made = Make("", [&](uint64_t, uint64_t) { return !ends(); });
    // Once, until it works again.
    const bool fails = !made.ok() && !absl::IsCancelled(made.status());
    if (fails && !failed) {
      Log(LOG_ERR, absl::StrCat(where_, ": no checkpoint: ", std::string(made.status().message())));
    }
    if (made.ok() && failed) Log(LOG_INFO, absl::StrCat(where_, ": a checkpoint was made again"));
    failed = made.ok() ? false : failed || fails;
  }
}

absl::Status Checkpointer::Check(const std::string& file) const {
  const auto refused = [&](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat(file, ": ", why));
  };
  if (file.empty()) {
    return absl::FailedPreconditionError("say which file: the mount has no option checkpoint=FILE");
  }
  if (file.size() > kMaxImagePath) return refused("the path is too long");
  if (file.front() != '/') return refused("not a whole path: the daemon is elsewhere");
  const std::string directory = file.substr(0, file.rfind('/') + 1);
  struct stat st, region;
  if (stat(directory.c_str(), &st) != 0) {
    return refused(absl::StrCat(std::strerror(errno), ": make the directory first"));
  }
  if (absl::StrCat(major(st.st_dev), ":", minor(st.st_dev)) == device_) {
    return refused("it is on the mount itself: choose a file on a disk");
  }
  if (stat(file.c_str(), &st) == 0 && fstat(region_->backing().fd(), &region) == 0 &&
      st.st_dev == region.st_dev && st.st_ino == region.st_ino) {
    return refused("it is the region itself: choose another file");
  }
  if (absl::Status s = pkram::MayReplace(file, region_->super().uuid); !s.ok()) return s;
  struct statvfs disk;
  const uint64_t needed = region_->space().counts().InUse() * pkram::kPageSize +
                          region_->super().page_count * sizeof(uint32_t);
  const CheckpointState last = state();
  const bool adds = last.file == file && last.error.empty();  // and takes what has changed
  if (!adds && statvfs(directory.c_str(), &disk) == 0 && disk.f_bavail * disk.f_frsize < needed) {
    return absl::ResourceExhaustedError(
        absl::StrCat(file, ": ", Human(disk.f_bavail * disk.f_frsize),
                     " are free on the disk, and the image takes ", Human(needed),
                     " beside the one that is there"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoints::Made> Checkpointer::MakeOf(const std::string& file,
                                                       const pkram::Progress& progress) {
  if (absl::Status s = Check(file); !s.ok()) return s;
  const absl::StatusOr<std::unique_ptr<pkram::Disk>> disk = pkram::OpenDisk(file);
  if (!disk.ok()) return disk.status();
  return checkpoints_.Make(
      region_, [this](const std::function<void()>& fn) { fs_->AtRest(fn); }, file, disk->get(),
      [&](uint64_t done, uint64_t of) {
        {
          pkram::MutexLock lock(&mu_);
          state_.done = done;
          state_.of = of;
        }
        return progress(done, of);
      });
}

absl::StatusOr<Checkpoints::Made> Checkpointer::Make(const std::string& file,
                                                     const pkram::Progress& progress) {
  const std::string& name = file.empty() ? file_ : file;
  const absl::StatusOr<Checkpoints::Made> made = MakeOf(name, progress);
  if (absl::IsUnavailable(made.status())) return made;  // of another one it says nothing
  pkram::MutexLock lock(&mu_);
  state_.done = state_.of = 0;
  state_.error = std::string(made.status().message());
  if (!made.ok()) return made;
  state_.file = name;
  state_.seconds = std::time(nullptr);
  state_.made = *made;
  return made;
}

CheckpointState Checkpointer::state() const {
  CheckpointState state;
  {
    pkram::MutexLock lock(&mu_);
    state = state_;
  }
  if (!state.file.empty()) state.changed = checkpoints_.Changed();
  return state;
}

}  // namespace pkramfs
