#include "mount/tools/export.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "fs/survivors.h"
#include "mount/region/region_file.h"
#include "mount/serve/control.h"
#include "mount/tools/archive_writer.h"
#include "mount/tools/directory.h"
#include "mount/tools/statistics.h"
#include "mount/tools/target.h"
#include "pkram/descriptor.h"
#include "pkram/page_locks.h"

namespace pkramfs {
namespace {

namespace format = pkram::format;
using pkram::PageRun;
using pkram::PageView;
using pkram::Pfn;

absl::StatusOr<ArchivePtr> OpenOutput(const ExportOptions& options) {
  if (options.directory.empty()) {
    fcntl(options.output, F_SETPIPE_SZ, 1 << 20);  // if it is a pipe
    ArchivePtr tar(archive_write_new());
    // Attributes as GNU tar has them.
    if (archive_write_set_format_pax(tar.get()) != ARCHIVE_OK ||
        archive_write_set_format_option(tar.get(), "pax", "xattrheader", "SCHILY") != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(tar.get(), 1 << 20) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(tar.get(), 1) != ARCHIVE_OK ||
        archive_write_open_fd(tar.get(), options.output) != ARCHIVE_OK) {
      return ArchiveError(tar.get(), "standard output");
    }
    return tar;
  }
  const absl::StatusOr<pkram::Descriptor> directory = OpenEmptyDirectory(options.directory);
  if (!directory.ok()) return directory.status();
  if (fchdir(directory->get()) != 0) return Failed(options.directory, errno);
  ArchivePtr disk(archive_write_disk_new());
  int flags = ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_ACL |
              ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
              ARCHIVE_EXTRACT_SECURE_NODOTDOT;
  if (geteuid() == 0) flags |= ARCHIVE_EXTRACT_OWNER;
  archive_write_disk_set_options(disk.get(), flags);
  return disk;
}

// --- Reading ---------------------------------------------------------------------------------

const SurvivingTree* FilesystemIn(const Survivors& survivors, const std::string& node) {
  for (const SurvivingTree& tree : survivors.trees()) {
    if (tree.filesystem && tree.node == node) return &tree;
  }
  return nullptr;
}

absl::StatusOr<Ino> FindIn(const SurvivingTree& tree, const Target& target,
                           const std::string& shown) {
  Ino ino = kRootIno;
  // A mount may show a directory of the filesystem only.
  const std::string path = absl::StrCat(target.mount ? target.mount->root : "", "/", target.path);
  for (const absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    const auto names = tree.names.find(ino);
    Ino next = 0;
    if (names != tree.names.end()) {
      for (const SurvivingName& name : names->second) {
        if (absl::string_view(name.name.data(), name.name.size()) == part) next = name.ino;
      }
    }
    if (next == 0) return absl::NotFoundError(absl::StrCat(shown, ": is not there"));
    ino = next;
  }
  return ino;
}

// Reads everything that the tree reaches, so that a copying view has it.  Adds its files' pages to
// `data`.
void Touch(const PageView& pages, const SurvivingTree& tree, Ino top, std::vector<PageRun>* data) {
  std::vector<Ino> inos{top};
  while (!inos.empty()) {
    const Ino ino = inos.back();
    inos.pop_back();
    const SurvivingTree::Inode& inode = tree.inodes.at(ino);
    const InodeRecord& record = RecordOf(pages, inode);
    if (const auto names = tree.names.find(ino); names != tree.names.end()) {
      for (const SurvivingName& name : names->second) inos.push_back(name.ino);
      continue;
    }
    if ((record.generation_flags >> 32 & kInlineData) != 0) continue;
    const format::ObjectHeader& header = pages.At<format::Object>(inode.page)->header;
    ForEachPage(pages, header.pages, header.allocated_end,
                [&](std::optional<uint64_t> index, Pfn page) {
                  if (!index) return true;
                  if (!data->empty() && data->back().first + data->back().count == page) {
                    ++data->back().count;
                  } else {
                    data->push_back({page, 1});
                  }
                  return true;
                });
  }
}

// A rest of a mounted region: nothing changes as long as this process wants it.
class Rest {
 public:
  Rest(const std::string& name, int directory, int region)
      : lender_(directory, region, name), directory_(directory), region_(region) {}
  ~Rest() { End(); }

  absl::Status Begin() {
    const absl::StatusOr<PageRun> page = pkram::Borrow(&lender_, region_, 1);
    if (!page.ok()) return page.status();
    page_ = *page;
    server_ = ServerPid();
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    // The token is a word that does not stand there already.
    ControlRest rest{page_.first.value(), static_cast<uint64_t>(getpid()) << 32 ^
                                              static_cast<uint64_t>(now.tv_nsec) ^
                                              static_cast<uint64_t>(now.tv_sec) << 30};
    asks_ = std::thread([this, rest]() mutable {
      if (ioctl(directory_, kControlRest, &rest) != 0) error_ = errno;
      done_ = true;
    });
    uint64_t token = 0;
    while (token != rest.token && !done_) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (pread(region_, &token, sizeof(token), static_cast<off_t>(page_.first.offset())) < 0) {
        token = 0;
      }
    }
    if (token == rest.token) return absl::OkStatus();
    errno = error_ != 0 ? error_.load() : EIO;
    return lender_.Refused();
  }
  // Ends the rest.  False if it did not last until now: if the server has died, its successor
  // begins a new rest, but programs may have changed something in between.
  bool End() {
    if (!asks_.joinable()) return false;
    const bool lasted = !done_ && server_ != 0 && ServerPid() == server_;
    pkram::UnlockPages(region_, page_);
    asks_.join();
    return lasted && error_ == 0;
  }

 private:
  // 0 if nobody says.
  pid_t ServerPid() const { return AskStatistics(directory_).value("pid", 0); }

  MountLender lender_;
  const int directory_, region_;
  PageRun page_;
  std::thread asks_;
  pid_t server_ = 0;
  std::atomic<bool> done_{false};
  std::atomic<int> error_{0};
};

// Joins runs to a few pieces, each of which takes a lock.  Pieces may contain pages that belong to
// nobody.
std::vector<PageRun> Coarse(std::vector<PageRun> runs) {
  constexpr size_t kMost = 1024;
  runs = Merged(std::move(runs));
  if (runs.size() <= kMost) return runs;
  std::vector<uint64_t> gaps;
  for (size_t i = 1; i < runs.size(); ++i) {
    gaps.push_back(runs[i].first.value() - (runs[i - 1].first.value() + runs[i - 1].count));
  }
  std::nth_element(gaps.begin(), gaps.end() - (kMost - 1), gaps.end());
  const uint64_t limit = *(gaps.end() - (kMost - 1));
  std::vector<PageRun> coarse;
  for (const PageRun& run : runs) {
    PageRun* const last = coarse.empty() ? nullptr : &coarse.back();
    const uint64_t end = last == nullptr ? 0 : last->first.value() + last->count;
    if (last != nullptr && run.first.value() - end < limit) {
      last->count = run.first.value() + run.count - last->first.value();
    } else {
      coarse.push_back(run);
    }
  }
  return coarse;
}

absl::Status HoldAll(int directory, int region, const std::vector<PageRun>& data,
                     const std::string& name) {
  for (const PageRun& run : Coarse(data)) {
    const absl::Status locked = pkram::LockPages(region, run, pkram::PageUse::kReading);
    if (locked.ok()) continue;
    return absl::UnavailableError(
        absl::StrCat(name, ": an import is under way: try again when it is done"));
  }
  const std::vector<PageRun> runs = Merged(data);
  const auto hold = std::make_unique<ControlHoldPages>();
  for (size_t at = 0; at < runs.size(); at += hold->count) {
    hold->count = std::min(std::size(hold->run), runs.size() - at);
    for (size_t i = 0; i < hold->count; ++i) {
      hold->run[i] = {runs[at + i].first.value(), runs[at + i].count};
    }
    if (ioctl(directory, kControlHoldPages, hold.get()) != 0) return Failed(name, errno);
    if (hold->kept == 0) return absl::InternalError(absl::StrCat(name, ": pages are not held"));
  }
  return absl::OkStatus();
}

absl::Status Damaged(const std::string& region) {
  return absl::DataLossError(absl::StrCat(region, ": is damaged: `pkramctl check ", region,
                                          "` lists what; its --salvage copies what is intact"));
}

absl::Status ExportOnce(const ExportOptions& options, const Target& target,
                        ImportProgress* progress,
                        const std::function<void(const std::string&)>& skipped, bool* again) {
  // (An exclusive lock needs a descriptor that is open for writing.)
  const auto backing = OpenRegionBacking(
      target.region, target.mount ? pkram::OpenFor::kWriting : pkram::OpenFor::kReading);
  if (!backing.ok()) return backing.status();
  pkram::Descriptor directory(-1);
  std::optional<Rest> rest;
  std::string node = "pkramfs";
  if (target.mount) {
    const std::string& mount_point = target.mount->mount_point;
    directory = pkram::Descriptor(open(mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0) return Failed(mount_point, errno);
    if (syncfs(directory.get()) != 0) return Failed(mount_point, errno);
    node = AskStatistics(directory.get()).value("node", node);
    rest.emplace(mount_point, directory.get(), (*backing)->fd());
    if (absl::Status s = rest->Begin(); !s.ok()) return s;
  }
  Survivors survivors;
  const auto inspect = [&](const PageView& pages, const pkram::Walk& walk) -> absl::Status {
    if (!walk.problems().empty()) return Damaged(target.region);
    const SurvivingTree* const tree = FilesystemIn(survivors, node);
    if (tree == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(target.region, ": holds no filesystem"));
    }
    const absl::StatusOr<Ino> top = FindIn(*tree, target, options.source);
    if (!top.ok()) return top.status();
    PageView copies = pages.Copying();
    if (rest) {
      std::vector<PageRun> data;
      Touch(copies, *tree, *top, &data);
      const absl::Status held =
          HoldAll(directory.get(), (*backing)->fd(), data, target.mount->mount_point);
      copies.StopCopying();
      if (!rest->End()) {
        *again = true;
        return absl::UnavailableError("the server died meanwhile");
      }
      if (!held.ok()) return held;
    }
    absl::StatusOr<ArchivePtr> out = OpenOutput(options);
    if (!out.ok()) return out.status();
    ArchiveWriter writer(rest ? copies : pages, *tree, out->get(), progress, skipped);
    if (absl::Status s = writer.Write(*top, target.name()); !s.ok()) return s;
    if (archive_write_close(out->get()) != ARCHIVE_OK) {
      return ArchiveError(out->get(), "the archive");
    }
    // Writing into the directory has changed its times.
    if (!options.directory.empty()) writer.SetTimes(*top);
    return absl::OkStatus();
  };
  using Locking = pkram::Region::Locking;
  const absl::StatusOr<pkram::Region::Report> report = pkram::Region::Check(
      backing->get(), &survivors, inspect, rest ? Locking::kAtRest : Locking::kShared);
  return report.status();
}

}  // namespace

absl::Status Export(const ExportOptions& options, ImportProgress* progress,
                    const std::function<void(const std::string&)>& skipped) {
  const absl::StatusOr<Target> target = FindTarget(options.source);
  if (!target.ok()) return target.status();
  for (;;) {
    bool again = false;
    const absl::Status done = ExportOnce(options, *target, progress, skipped, &again);
    if (!again) return done;
  }
}

}  // namespace pkramfs
