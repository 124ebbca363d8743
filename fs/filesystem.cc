// Opens a filesystem, and has what concerns the whole of it.  Attributes, contents, names and trees
// are in attributes.cc, contents.cc, names.cc and trees.cc.
#include "fs/filesystem.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/link_builder.h"
#include "pkram/link_list.h"

namespace pkramfs {

namespace format = pkram::format;
using pkram::Pfn;
using pkram::ReaderLock;

namespace {

// A node with a root directory and nothing else, published in one store.
absl::StatusOr<Pfn> MakeFilesystem(pkram::Region* region, const Filesystem::Options& options,
                                   Timestamp now) {
  const absl::StatusOr<Pfn> node = region->space().AllocateMetadata();
  if (!node.ok()) return node.status();
  const absl::StatusOr<Pfn> root = region->space().AllocateMetadata();
  pkram::LinkBuilder table(region);
  absl::Status s = root.ok() ? table.Append(0, format::MakeHole()) : root.status();
  if (s.ok()) s = table.Append(kRootIno, format::MakeEntry(*root));
  if (s.ok()) {
    FillInode(region->mapping().WritableAt<format::Object>(*root),
              {.mode = S_IFDIR | (options.root_mode & 07777),
               .uid = options.root_uid,
               .gid = options.root_gid,
               .parent = kRootIno,
               .target = {},
               .now = now},
              0);
    auto* page = region->mapping().WritableAt<format::Node>(*node);
    page->state = format::kLive;
    page->client[0] = kFsMagic;
    page->client[1] = kFsVersion;
    std::copy(options.node.begin(), options.node.end(), page->name);
    std::vector<pkram::PageRun> built;
    page->objects = table.Finish(&built);
    return region->PublishNode(*node).ok() ? *node : Pfn();
  }
  region->space().Discard({*node, 1});
  if (root.ok()) region->space().Discard({*root, 1});
  return s;
}

// Says why the node cannot be mounted.
absl::Status IsFilesystem(const format::Node& node) {
  if (node.state != format::kLive || node.client[0] != kFsMagic) {
    return absl::FailedPreconditionError(absl::StrCat(
        "node '", node.name, "' of the region holds no filesystem: choose another with pkram="));
  }
  if (node.client[1] != kFsVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("node '", node.name, "' holds a filesystem of version ", node.client[1],
                     "; this program knows ", kFsVersion, ": use a newer pkramfs"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Filesystem>> Filesystem::Open(pkram::Region* region,
                                                             const Options& options,
                                                             Timestamp now) {
  if (absl::Status s = pkram::CheckNodeName(options.node); !s.ok()) return s;
  if (absl::Status s = region->TakeName(options.node); !s.ok()) return s;
  Pfn node = region->FindNode(options.node);
  absl::Status s;
  if (!node) {
    absl::StatusOr<Pfn> made = MakeFilesystem(region, options, now);
    s = made.status();
    if (made.ok()) node = *made;
  }
  if (s.ok()) s = IsFilesystem(*region->mapping().At<format::Node>(node));
  if (!s.ok()) {
    region->ReturnName(options.node);
    return s;
  }
  std::unique_ptr<Filesystem> fs(new Filesystem(region, options, node));
  if (options.frozen) fs->Freeze();
  fs->ReclaimOrphans();
  if (!options.frozen) fs->DeleteDoomed(std::exchange(fs->doomed_, {}));
  fs->root_ = fs->cache_.Get(kRootIno);
  return fs;
}

absl::Status Filesystem::CheckNode(const pkram::PageView& pages, const pkram::Walk& walk,
                                   const std::string& node) {
  for (const pkram::NodeCounts& found : walk.nodes()) {
    if (found.name == node) return IsFilesystem(*pages.At<format::Node>(found.pfn));
  }
  return absl::OkStatus();
}

Filesystem::Filesystem(pkram::Region* region, const Options& options, Pfn node)
    : region_(region),
      node_name_(options.node),
      inodes_follow_pages_(options.max_inodes == 0),
      table_(region, node,
             options.max_inodes == 0 ? region->space().counts().total : options.max_inodes),
      cache_(region, &table_, [this](const Inode& inode) { Reclaim(inode); }) {}

Filesystem::~Filesystem() {
  Thaw();
  region_->ReturnName(node_name_);
}

// Inodes without links that a dead mount still had open.  (One that is taken over has them open.)
void Filesystem::ReclaimOrphans() {
  for (const Ino ino : table_.All()) {
    const Inode inode(region_, ino, table_.PageOf(ino));
    if (IsDoomed(inode)) {
      const StagedAt at = StagedAt::Of(inode.record());
      if (IsBuilderHere(at.node)) {
        AddStaged(cache_.GetOrphan(ino), at);
      } else {
        doomed_.push_back(ino);
      }
    } else if (inode.nlink() == 0 && inode.lookups() == 0) {
      Reclaim(inode);
    }
  }
}

// The kernel's forgets cannot wait for a thaw.  So the inodes that they free wait.  Nobody gets at
// such an inode meanwhile: the cache refuses inodes without links and lookups.
void Filesystem::Reclaim(const Inode& inode) {
  {
    pkram::MutexLock lock(&deferred_mu_);  // who thaws sees all that was put off
    if (!gate_.TryEnter()) {
      deferred_.push_back(inode.ino());
      return;
    }
  }
  ReclaimNow(inode);
  gate_.Leave();
}

bool Filesystem::Thaw() {
  {
    pkram::MutexLock lock(&deferred_mu_);
    if (!gate_.Open()) return false;
  }
  ReclaimDeferred();
  DeleteDoomed(std::exchange(doomed_, {}));
  return true;
}

void Filesystem::AtRest(const std::function<void()>& fn) {
  gate_.AtRest(fn);
  ReclaimDeferred();
}

// Inodes that are put off again, because it is frozen again, wait for the next thaw.
void Filesystem::ReclaimDeferred() {
  std::vector<Ino> deferred;
  {
    pkram::MutexLock lock(&deferred_mu_);
    deferred.swap(deferred_);
  }
  // A doomed directory may have been put off again when it was empty.
  std::sort(deferred.begin(), deferred.end());
  deferred.erase(std::unique(deferred.begin(), deferred.end()), deferred.end());
  // Another thread may have it in use by now, and will let it go later.  Or the number is another
  // inode's.
  for (const Ino ino : deferred) cache_.GetOrphan(ino);
}

// (A doomed directory whose contents could not be deleted stays for the next mount.)
void Filesystem::ReclaimNow(const Inode& inode) {
  if (IsDoomed(inode)) return;
  table_.Clear(inode.ino(), inode.generation());
  pkram::Retiring retiring(&region_->space());
  pkram::CollectObject(region_->mapping(), inode.page(), &retiring);
}

Result<Attr> Filesystem::ReplyWith(const InodeRef& inode) {
  cache_.AddLookup(inode);
  ReaderLock lock(&inode->mu);
  return inode->GetAttr();
}

absl::Status Filesystem::Resize(std::optional<uint64_t> region_pages,
                                std::optional<uint64_t> max_inodes) {
  const Gate::Pass pass(&gate_);
  if (max_inodes && *max_inodes != 0 && *max_inodes < table_.used()) {
    return absl::OutOfRangeError(absl::StrCat(
        "nr_inodes=", *max_inodes, " is too few: ", table_.used(), " are in use: choose more"));
  }
  if (region_pages) {
    if (absl::Status s = region_->Resize(*region_pages); !s.ok()) return s;
  }
  if (max_inodes) inodes_follow_pages_ = *max_inodes == 0;
  if (inodes_follow_pages_) {
    table_.set_limit(region_->space().counts().total);
  } else if (max_inodes) {
    table_.set_limit(*max_inodes);
  }
  return absl::OkStatus();
}

FsStats Filesystem::StatFs() const {
  region_->space().FollowBacking();
  const pkram::Space::Counts counts = region_->space().counts();
  FsStats stats;
  // A region is larger than the contents that it can hold, by what its lists and its journal take.
  stats.pages = pkram::Region::ContentPages(counts.total);
  const uint64_t fixed = region_->super().journal_first + region_->super().journal_slots;
  const uint64_t used = counts.total - counts.free - counts.reserved - fixed;
  stats.free_pages = std::min(counts.free, stats.pages - std::min(stats.pages, used));
  // An inode costs a page, so there may be fewer than the limit when space is short.
  stats.used_inodes = table_.used();
  stats.free_inodes =
      std::min(table_.limit() - std::min(table_.limit(), stats.used_inodes), counts.free);
  stats.inodes = stats.used_inodes + stats.free_inodes;
  return stats;
}

}  // namespace pkramfs
