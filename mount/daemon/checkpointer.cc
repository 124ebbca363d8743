#include "mount/daemon/checkpointer.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "mount/daemon/log.h"
#include "pkram/place.h"

namespace pkramfs {

using pkram::Checkpoints;

namespace {

// Whether a file of that name may be an image of the region, as far as the name says.
absl::Status CheckName(const std::string& file, const pkram::Region& region,
                       const std::string& device) {
  const auto refused = [&](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat(file, ": ", why));
  };
  if (file.empty()) {
    return absl::FailedPreconditionError("say which file: the mount has no option checkpoint=FILE");
  }
  if (file.size() > kMaxImagePath) return refused("the path is too long");
  if (file.front() != '/') return refused("not a whole path: the daemon is elsewhere");
  const absl::StatusOr<pkram::Place> place = pkram::FindPlace(file);
  if (absl::IsNotFound(place.status())) {
    return absl::NotFoundError(
        absl::StrCat(std::string(place.status().message()), ": make the directory first"));
  }
  if (!place.ok()) return place.status();
  struct stat st, mine;
  if (fstat(place->directory.get(), &st) == 0 &&
      absl::StrCat(major(st.st_dev), ":", minor(st.st_dev)) == device) {
    return refused("it is on the mount itself: choose a file on a disk");
  }
  if (fstatat(place->directory.get(), place->name.c_str(), &st, 0) == 0 &&
      fstat(region.backing().fd(), &mine) == 0 && st.st_dev == mine.st_dev &&
      st.st_ino == mine.st_ino) {
    return refused("it is the region itself: choose another file");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Checkpointer::Check(const pkram::Region& region) const {
  if (file_.empty() && every_ == 0) return absl::OkStatus();
  if (file_.empty()) {
    return absl::InvalidArgumentError(
        "option checkpoint_every: say where to, too: checkpoint=FILE");
  }
  if (absl::Status s = CheckName(file_, region, ""); !s.ok()) return s;
  return pkram::ImageToReplace(file_, region.super().uuid).status();
}

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

absl::StatusOr<Checkpoints::Made> Checkpointer::MakeOf(const std::string& file,
                                                       const pkram::Progress& progress) {
  if (absl::Status s = CheckName(file, *region_, device_); !s.ok()) return s;
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
