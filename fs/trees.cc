// Operations on whole trees: a tree that was built elsewhere comes in, and a tree that nobody needs
// any more is deleted.
//
// Both go through a *doomed* directory: one that has no links and is not empty.  Nothing leads to
// it.  It is deleted, with what is in it.  If this process dies before that, the next mount deletes
// it.  (A tree that is staged is in one, too.  The next server of the mount finds it by what the
// directory notes, and keeps it as long as the process that has built it.)
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "fs/acl.h"
#include "fs/adoption.h"
#include "fs/directory.h"
#include "fs/filesystem.h"
#include "fs/lock_set.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

namespace pkramfs {

namespace {

absl::Status Refusal(const Errno& error, const std::string& path) {
  switch (error.value) {
    case EEXIST:
      return absl::AlreadyExistsError(absl::StrCat(path, " exists"));
    case ENOENT:
    case ESTALE:
      return absl::NotFoundError(absl::StrCat("the directory of ", path, " is gone"));
    case ENOSPC:
      return absl::ResourceExhaustedError(absl::StrCat(path, ": no space is left"));
    default:
      return absl::FailedPreconditionError(absl::StrCat(path, ": ", std::strerror(error.value)));
  }
}

}  // namespace

// --- Adoption -----------------------------------------------------------------------

absl::StatusOr<InodeRef> Filesystem::Adopt(const BuiltTree& tree, const StagedAt& at) {
  pkram::MutexLock lock(&adoption_mu_);
  pkram::Loans& loans = region_->space().loans();
  loans.BeginAdoption();
  const absl::Cleanup end = [&loans] { loans.EndAdoption(); };
  constexpr uint64_t kMostLinks = pkram::format::kMaxPages / pkram::format::kLinkEntries;
  if (tree.links == 0 || tree.links > kMostLinks || tree.inodes == 0 ||
      tree.inodes > tree.links * pkram::format::kLinkEntries) {
    return absl::DataLossError("the tree is not sound: it has no table");
  }
  // Reserves no more numbers than the lent pages can hold inodes.
  if (tree.links + tree.inodes > loans.counts().lent) {
    return absl::FailedPreconditionError("its pages are not lent");
  }
  const Result<InodeTable::Block> block = [&] {
    const Gate::Pass pass(&gate_);
    return table_.ReserveBlock(tree.links, tree.inodes);
  }();
  if (!block.ok()) {
    return absl::ResourceExhaustedError("no space is left, or no inodes: see df and df -i");
  }
  absl::Cleanup give_back = [&] { table_.ReturnBlock(*block); };
  // Nobody sees anything of this, so it may take its time, also while the filesystem is frozen.
  const absl::StatusOr<ProvenTree> proven =
      ProveTree(region_, tree.node, tree.links, tree.inodes, block->base(), at,
                [&](Ino slot) { return table_.NextGeneration(slot); });
  if (!proven.ok()) return proven.status();
  const Gate::Pass pass(&gate_);
  // From here on these pages belong to the filesystem, as new ones.
  std::vector<pkram::PageRun> all = proven->metadata;
  all.insert(all.end(), proven->data.begin(), proven->data.end());
  if (!loans.Adopt(all)) return absl::FailedPreconditionError("its pages are not lent");
  for (const pkram::PageRun& run : all) region_->mapping().WritableRun(run);  // for who watches
  pkram::Depot& depot = region_->space().depot();
  for (const pkram::PageRun& run : proven->metadata) depot.Adopt(run, pkram::Purpose::kMetadata);
  for (const pkram::PageRun& run : proven->data) depot.Adopt(run, pkram::Purpose::kData);
  table_.ReplaceBlock(*block, proven->first_link, proven->last_link);
  std::move(give_back).Cancel();
  return cache_.GetOrphan(block->base() + kRootIno);
}

// REQUIRES: nobody but `staged` has the directory in use, or it is empty.
void Filesystem::Discard(InodeRef staged) { DeleteDoomed({staged->ino()}); }

absl::Status Filesystem::AdoptTree(const Context& context, const BuiltTree& tree, Ino parent,
                                   std::string_view name, Placing placing) {
  if (Outcome(context)) return absl::OkStatus();
  absl::StatusOr<InodeRef> staged = Adopt(tree, {});
  if (!staged.ok()) return staged.status();
  const absl::Status placed = Place(context, (*staged)->ino(), parent, name, placing);
  Discard(*std::move(staged));
  return placed;
}

std::string Filesystem::StagedName(uint64_t token) {
  return absl::StrCat(".pkramfs-staged-", absl::Hex(token, absl::kZeroPad16));
}

absl::Status Filesystem::StageTree(const BuiltTree& tree, Ino parent, uint64_t token) {
  {
    // The server that was asked for this first may have done it before it died.
    pkram::MutexLock lock(&staged_mu_);
    for (const Staged& it : staged_) {
      if (it.at.node == tree.node && it.at.token == token) return absl::OkStatus();
    }
  }
  const StagedAt at{tree.node, parent, token};
  absl::StatusOr<InodeRef> staged = Adopt(tree, at);
  if (!staged.ok()) return staged.status();
  AddStaged(*std::move(staged), at);
  return absl::OkStatus();
}

void Filesystem::AddStaged(InodeRef ref, const StagedAt& at) {
  pkram::MutexLock lock(&staged_mu_);
  staged_.push_back({std::move(ref), at, StagedName(at.token)});
  any_staged_ = true;
}

// Whether the process that has built a node has it locked.
bool Filesystem::IsBuilderHere(pkram::Pfn node) const {
  if (node.value() == 0 || node.value() >= region_->super().page_count) return false;
  const auto locked = pkram::FindLockedPages(region_->backing().fd(), {node, 1});
  return !locked.empty() && locked.front().use == pkram::PageUse::kBuilding;
}

void Filesystem::DiscardStaged(Ino parent, std::string_view name) {
  if (!any_staged_) return;
  std::vector<Staged> discarded;
  std::vector<InodeRef> removed;
  {
    pkram::MutexLock lock(&staged_mu_);
    for (size_t i = 0; i < staged_.size();) {
      Staged& it = staged_[i];
      if ((it.at.parent != parent || it.name != name) && IsBuilderHere(it.at.node)) {
        ++i;
        continue;
      }
      discarded.push_back(std::move(it));
      if (i + 1 < staged_.size()) it = std::move(staged_.back());
      staged_.pop_back();
    }
    any_staged_ = !staged_.empty();
    removed.swap(removed_);
  }
  for (const InodeRef& it : removed) DeleteDoomed({it->ino()});
  for (Staged& it : discarded) Discard(std::move(it.ref));
}

void Filesystem::Recheck() {
  // Trees first: their nodes' pages may be lent again after that.
  if (any_staged_ && gate_.TryEnter()) {
    gate_.Leave();
    DiscardStaged(0, "");
  }
  region_->space().RecheckLoans();
}

// DiscardStaged deletes its contents.
void Filesystem::NoteDoomed(InodeRef inode) {
  pkram::MutexLock lock(&staged_mu_);
  removed_.push_back(std::move(inode));
}

// A process that dies loses its lock, so the rest ends with it.  (A process that is killed while it
// waits for the answer to this request keeps its lock until it has the answer.)
bool Filesystem::RestWhileLocked(pkram::Pfn page, uint64_t token,
                                 const std::function<bool()>& ends) {
  constexpr std::chrono::minutes kMost{5};
  const pkram::PageRun run{page, 1};
  pkram::Loans& loans = region_->space().loans();
  loans.BeginAdoption();  // it stays lent
  const absl::Cleanup end = [&loans] { loans.EndAdoption(); };
  const auto is_lent = [&] { return loans.Keep({&run, 1}, pkram::PageUse::kBuilding); };
  if (!is_lent() || !region_->MakeExist(run).ok()) return false;
  bool rested = false;
  AtRest([&] {
    if (!is_lent()) return;
    rested = true;
    const pkram::Mapping& mapping = region_->mapping();
    std::atomic_ref(*mapping.Unwatched(mapping.At<uint64_t>(page))).store(token);
    const auto note = [this](bool rests) {
      pkram::MutexLock lock(&rest_mu_);
      rests_for_another_ = rests;
    };
    note(true);
    const auto deadline = std::chrono::steady_clock::now() + kMost;
    while (!pkram::FindLockedPages(region_->backing().fd(), run).empty() && !ends() &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    note(false);
  });
  return rested;
}

// Pages are held only during a rest.  A change of a file looks once, under the inode's lock,
// whether the file's pages are held; during a rest no change is under way.
bool Filesystem::HoldAtRest(absl::Span<const pkram::PageRun> runs) {
  pkram::MutexLock lock(&rest_mu_);
  return rests_for_another_ && region_->space().loans().HoldLocked(runs);
}

// If the name is that of a staged tree, returns the directory in which the tree stands, and changes
// `name` to the name that it has there.
Ino Filesystem::ThroughStaged(Ino parent, std::string_view* name) {
  if (!any_staged_) return parent;
  pkram::MutexLock lock(&staged_mu_);
  for (const Staged& it : staged_) {
    if (it.at.parent != parent || it.name != *name) continue;
    *name = kTreeName;
    return it.ref->ino();
  }
  return parent;
}

absl::Status Filesystem::Place(const Context& context, Ino staging, Ino parent,
                               std::string_view name, Placing placing) {
  const std::string path(name);
  const auto move = [&](uint32_t flags) {
    const Result<void> moved = Rename(context, staging, kTreeName, parent, name, flags);
    return moved.ok() ? absl::OkStatus() : Refusal(moved.as_errno(), path);
  };
  if (!name.empty()) {
    const absl::Status placed = move(RENAME_NOREPLACE);
    if (placing == Placing::kNew || !absl::IsAlreadyExists(placed)) return placed;
    if (placing == Placing::kReplace) return move(RENAME_EXCHANGE);
  }
  const auto find = [&](Ino directory, std::string_view entry) -> Result<InodeRef> {
    Result<InodeRef> got = GetDirectory(directory);
    return got.ok() ? FindChild((*got).get(), entry) : got.as_errno();
  };
  const Result<InodeRef> from = find(staging, kTreeName);
  const Result<InodeRef> to = name.empty() ? GetDirectory(parent) : find(parent, name);
  if (!from.ok()) return Refusal(from.as_errno(), path);
  if (!to.ok()) return Refusal(to.as_errno(), path);
  if (!(*from)->is_directory() || !(*to)->is_directory()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": only a directory can be merged into a directory"));
  }
  return Merge(context, (*from)->ino(), (*to)->ino(), path);
}

// Moves everything in `from` to `to`, and gives `to` the attributes of `from`.
absl::Status Filesystem::Merge(const Context& context, Ino from, Ino to, const std::string& path) {
  struct Entry {
    std::string name;
    Ino ino;
    bool is_directory;
  };
  Context step = context;  // one of many
  step.receipt = nullptr;
  const Result<Attr> attr = GetAttr(from);
  if (!attr.ok()) return Refusal(attr.as_errno(), path);
  std::vector<Entry> entries;
  const Result<void> listed = ReadDirectory(from, 2, [&](const DirEntry& entry) {
    entries.push_back({std::string(entry.name), entry.ino, entry.type << 12 == S_IFDIR});
    return true;
  });
  if (!listed.ok()) return Refusal(listed.as_errno(), path);
  for (const Entry& entry : entries) {
    const std::string its_path = path.empty() ? entry.name : absl::StrCat(path, "/", entry.name);
    Result<void> moved =
        Rename(step, from, entry.name, to, entry.name, entry.is_directory ? RENAME_NOREPLACE : 0);
    if (moved.ok()) continue;
    const Result<InodeRef> target_of = GetDirectory(to);
    Result<InodeRef> target =
        target_of.ok() ? FindChild((*target_of).get(), entry.name) : target_of.as_errno();
    if (!entry.is_directory || moved.error() != EEXIST || !target.ok() ||
        !(*target)->is_directory()) {
      const bool kinds = target.ok() && (*target)->is_directory() != entry.is_directory;
      if (!kinds) return Refusal(moved.as_errno(), its_path);
      return absl::FailedPreconditionError(
          absl::StrCat(its_path, ": is ", entry.is_directory ? "no directory" : "a directory",
                       " there, and ", entry.is_directory ? "one" : "none", " in what is merged"));
    }
    absl::Status merged = Merge(step, entry.ino, (*target)->ino(), its_path);
    if (!merged.ok()) return merged;
  }
  AttrChange change;
  change.what = AttrChange::kSetMode | AttrChange::kSetUid | AttrChange::kSetGid |
                AttrChange::kSetAtime | AttrChange::kSetMtime;
  change.mode = attr->mode & 07777;
  change.uid = attr->uid;
  change.gid = attr->gid;
  change.atime = attr->atime;
  change.mtime = attr->mtime;
  const Result<Attr> set = SetAttr(step, to, change);
  if (!set.ok()) return Refusal(set.as_errno(), path);
  const Result<void> copied = CopyXattrs(step, from, to);
  return copied.ok() ? absl::OkStatus() : Refusal(copied.as_errno(), path);
}

// `to` gets the attributes of `from`.  It loses an ACL that `from` does not have: an ACL says who
// may do what, as the mode does.
Result<void> Filesystem::CopyXattrs(const Context& context, Ino from, Ino to) {
  const Result<std::string> names = ListXattrs(context, from);
  if (!names.ok()) return names.as_errno();
  for (const std::string& name :
       std::vector<std::string>(absl::StrSplit(*names, '\0', absl::SkipEmpty()))) {
    const Result<std::string> value = GetXattr(from, name);
    if (!value.ok()) return value.as_errno();
    Result<void> set = SetXattr(context, to, name, *value, 0);
    if (!set.ok()) return set;
  }
  for (const std::string_view acl : {kAccessAcl, kDefaultAcl}) {
    if (GetXattr(from, acl).ok()) continue;
    Result<void> removed = RemoveXattr(context, to, acl);
    if (!removed.ok() && removed.error() != ENODATA) return removed;
  }
  return {};
}

// --- Deletion -----------------------------------------------------------------------

bool Filesystem::IsDoomed(const Inode& inode) const {
  if (inode.nlink() != 0 || !inode.is_directory()) return false;
  return inode.size() > DirectorySize(0);
}

// Takes all names out of a doomed directory.  Subdirectories lose their links with their contents,
// so a process that is in one cannot make anything there any more.  Returns these subdirectories.
std::vector<Ino> Filesystem::DoomContents(Ino ino) {
  std::vector<Ino> subdirectories;
  const InodeRef directory = cache_.GetOrphan(ino);
  if (!directory || directory->nlink() != 0) return subdirectories;
  for (;;) {
    const Gate::Pass pass(&gate_);
    std::vector<std::pair<std::string, Ino>> names;
    const Result<void> listed = ReadDirectory(ino, 2, [&](const DirEntry& entry) {
      names.emplace_back(entry.name, entry.ino);
      return names.size() < 1024;
    });
    if (!listed.ok() || names.empty()) return subdirectories;
    for (const auto& [name, child] : names) {
      const InodeRef inode = cache_.Get(child);
      if (!inode) continue;
      const LockSet locks({directory.get(), inode.get()});
      directory->mu.AssertHeld();
      inode->mu.AssertHeld();
      // A process that is in there may have taken it out.
      const auto now = directory->directory().Find(name);
      if (!now || now->ino != child) continue;
      Change change(region_, Context{});
      directory->directory().Remove(&change, name);
      const uint32_t links = inode->is_directory() ? inode->nlink() : 1;
      change.AddLinks(inode.get(), -static_cast<int32_t>(links));
      change.Commit();
      if (IsDoomed(*inode.get())) subdirectories.push_back(child);
    }
  }
}

void Filesystem::DeleteDoomed(std::vector<Ino> doomed) {
  while (!doomed.empty()) {
    const Ino ino = doomed.back();
    doomed.pop_back();
    std::vector<Ino> more = DoomContents(ino);
    doomed.insert(doomed.end(), more.begin(), more.end());
  }
}

}  // namespace pkramfs
