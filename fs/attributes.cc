// What the filesystem does with attributes, extended ones and ACLs included.
#include <sys/xattr.h>

#include <limits>

#include "fs/acl.h"
#include "fs/file_data.h"
#include "fs/filesystem.h"
#include "fs/xattrs.h"

namespace pkramfs {

using pkram::ReaderLock;
using pkram::WriterLock;

namespace {

constexpr std::string_view kCapability = "security.capability";

constexpr uint32_t kPermissions = 0777;

// Whether the caller may have programs run as the inode's group.
Membership InGroupOf(const Context& context, const Inode& inode) {
  return InGroup(context, static_cast<gid_t>(inode.record().owner >> 32));
}

}  // namespace

Result<Attr> Filesystem::GetAttr(Ino ino) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  return inode->GetAttr();
}

// What a change of contents or owner takes away: set-id bits from those who may not
// keep them, capabilities from everybody.  Returns the mode that is left.
uint32_t Filesystem::DropPrivileges(const Context& context, Inode* inode, bool mode_too,
                                    std::vector<XattrEdit>* edits) {
  const uint32_t mode = inode->mode();
  uint32_t drop = 0;
  if ((mode & (S_ISUID | S_ISGID)) != 0 && (mode_too || !KeepsSetId(context))) {
    drop = mode & S_ISUID;
    // Without the group's right to execute it is no right, but only members may keep it; who may
    // be one does no harm.
    if ((mode & S_ISGID) != 0 &&
        ((mode & S_IXGRP) != 0 || InGroupOf(context, *inode) == Membership::kNo)) {
      drop |= S_ISGID;
    }
  }
  const Xattrs xattrs(region_, inode);
  if (!xattrs.empty() && xattrs.Get(kCapability)) edits->push_back({kCapability, std::nullopt});
  return mode & ~drop;
}

// Adds another mode and other extended attributes to `change`.  ENOSPC.
Result<void> Filesystem::EditInode(Inode* inode, Change* change, uint32_t mode,
                                   absl::Span<const XattrEdit> edits) {
  if (!edits.empty()) {
    if (const auto r = Xattrs(region_, inode).Edit(change, edits); !r.ok()) return r;
  }
  if (mode != inode->mode()) change->SetMode(inode, mode);
  return {};
}

Result<Attr> Filesystem::SetAttr(const Context& context, Ino ino, const AttrChange& wanted) {
  if (Outcome(context)) return GetAttr(ino);
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  WriterLock lock(&inode->mu);
  const uint32_t what = wanted.what;
  const bool resize = (what & AttrChange::kSetSize) != 0;
  const bool chown = (what & (AttrChange::kSetUid | AttrChange::kSetGid)) != 0;
  for (const Timestamp& time : {wanted.atime, wanted.mtime, wanted.ctime}) {
    if (time.nanos >= 1000000000) return Errno{EINVAL};
  }
  if (resize && inode->is_directory()) return Errno{EISDIR};
  if (resize && !inode->is_regular()) return Errno{EINVAL};
  if (resize && wanted.size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Errno{EFBIG};
  }
  Change change(region_, context);
  uint32_t mode = inode->mode();
  std::vector<XattrEdit> edits;
  if (!inode->is_directory() && (resize || chown)) {
    mode = DropPrivileges(context, inode.get(), chown, &edits);
  }
  if ((what & AttrChange::kSetMode) != 0) {
    // With another size or owner it is the kernel's idea of what is to be dropped.
    const uint32_t dropped = inode->mode() & ~mode;
    mode = (mode & S_IFMT) | (wanted.mode & 07777 & ~dropped);
    const Xattrs xattrs(region_, inode.get());
    if (const auto bytes = xattrs.empty() ? std::nullopt : xattrs.Get(kAccessAcl)) {
      Acl acl = *Acl::Parse(*bytes);
      const bool changes = acl.ModeBits() != (mode & kPermissions);
      acl.SetModeBits(mode);
      if (changes) edits.push_back({kAccessAcl, acl.Bytes()});
    }
  }
  if (const auto r = EditInode(inode.get(), &change, mode, edits); !r.ok()) return r.as_errno();
  if (resize) {
    if (const auto r = FileData(region_, inode.get()).Resize(&change, wanted.size); !r.ok()) {
      return r.as_errno();
    }
    change.Modified(inode.get(), context);
  }
  if (chown) {
    const uint64_t owner = inode->record().owner;
    change.SetOwner(
        inode.get(), (what & AttrChange::kSetUid) != 0 ? wanted.uid : static_cast<uint32_t>(owner),
        (what & AttrChange::kSetGid) != 0 ? wanted.gid : static_cast<uint32_t>(owner >> 32));
  }
  if ((what & AttrChange::kSetAtime) != 0) change.SetTime(inode.get(), kAtime, wanted.atime);
  if ((what & AttrChange::kSetMtime) != 0) {
    change.SetTime(inode.get(), kMtime, wanted.mtime);
    inode->set_has_given_mtime(true);
  }
  change.SetTime(inode.get(), kCtime,
                 (what & AttrChange::kSetCtime) != 0 ? wanted.ctime : context.now);
  change.Commit();
  if (resize) FileData(region_, inode.get()).Trim();
  return inode->GetAttr();
}

// --- Extended attributes ------------------------------------------------------------

Result<std::string> Filesystem::GetXattr(Ino ino, std::string_view name) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (const int error = Xattrs::CheckName(name); error != 0) return Errno{error};
  ReaderLock lock(&inode->mu);
  std::optional<std::string> value = Xattrs(region_, inode.get()).Get(name);
  if (!value) return Errno{ENODATA};
  return *std::move(value);
}

Result<std::string> Filesystem::ListXattrs(const Context& context, Ino ino) {
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  ReaderLock lock(&inode->mu);
  std::string names;
  Xattrs(region_, inode.get()).ForEachName([&](std::string_view name) {
    if (name.substr(0, kTrusted.size()) == kTrusted && !IsRoot(context)) return;
    names.append(name).push_back('\0');
  });
  return names;
}

// The mode says the same as an access list's owner, group and others.  A list that says nothing
// else is kept as the mode only.
Result<void> Filesystem::SetAcl(const Context& context, Inode* inode, std::string_view name,
                                std::string_view value) {
  if (S_ISLNK(inode->mode())) return Errno{EOPNOTSUPP};
  const std::optional<Acl> acl = Acl::Parse(value);
  if (!acl) return Errno{EINVAL};
  XattrEdit edit{name, std::nullopt};
  uint32_t mode = inode->mode();
  if (!acl->empty()) {
    if (name == kDefaultAcl && !inode->is_directory()) return Errno{EACCES};
    if (name == kDefaultAcl || !acl->IsMode()) edit.value = std::string(value);
    if (name == kAccessAcl) {
      mode = (mode & ~kPermissions) | acl->ModeBits();
      if ((mode & S_ISGID) != 0 && InGroupOf(context, *inode) != Membership::kYes) {
        mode &= ~uint32_t{S_ISGID};
      }
    }
  }
  Change change(region_, context);
  if (const auto r = EditInode(inode, &change, mode, {&edit, 1}); !r.ok()) return r;
  change.SetTime(inode, kCtime, context.now);
  change.Commit();
  return {};
}

Result<void> Filesystem::SetXattr(const Context& context, Ino ino, std::string_view name,
                                  std::string_view value, int flags) {
  if (Outcome(context)) return {};
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (const int error = Xattrs::CheckName(name); error != 0) return Errno{error};
  if (value.size() > XATTR_SIZE_MAX) return Errno{E2BIG};
  WriterLock lock(&inode->mu);
  if (IsAcl(name)) return SetAcl(context, inode.get(), name, value);
  Xattrs xattrs(region_, inode.get());
  const bool exists = xattrs.Get(name).has_value();
  if (exists && (flags & XATTR_CREATE) != 0) return Errno{EEXIST};
  if (!exists && (flags & XATTR_REPLACE) != 0) return Errno{ENODATA};
  Change change(region_, context);
  const XattrEdit edit{name, std::string(value)};
  if (const auto r = xattrs.Edit(&change, {&edit, 1}); !r.ok()) return r;
  change.SetTime(inode.get(), kCtime, context.now);
  change.Commit();
  return {};
}

Result<void> Filesystem::RemoveXattr(const Context& context, Ino ino, std::string_view name) {
  if (Outcome(context)) return {};
  const Gate::Pass pass(&gate_);
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (const int error = Xattrs::CheckName(name); error != 0) return Errno{error};
  WriterLock lock(&inode->mu);
  Xattrs xattrs(region_, inode.get());
  // Taking away an ACL that is not there is no error.
  if (!IsAcl(name) && !xattrs.Get(name)) return Errno{ENODATA};
  Change change(region_, context);
  const XattrEdit edit{name, std::nullopt};
  if (const auto r = xattrs.Edit(&change, {&edit, 1}); !r.ok()) return r;
  change.SetTime(inode.get(), kCtime, context.now);
  change.Commit();
  return {};
}

}  // namespace pkramfs
