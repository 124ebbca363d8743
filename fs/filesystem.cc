// Opening a filesystem, and what concerns one inode, its extended attributes
// included.  What concerns names is in names.cc.
#include "fs/filesystem.h"

#include <sys/xattr.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/directory.h"
#include "fs/file_data.h"
#include "fs/xattrs.h"
#include "pkram/link_builder.h"
#include "pkram/link_list.h"

namespace pkramfs {

namespace format = pkram::format;
using pkram::Pfn;
using pkram::ReaderLock;
using pkram::WriterLock;

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
absl::Status CheckNode(const format::Node& node) {
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
  if (s.ok()) s = CheckNode(*region->mapping().At<format::Node>(node));
  if (!s.ok()) {
    region->ReturnName(options.node);
    return s;
  }
  std::unique_ptr<Filesystem> fs(new Filesystem(region, options, node));
  fs->ReclaimOrphans();
  fs->root_ = fs->cache_.Get(kRootIno);
  return fs;
}

Filesystem::Filesystem(pkram::Region* region, const Options& options, Pfn node)
    : region_(region),
      node_name_(options.node),
      table_(region, node,
             options.max_inodes == 0 ? region->super().page_count : options.max_inodes),
      cache_(region, &table_, [this](const Inode& inode) { Reclaim(inode); }) {}

Filesystem::~Filesystem() { region_->ReturnName(node_name_); }

// Inodes without links that a dead mount still had open.
void Filesystem::ReclaimOrphans() {
  for (const Ino ino : table_.All()) {
    const Inode inode(region_, ino, table_.PageOf(ino));
    if (inode.nlink() == 0) Reclaim(inode);
  }
}

void Filesystem::Reclaim(const Inode& inode) {
  std::vector<pkram::PageRun> runs;
  pkram::CollectObject(region_->mapping(), inode.page(), &runs);
  table_.Clear(inode.ino(), inode.generation());
  region_->space().Retire(std::move(runs));
}

Result<Attr> Filesystem::ReplyWith(const InodeRef& inode) {
  cache_.AddLookup(inode);
  ReaderLock lock(&inode->mu);
  return inode->GetAttr();
}

Result<Attr> Filesystem::GetAttr(Ino ino) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  return inode->GetAttr();
}

// What a change of contents or owner takes away: set-id bits from those who may
// not keep them, capabilities from everybody.
Result<void> Filesystem::DropPrivileges(const Context& context, Inode* inode, Change* change,
                                        bool mode_too) {
  constexpr std::string_view kCapability = "security.capability";
  const uint32_t mode = inode->mode();
  uint32_t drop = 0;
  if (mode_too || context.uid != 0) {
    drop = mode & S_ISUID;
    if ((mode & S_IXGRP) != 0) drop |= mode & S_ISGID;
  }
  Xattrs xattrs(region_, inode);
  if (!xattrs.empty() && xattrs.Get(kCapability)) {
    if (const auto removed = xattrs.Set(change, kCapability, std::nullopt); !removed.ok()) {
      return removed;
    }
  }
  if (drop != 0) change->SetMode(inode, mode & ~drop);
  return {};
}

Result<Attr> Filesystem::SetAttr(const Context& context, Ino ino, const AttrChange& wanted) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  WriterLock lock(&inode->mu);
  const uint32_t what = wanted.what;
  const bool resize = (what & AttrChange::kSetSize) != 0;
  const bool chown = (what & (AttrChange::kSetUid | AttrChange::kSetGid)) != 0;
  if (resize && inode->is_directory()) return Errno{EISDIR};
  if (resize && !inode->is_regular()) return Errno{EINVAL};
  if (resize && wanted.size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Errno{EFBIG};
  }
  Change change(region_);
  if (!inode->is_directory() && (resize || chown)) {
    if (const auto r = DropPrivileges(context, inode.get(), &change, chown); !r.ok()) {
      return r.as_errno();
    }
  }
  if (resize) {
    if (const auto r = FileData(region_, inode.get()).Resize(&change, wanted.size); !r.ok()) {
      return r.as_errno();
    }
    change.SetTime(inode.get(), kMtime, context.now);
  }
  if ((what & AttrChange::kSetMode) != 0) {
    change.SetMode(inode.get(), (inode->mode() & S_IFMT) | (wanted.mode & 07777));
  }
  if (chown) {
    const uint64_t owner = inode->record().owner;
    change.SetOwner(
        inode.get(), (what & AttrChange::kSetUid) != 0 ? wanted.uid : static_cast<uint32_t>(owner),
        (what & AttrChange::kSetGid) != 0 ? wanted.gid : static_cast<uint32_t>(owner >> 32));
  }
  if ((what & AttrChange::kSetAtime) != 0) change.SetTime(inode.get(), kAtime, wanted.atime);
  if ((what & AttrChange::kSetMtime) != 0) change.SetTime(inode.get(), kMtime, wanted.mtime);
  change.SetTime(inode.get(), kCtime,
                 (what & AttrChange::kSetCtime) != 0 ? wanted.ctime : context.now);
  change.Commit();
  if (resize) FileData(region_, inode.get()).Trim();
  return inode->GetAttr();
}

Result<std::string> Filesystem::ReadLink(Ino ino) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  if (!S_ISLNK(inode->mode())) return Errno{EINVAL};
  const ReadAnswer answer = FileData(region_, inode.get()).Read(0, inode->size());
  std::string target;
  for (const iovec& v : answer.iov) target.append(static_cast<const char*>(v.iov_base), v.iov_len);
  return target;
}

Result<ReadAnswer> Filesystem::Read(Ino ino, uint64_t offset, size_t size) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  if (inode->is_directory()) return Errno{EISDIR};
  if (!inode->is_regular()) return Errno{EINVAL};
  return FileData(region_, inode.get()).Read(offset, size);
}

Result<size_t> Filesystem::Write(const Context& context, Ino ino, uint64_t offset,
                                 absl::Span<const std::byte> bytes) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  WriterLock lock(&inode->mu);
  if (inode->is_directory()) return Errno{EISDIR};
  if (!inode->is_regular()) return Errno{EINVAL};
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (offset > kMax || bytes.size() > kMax - offset) return Errno{EFBIG};
  if (bytes.empty()) return size_t{0};
  Change change(region_);
  if (const auto r = DropPrivileges(context, inode.get(), &change, false); !r.ok()) {
    return r.as_errno();
  }
  const Result<size_t> written = FileData(region_, inode.get()).Write(&change, offset, bytes);
  if (!written.ok()) return written;
  change.Modified(inode.get(), context.now);
  change.Commit();
  return written;
}

FsStats Filesystem::StatFs() const {
  const pkram::Space::Counts counts = region_->space().counts();
  FsStats stats;
  // The region is larger than what it may hold by what holding costs.
  stats.pages = pkram::Region::ContentPages(counts.total);
  const uint64_t fixed = region_->super().journal_first + region_->super().journal_slots;
  const uint64_t used = counts.total - counts.free - counts.reserved - fixed;
  stats.free_pages = std::min(counts.free, stats.pages - std::min(stats.pages, used));
  stats.inodes = table_.limit();
  stats.used_inodes = table_.used();
  const uint64_t free_inodes = stats.inodes - std::min(stats.inodes, stats.used_inodes);
  stats.free_inodes = std::min(free_inodes, counts.free);
  return stats;
}

// --- Extended attributes ------------------------------------------------------------

namespace {

constexpr std::string_view kNamespaces[] = {"user.", "trusted.", "security."};

int CheckXattrName(std::string_view name) {
  for (const std::string_view prefix : kNamespaces) {
    if (name.substr(0, prefix.size()) == prefix) {
      if (name.size() == prefix.size()) return EINVAL;
      return name.size() > kMaxName ? ERANGE : 0;
    }
  }
  return EOPNOTSUPP;
}

}  // namespace

Result<std::string> Filesystem::GetXattr(Ino ino, std::string_view name) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (const int error = CheckXattrName(name); error != 0) return Errno{error};
  ReaderLock lock(&inode->mu);
  std::optional<std::string> value = Xattrs(region_, inode.get()).Get(name);
  if (!value) return Errno{ENODATA};
  return *std::move(value);
}

Result<std::string> Filesystem::ListXattrs(Ino ino) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  return Xattrs(region_, inode.get()).List();
}

Result<void> Filesystem::SetXattr(const Context& context, Ino ino, std::string_view name,
                                  std::string_view value, int flags) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (const int error = CheckXattrName(name); error != 0) return Errno{error};
  if (value.size() > XATTR_SIZE_MAX) return Errno{E2BIG};
  WriterLock lock(&inode->mu);
  Xattrs xattrs(region_, inode.get());
  const bool exists = xattrs.Get(name).has_value();
  if (exists && (flags & XATTR_CREATE) != 0) return Errno{EEXIST};
  if (!exists && (flags & XATTR_REPLACE) != 0) return Errno{ENODATA};
  Change change(region_);
  if (const auto r = xattrs.Set(&change, name, value); !r.ok()) return r;
  change.SetTime(inode.get(), kCtime, context.now);
  change.Commit();
  return {};
}

Result<void> Filesystem::RemoveXattr(const Context& context, Ino ino, std::string_view name) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (const int error = CheckXattrName(name); error != 0) return Errno{error};
  WriterLock lock(&inode->mu);
  Xattrs xattrs(region_, inode.get());
  if (!xattrs.Get(name)) return Errno{ENODATA};
  Change change(region_);
  if (const auto r = xattrs.Set(&change, name, std::nullopt); !r.ok()) return r;
  change.SetTime(inode.get(), kCtime, context.now);
  change.Commit();
  return {};
}

}  // namespace pkramfs
