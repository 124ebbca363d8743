#include "mount/tools/import.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <random>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "fs/check.h"
#include "mount/region/mounts.h"
#include "mount/region/options.h"
#include "mount/region/region_file.h"
#include "mount/serve/control.h"
#include "mount/tools/archive.h"
#include "mount/tools/directory.h"
#include "mount/tools/file_attributes.h"
#include "mount/tools/live_mount.h"
#include "mount/tools/statistics.h"
#include "mount/tools/target.h"
#include "pkram/descriptor.h"
#include "pkram/lender.h"
#include "pkram/parallel.h"

namespace pkramfs {
namespace {

absl::StatusOr<Filesystem::BuiltTree> Build(const ImportOptions& options, pkram::Region* region,
                                            ImportProgress* progress) {
  if (options.sources == std::vector<std::string>{"-"}) {
    return BuildFromArchive(STDIN_FILENO, "standard input", region, progress);
  }
  return BuildTree(options.sources, region, options.threads, progress);
}

absl::Status Exists(const std::string& path) {
  return absl::AlreadyExistsError(
      absl::StrCat(path, " exists: choose another name, or --replace it, or --merge into it"));
}

// --- A region that is mounted ----------------------------------------------------------------

// Moves everything in `from` to `to`, each file in one step.
absl::Status MergeThroughKernel(int from_in, const std::string& from_name, int to_in,
                                const std::string& to_name, const std::string& path) {
  const pkram::Descriptor from(
      openat(from_in, from_name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (from.get() < 0) return Failed(path, errno);
  const pkram::Descriptor to(
      openat(to_in, to_name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (to.get() < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": a directory is to be merged into what is none"));
  }
  struct stat st;
  if (fstat(from.get(), &st) != 0) return Failed(path, errno);
  const absl::StatusOr<std::vector<std::string>> names = ListNames(from.get(), path);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const std::string its_path = absl::StrCat(path, path.ends_with('/') ? "" : "/", name);
    struct stat its;
    if (fstatat(from.get(), name.c_str(), &its, AT_SYMLINK_NOFOLLOW) != 0) {
      return Failed(its_path, errno);
    }
    const bool directory = S_ISDIR(its.st_mode);
    if (renameat2(from.get(), name.c_str(), to.get(), name.c_str(),
                  directory ? RENAME_NOREPLACE : 0) == 0) {
      continue;
    }
    if (!directory || errno != EEXIST) return Failed(its_path, errno);
    absl::Status merged = MergeThroughKernel(from.get(), name, to.get(), name, its_path);
    if (!merged.ok()) return merged;
  }
  const timespec times[] = {st.st_atim, st.st_mtim};
  if (fchown(to.get(), st.st_uid, st.st_gid) != 0 || fchmod(to.get(), st.st_mode & 07777) != 0 ||
      futimens(to.get(), times) != 0) {
    return Failed(path, errno);
  }
  return CopyXattrs(from.get(), to.get(), st.st_mode, path);
}

// Renames the staged tree like any file, so that the kernel knows of it.
absl::Status PlaceThroughKernel(int parent, const std::string& staged, const std::string& name,
                                Filesystem::Placing placing, const std::string& path) {
  if (name.empty()) return MergeThroughKernel(parent, staged, parent, ".", path);
  if (renameat2(parent, staged.c_str(), parent, name.c_str(), RENAME_NOREPLACE) == 0) {
    return absl::OkStatus();
  }
  if (errno != EEXIST) return Failed(path, errno);
  if (placing == Filesystem::Placing::kNew) return Exists(path);
  if (placing == Filesystem::Placing::kMerge) {
    return MergeThroughKernel(parent, staged, parent, name, path);
  }
  if (renameat2(parent, staged.c_str(), parent, name.c_str(), RENAME_EXCHANGE) == 0) {
    return absl::OkStatus();
  }
  return Failed(path, errno);
}

absl::Status ImportIntoMount(const Target& target, const ImportOptions& options,
                             ImportProgress* progress) {
  const std::string path = target.mount->mount_point + target.path;
  const std::string in = absl::StrCat(target.mount->mount_point, target.parent());
  const pkram::Descriptor parent(open(in.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() < 0) return Failed(in, errno);
  struct stat st;
  if (options.placing == Filesystem::Placing::kNew &&
      fstatat(parent.get(), target.path.empty() ? "." : target.name().c_str(), &st,
              AT_SYMLINK_NOFOLLOW) == 0) {
    return Exists(path);
  }
  if (target.region.starts_with("fd=")) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": its region has no path by which it can be opened"));
  }
  absl::StatusOr<std::unique_ptr<pkram::Backing>> backing =
      OpenRegionBacking(target.region, pkram::OpenFor::kWriting);
  if (!backing.ok()) return backing.status();
  MountLender lender(parent.get(), (*backing)->fd(), target.mount->mount_point);
  const auto region = pkram::Region::OpenToBuild(*std::move(backing), &lender);
  if (!region.ok()) return region.status();
  // Asks for a page first, so that a user who may not import is told so.
  if (const absl::StatusOr<pkram::PageRun> run = lender.Lend(1);
      !run.ok() && !absl::IsResourceExhausted(run.status())) {
    return run.status();
  }
  const absl::StatusOr<Filesystem::BuiltTree> tree = Build(options, region->get(), progress);
  if (!tree.ok()) return tree.status();
  ControlStage stage{tree->node.value(), tree->links, tree->inodes, std::random_device()(), {}, {}};
  stage.token = stage.token << 32 | std::random_device()();
  const pid_t server = AskStatistics(parent.get()).value("pid", 0);
  if (ioctl(parent.get(), kControlStage, &stage) != 0) return lender.Refused();
  stage.error[sizeof(stage.error) - 1] = 0;
  stage.name[sizeof(stage.name) - 1] = 0;
  const std::string staged = stage.name;
  // The proof renumbers the tree's pages, so a successor cannot begin it anew.
  if (stage.error[0] != 0 && AskStatistics(parent.get()).value("pid", 0) != server) {
    return absl::UnavailableError(absl::StrCat(
        path, ": the server was replaced while it verified the tree: nothing of it is there: ",
        "import it again"));
  }
  if (stage.error[0] != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", stage.error));
  }
  // In the end, the tree or what it was exchanged for has the secret name.  It is removed like any
  // file, so that the kernel forgets it, and then deleted.
  const absl::Cleanup discard = [&] {
    if (unlinkat(parent.get(), staged.c_str(), AT_REMOVEDIR) != 0 && errno == ENOTDIR) {
      unlinkat(parent.get(), staged.c_str(), 0);
    }
    ControlDiscard discarded{};
    staged.copy(discarded.name, sizeof(discarded.name) - 1);
    ioctl(parent.get(), kControlDiscard, &discarded);
  };
  return PlaceThroughKernel(parent.get(), staged, target.name(), options.placing, path);
}

// --- A region that is not ----------------------------------------------------------------------

absl::Status ImportIntoRegion(const Target& target, const ImportOptions& options,
                              ImportProgress* progress) {
  MountOptions mount;
  mount.region = target.region;
  const absl::StatusOr<std::unique_ptr<RegionFile>> file =
      RegionFile::Open(mount, Existing::kUse, [](const std::string&) {});
  if (!file.ok()) return file.status();
  if (absl::Status s = (*file)->Keep(RegionFile::For::kOther); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<Filesystem>> fs = (*file)->OpenFilesystem(mount);
  if (!fs.ok()) return fs.status();
  const absl::Status imported =
      ImportInto(fs->get(), target.region, target.path, options, progress);
  fs->reset();
  const absl::Status closed = (*file)->Close();
  return imported.ok() ? closed : imported;
}

}  // namespace

absl::Status ImportInto(Filesystem* fs, const std::string& region_path, const std::string& path,
                        const ImportOptions& options, ImportProgress* progress) {
  const std::string whole = absl::StrCat(region_path, ":", path.empty() ? "/" : path);
  Ino parent = kRootIno;
  std::string name;
  for (const absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (!name.empty()) {
      const Result<Attr> found = fs->Lookup(parent, name);
      if (!found.ok()) return Failed(whole, found.error());
      fs->Forget(found->ino, 1);
      parent = found->ino;
    }
    name = std::string(part);
  }
  if (options.placing == Filesystem::Placing::kNew) {
    const Result<Attr> found = name.empty() ? fs->GetAttr(parent) : fs->Lookup(parent, name);
    if (found.ok() && !name.empty()) fs->Forget(found->ino, 1);
    if (found.ok()) return Exists(whole);
  }
  absl::StatusOr<std::unique_ptr<pkram::Backing>> backing =
      OpenRegionBacking(region_path, pkram::OpenFor::kWriting);
  if (!backing.ok()) return backing.status();
  pkram::OwnLender lender(&fs->region().space());
  const auto region = pkram::Region::OpenToBuild(*std::move(backing), &lender);
  if (!region.ok()) return region.status();
  const absl::StatusOr<Filesystem::BuiltTree> tree = Build(options, region->get(), progress);
  if (!tree.ok()) return tree.status();
  Context context;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  context.now = {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
  const absl::Status adopted = fs->AdoptTree(
      context, *tree, parent, name, name.empty() ? Filesystem::Placing::kMerge : options.placing);
  if (absl::IsAlreadyExists(adopted)) return Exists(whole);
  return adopted;
}

absl::Status Import(const ImportOptions& given, ImportProgress* progress) {
  ImportOptions options = given;
  if (options.threads == 0) options.threads = pkram::Processors();
  const absl::StatusOr<Target> target = FindTarget(options.target);
  if (!target.ok()) return target.status();
  if (target->path.empty() && options.placing == Filesystem::Placing::kReplace) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.target, ": the root of a filesystem cannot be replaced: --merge"));
  }
  return target->mount ? ImportIntoMount(*target, options, progress)
                       : ImportIntoRegion(*target, options, progress);
}

}  // namespace pkramfs
