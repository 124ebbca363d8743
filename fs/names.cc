// Operations on names: look up, make, link, remove, rename, list.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <utility>

#include "fs/acl.h"
#include "fs/directory.h"
#include "fs/filesystem.h"
#include "fs/lock_set.h"

// glibc shows them only to GNU sources with stdio.h.
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#endif

namespace pkramfs {

using pkram::ReaderLock;
using pkram::WriterLock;

namespace {

uint32_t TypeOf(uint32_t mode) { return (mode & S_IFMT) >> 12; }

// Checks a name that is to be made.  Names of system calls never hold a slash or NUL.
int CheckName(std::string_view name) {
  if (name.empty()) return ENOENT;
  if (name.size() > kMaxName) return ENAMETOOLONG;
  if (name == "." || name == "..") return EEXIST;
  return 0;
}

// A doomed directory has no links, whatever is in it.
void AddSubdirectories(Change* change, Inode* directory, int32_t delta) {
  if (directory->nlink() != 0) change->AddLinks(directory, delta);
}

}  // namespace

Result<InodeRef> Filesystem::GetDirectory(Ino ino) {
  InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  if (!inode->is_directory()) return Errno{ENOTDIR};
  return inode;
}

// The inode that a name leads to; ENOENT.  Without a lock held it may be gone from
// that name at once.
Result<InodeRef> Filesystem::FindChild(Inode* directory, std::string_view name) {
  if (name.size() > kMaxName) return Errno{ENAMETOOLONG};
  ReaderLock lock(&directory->mu);
  if (name == "." || name == "..") {
    InodeRef inode = cache_.Get(name == "." ? directory->ino() : directory->parent());
    if (!inode) return Errno{ESTALE};
    return inode;
  }
  const auto found = directory->directory().Find(name);
  if (!found) return Errno{ENOENT};
  InodeRef inode = cache_.Get(found->ino);
  if (!inode) return Errno{ESTALE};
  return inode;
}

Result<Attr> Filesystem::Lookup(Ino parent, std::string_view name) {
  // A file handle is looked up as the "." of any inode.  What the kernel has found by one
  // it knows by no name but "/", and overlayfs makes it look that up.
  if (name == "." || name == "/") {
    const InodeRef inode = cache_.Get(parent);
    if (!inode) return Errno{ESTALE};
    return ReplyWith(inode);
  }
  parent = ThroughStaged(parent, &name);
  const Result<InodeRef> directory = GetDirectory(parent);
  if (!directory.ok()) return directory.as_errno();
  const Result<InodeRef> child = FindChild((*directory).get(), name);
  if (!child.ok()) return child.as_errno();
  return ReplyWith(*child);
}

// --- Making -------------------------------------------------------------------------

// Sets what a new inode gets from its maker and from its directory: owner, group, ACLs.
void Filesystem::Inherit(const Context& context, Inode* directory, Birth* birth) {
  const bool makes_directory = S_ISDIR(birth->mode);
  birth->uid = context.uid;
  birth->gid = context.gid;
  birth->now = context.now;
  if (makes_directory) birth->parent = directory->ino();
  if ((directory->mode() & S_ISGID) != 0) {
    birth->gid = static_cast<uint32_t>(directory->record().owner >> 32);
    if (makes_directory) birth->mode |= S_ISGID;
  }
  // A user cannot make a program that runs as a group of which the user is no member.  (Where the
  // groups are not known, the kernel has checked this.)
  constexpr uint32_t kRunsAsGroup = S_ISGID | S_IXGRP;
  if (!makes_directory && (birth->mode & kRunsAsGroup) == kRunsAsGroup &&
      InGroup(context, birth->gid) == Membership::kNo) {
    birth->mode &= ~uint32_t{S_ISGID};
  }
  if (S_ISLNK(birth->mode)) return;
  const Xattrs xattrs(region_, directory);
  const auto inherited = xattrs.empty() ? std::nullopt : xattrs.Get(kDefaultAcl);
  if (!inherited) {
    birth->mode &= ~(context.umask & 0777);
    return;
  }
  Acl acl = *Acl::Parse(*inherited);
  acl.Restrict(birth->mode);
  birth->mode = (birth->mode & ~uint32_t{0777}) | acl.ModeBits();
  if (!acl.IsMode()) Xattrs::Append(&birth->xattrs, kAccessAcl, acl.Bytes());
  if (makes_directory) Xattrs::Append(&birth->xattrs, kDefaultAcl, *inherited);
}

Result<Attr> Filesystem::MakeInode(const Context& context, Ino parent, std::string_view name,
                                   Birth birth) {
  if (const auto made = Outcome(context)) return GetAttr(*made);
  const Gate::Pass pass(&gate_);
  if (const int error = CheckName(name); error != 0) return Errno{error};
  const Result<InodeRef> got = GetDirectory(parent);
  if (!got.ok()) return got.as_errno();
  Inode* const directory = (*got).get();
  const bool makes_directory = S_ISDIR(birth.mode);
  InodeRef made;
  {
    WriterLock lock(&directory->mu);
    if (directory->nlink() == 0) return Errno{ENOENT};
    if (directory->directory().Find(name)) return Errno{EEXIST};
    if (makes_directory && directory->nlink() >= kMaxLinks) return Errno{EMLINK};
    Inherit(context, directory, &birth);
    Result<Unborn> unborn = Unborn::Conceive(region_, &table_, birth);
    if (!unborn.ok()) return unborn.as_errno();
    Change change(region_, context);
    const auto inserted =
        directory->directory().Insert(&change, name, unborn->ino(), TypeOf(birth.mode));
    if (!inserted.ok()) return inserted.as_errno();
    // It is in use before anybody could remove its name, and free it.
    unborn->AddLookup();
    unborn->Deliver(&change);
    if (makes_directory) change.AddLinks(directory, 1);
    change.Modified(directory, context);
    change.Commit(unborn->ino());
    made = cache_.Get(unborn->ino());
  }
  ReaderLock lock(&made->mu);
  return made->GetAttr();
}

Result<Attr> Filesystem::MakeNode(const Context& context, Ino parent, std::string_view name,
                                  uint32_t mode, uint64_t rdev) {
  switch (mode & S_IFMT) {
    case 0:
      mode |= S_IFREG;
      break;
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
      rdev = 0;
      break;
    case S_IFCHR:
    case S_IFBLK:
      break;
    default:
      return Errno{EINVAL};
  }
  Birth birth;
  birth.mode = mode & (S_IFMT | 07777);
  birth.rdev = rdev;
  return MakeInode(context, parent, name, birth);
}

Result<Attr> Filesystem::MakeDirectory(const Context& context, Ino parent, std::string_view name,
                                       uint32_t mode) {
  Birth birth;
  birth.mode = S_IFDIR | (mode & 07777);
  return MakeInode(context, parent, name, birth);
}

Result<Attr> Filesystem::MakeSymlink(const Context& context, Ino parent, std::string_view name,
                                     std::string_view target) {
  if (target.empty()) return Errno{ENOENT};
  if (target.size() > kMaxSymlink) return Errno{ENAMETOOLONG};
  Birth birth;
  birth.mode = S_IFLNK | 0777;
  birth.target = target;
  return MakeInode(context, parent, name, birth);
}

Result<Attr> Filesystem::MakeTemporary(const Context& context, Ino parent, uint32_t mode) {
  if (const auto made = Outcome(context)) return GetAttr(*made);
  const Gate::Pass pass(&gate_);
  const Result<InodeRef> got = GetDirectory(parent);
  if (!got.ok()) return got.as_errno();
  Inode* const directory = (*got).get();
  ReaderLock lock(&directory->mu);
  if (directory->nlink() == 0) return Errno{ENOENT};
  Birth birth;
  birth.mode = S_IFREG | (mode & 07777);
  birth.linked = false;
  Inherit(context, directory, &birth);
  Result<Unborn> unborn = Unborn::Conceive(region_, &table_, birth);
  if (!unborn.ok()) return unborn.as_errno();
  // It is in use before anybody could take it for an inode that nobody uses.
  unborn->AddLookup();
  Change change(region_, context);
  unborn->Deliver(&change);
  change.Commit(unborn->ino());
  const InodeRef made = cache_.Get(unborn->ino());
  ReaderLock made_lock(&made->mu);
  return made->GetAttr();
}

Result<Attr> Filesystem::Link(const Context& context, Ino ino, Ino parent, std::string_view name) {
  if (Outcome(context)) return GetAttr(ino);
  const Gate::Pass pass(&gate_);
  if (const int error = CheckName(name); error != 0) return Errno{error};
  const Result<InodeRef> got = GetDirectory(parent);
  if (!got.ok()) return got.as_errno();
  Inode* const directory = (*got).get();
  const InodeRef inode = cache_.Get(ino);
  if (!inode) return Errno{ESTALE};
  {
    const LockSet locks({directory, inode.get()});
    directory->mu.AssertHeld();
    if (directory->nlink() == 0) return Errno{ENOENT};
    if (directory->directory().Find(name)) return Errno{EEXIST};
    if (inode->is_directory()) return Errno{EPERM};
    if (inode->nlink() == 0 && !inode->is_linkable()) return Errno{ENOENT};
    if (inode->nlink() >= kMaxLinks) return Errno{EMLINK};
    Change change(region_, context);
    const auto inserted = directory->directory().Insert(&change, name, ino, TypeOf(inode->mode()));
    if (!inserted.ok()) return inserted.as_errno();
    change.AddLinks(inode.get(), 1);
    if (inode->is_linkable()) change.SetFlag(inode.get(), kLinkable, false);
    change.SetTime(inode.get(), kCtime, context.now);
    change.Modified(directory, context);
    cache_.AddLookup(inode);
    change.Commit();
  }
  return GetAttr(ino);
}

// --- Removing -----------------------------------------------------------------------

Result<void> Filesystem::Unlink(const Context& context, Ino parent, std::string_view name) {
  return Remove(context, parent, name, false);
}

Result<void> Filesystem::RemoveDirectory(const Context& context, Ino parent,
                                         std::string_view name) {
  if (name == ".") return Errno{EINVAL};
  if (name == "..") return Errno{ENOTEMPTY};
  return Remove(context, parent, name, true);
}

// The kernel forgets a deleted file when its last user is gone, often at once, but after the call
// that deletes it has returned.
void Filesystem::ExpectPagesOf(const Inode& deleted) {
  if (deleted.nlink() == 0 && deleted.lookups() != 0) region_->space().ExpectPages();
}

Result<void> Filesystem::Remove(const Context& context, Ino parent, std::string_view name,
                                bool want_directory) {
  if (Outcome(context)) return {};
  const Gate::Pass pass(&gate_);
  const Ino named_parent = parent;
  parent = ThroughStaged(parent, &name);
  const bool is_staged = parent != named_parent;  // then it goes with all that is in it
  const Result<InodeRef> got = GetDirectory(parent);
  if (!got.ok()) return got.as_errno();
  Inode* const directory = (*got).get();
  for (;;) {
    Result<InodeRef> found = FindChild(directory, name);
    if (!found.ok()) return found.as_errno();
    Inode* const inode = (*found).get();
    std::optional<LockSet> locks(std::in_place, std::initializer_list<Inode*>{directory, inode});
    directory->mu.AssertHeld();
    inode->mu.AssertHeld();
    const auto now = directory->directory().Find(name);
    if (!want_directory && inode->is_directory()) return Errno{EISDIR};
    if (!now || now->ino != inode->ino()) continue;  // renamed meanwhile
    if (want_directory && !inode->is_directory()) return Errno{ENOTDIR};
    if (want_directory && !is_staged && !inode->directory().empty()) return Errno{ENOTEMPTY};
    const auto links = want_directory ? static_cast<int32_t>(inode->nlink()) : 1;
    Change change(region_, context);
    directory->directory().Remove(&change, name);
    change.AddLinks(inode, -links);
    if (want_directory) AddSubdirectories(&change, directory, -1);
    change.SetTime(inode, kCtime, context.now);
    change.Modified(directory, context);
    change.Commit();
    ExpectPagesOf(*inode);
    locks.reset();
    if (is_staged) NoteDoomed(*std::move(found));
    return {};
  }
}

// --- Renaming -----------------------------------------------------------------------

// Whether directory `ino` is `of` or stands above it.  REQUIRES: rename_mu_, so that
// no directory changes its parent; those above one in use stay where they are.
bool Filesystem::IsAncestor(Ino ino, Ino of) const {
  for (;;) {
    if (of == ino) return true;
    if (of == kRootIno) return false;
    const Inode inode(region_, of, table_.PageOf(of));
    if (inode.nlink() == 0) return false;  // doomed: nothing stands above it
    of = inode.parent();
  }
}

Result<void> Filesystem::Rename(const Context& context, Ino old_parent, std::string_view old_name,
                                Ino new_parent, std::string_view new_name, uint32_t flags) {
  if (Outcome(context)) return {};
  const Gate::Pass pass(&gate_);
  old_parent = ThroughStaged(old_parent, &old_name);
  const bool exchange = (flags & RENAME_EXCHANGE) != 0;
  const bool whiteout = (flags & RENAME_WHITEOUT) != 0;
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0) return Errno{EINVAL};
  if (exchange && flags != RENAME_EXCHANGE) return Errno{EINVAL};
  if (old_name == "." || old_name == ".." || new_name == "." || new_name == "..") {
    return Errno{EBUSY};
  }
  const Result<InodeRef> got_from = GetDirectory(old_parent);
  if (!got_from.ok()) return got_from.as_errno();
  const Result<InodeRef> got_to = GetDirectory(new_parent);
  if (!got_to.ok()) return got_to.as_errno();
  Inode* const from = (*got_from).get();
  Inode* const to = (*got_to).get();
  for (;;) {
    const Result<InodeRef> got_source = FindChild(from, old_name);
    if (!got_source.ok()) return got_source.as_errno();
    Result<InodeRef> got_target = FindChild(to, new_name);
    if (!got_target.ok() && got_target.error() != ENOENT) return got_target.as_errno();
    Inode* const source = (*got_source).get();
    Inode* const target = got_target.ok() ? (*got_target).get() : nullptr;

    pkram::MutexLock rename_lock(&rename_mu_);
    const LockSet locks({from, to, source, target});
    from->mu.AssertHeld();
    to->mu.AssertHeld();
    const auto source_now = from->directory().Find(old_name);
    const auto target_now = to->directory().Find(new_name);
    if (!source_now || source_now->ino != source->ino() || !!target_now != (target != nullptr) ||
        (target != nullptr && target_now->ino != target->ino())) {
      continue;  // changed meanwhile
    }
    if (to->nlink() == 0) return Errno{ENOENT};
    if (target == nullptr && exchange) return Errno{ENOENT};
    if (target != nullptr && (flags & RENAME_NOREPLACE) != 0) return Errno{EEXIST};
    const bool moves_directory = source->is_directory();
    if (moves_directory && IsAncestor(source->ino(), to->ino())) return Errno{EINVAL};
    if (target != nullptr && target->is_directory() && IsAncestor(target->ino(), from->ino())) {
      return Errno{exchange ? EINVAL : ENOTEMPTY};
    }
    if (source == target) return {};

    Change change(region_, context);
    if (exchange) {
      const bool target_directory = target->is_directory();
      from->directory().Replace(&change, old_name, target->ino(), TypeOf(target->mode()));
      to->directory().Replace(&change, new_name, source->ino(), TypeOf(source->mode()));
      if (from != to) {
        if (moves_directory) change.SetParent(source, to->ino());
        if (target_directory) change.SetParent(target, from->ino());
        if (moves_directory != target_directory) {
          if ((moves_directory ? to : from)->nlink() >= kMaxLinks) return Errno{EMLINK};
          AddSubdirectories(&change, from, target_directory ? 1 : -1);
          AddSubdirectories(&change, to, moves_directory ? 1 : -1);
        }
      }
    } else {
      if (target != nullptr) {
        target->mu.AssertHeld();
        if (moves_directory && !target->is_directory()) return Errno{ENOTDIR};
        if (!moves_directory && target->is_directory()) return Errno{EISDIR};
        if (moves_directory && !target->directory().empty()) return Errno{ENOTEMPTY};
      } else if (moves_directory && from != to && to->nlink() >= kMaxLinks) {
        return Errno{EMLINK};
      }
      std::optional<Unborn> white;
      if (whiteout) {
        Birth birth;
        birth.mode = S_IFCHR;
        Inherit(context, from, &birth);
        Result<Unborn> unborn = Unborn::Conceive(region_, &table_, birth);
        if (!unborn.ok()) return unborn.as_errno();
        white.emplace(*std::move(unborn));
      }
      const uint32_t type = TypeOf(source->mode());
      if (target == nullptr) {
        const auto inserted = to->directory().Insert(&change, new_name, source->ino(), type);
        if (!inserted.ok()) return inserted;
      } else {
        to->directory().Replace(&change, new_name, source->ino(), type);
        change.AddLinks(target, target->is_directory() ? -2 : -1);
        if (target->is_directory()) AddSubdirectories(&change, to, -1);
      }
      if (white) {
        from->directory().Replace(&change, old_name, white->ino(), DT_CHR);
        white->Deliver(&change);
      } else {
        from->directory().Remove(&change, old_name);
      }
      if (moves_directory && from != to) {
        AddSubdirectories(&change, from, -1);
        AddSubdirectories(&change, to, 1);
        change.SetParent(source, to->ino());
      }
    }
    change.Modified(from, context);
    change.Modified(to, context);
    change.SetTime(source, kCtime, context.now);
    if (target != nullptr) change.SetTime(target, kCtime, context.now);
    change.Commit();
    if (target != nullptr) ExpectPagesOf(*target);
    return {};
  }
}

// --- Listing ------------------------------------------------------------------------

Result<void> Filesystem::ReadDirectory(Ino ino, uint64_t cookie,
                                       const std::function<bool(const DirEntry&)>& visit) {
  const Result<InodeRef> got = GetDirectory(ino);
  if (!got.ok()) return got.as_errno();
  Inode* const inode = (*got).get();
  ReaderLock lock(&inode->mu);
  if (cookie == 0 && !visit({".", ino, DT_DIR, 1})) return {};
  if (cookie <= 1 && !visit({"..", inode->parent(), DT_DIR, 2})) return {};
  inode->directory().ForEach(cookie <= 2 ? 0 : cookie - 2, [&](uint64_t slot, const Slot& entry) {
    return visit({SlotName(entry), SlotIno(entry.header), SlotType(entry.header), slot + 3});
  });
  return {};
}

}  // namespace pkramfs
