// A filesystem in a region: typed calls in, results out, POSIX rules inside.
// When a call has returned success, its effect is in the region.
//
// Permissions are the caller's business (the kernel checks them, default_permissions).
// Errors are errnos, tmpfs's; a call that fails has changed nothing.  Calls that
// return a name's Attr raise the inode's lookup count, which Forget lowers; an inode
// lives as long as it has links or lookups.
//
// Thread-safe.
#ifndef FS_FILESYSTEM_H_
#define FS_FILESYSTEM_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "fs/gate.h"
#include "fs/inode_cache.h"
#include "fs/inode_table.h"
#include "fs/result.h"
#include "fs/types.h"
#include "fs/unborn.h"
#include "fs/xattrs.h"
#include "pkram/mutex.h"
#include "pkram/region.h"

namespace pkramfs {

class Filesystem {
 public:
  struct Options {
    std::string node = "pkramfs";  // which node of the region
    uint64_t max_inodes = 0;       // 0: as many as there are pages
    bool frozen = false;           // as after Freeze, from the beginning
    // For a filesystem that is made now.
    uint32_t root_mode = 01777;
    uint32_t root_uid = 0;
    uint32_t root_gid = 0;
  };

  // Opens the filesystem in a node of the region, or makes one.
  // FAILED_PRECONDITION when the node holds something else, ALREADY_EXISTS when it
  // is in use, RESOURCE_EXHAUSTED.  `region` outlives it.
  static absl::StatusOr<std::unique_ptr<Filesystem>> Open(pkram::Region* region,
                                                          const Options& options, Timestamp now);
  // What Open would say of the node of that name, if there is one, when a region has been
  // walked and nothing of it was changed (Region::OpenOptions::inspect).
  static absl::Status CheckNode(const pkram::PageView& pages, const pkram::Walk& walk,
                                const std::string& node);
  ~Filesystem();

  pkram::Region& region() const { return *region_; }

  // "." and "/" are the inode itself, of any kind.
  Result<Attr> Lookup(Ino parent, std::string_view name);
  void Forget(Ino ino, uint64_t count) { cache_.Forget(ino, count); }

  Result<Attr> GetAttr(Ino ino);
  Result<Attr> SetAttr(const Context& context, Ino ino, const AttrChange& change);

  // A regular file, device node, fifo or socket, as `mode` says.
  Result<Attr> MakeNode(const Context& context, Ino parent, std::string_view name, uint32_t mode,
                        uint64_t rdev = 0);
  Result<Attr> MakeDirectory(const Context& context, Ino parent, std::string_view name,
                             uint32_t mode);
  Result<Attr> MakeSymlink(const Context& context, Ino parent, std::string_view name,
                           std::string_view target);
  Result<Attr> Link(const Context& context, Ino ino, Ino parent, std::string_view name);
  Result<void> Unlink(const Context& context, Ino parent, std::string_view name);
  Result<void> RemoveDirectory(const Context& context, Ino parent, std::string_view name);
  // `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT.
  Result<void> Rename(const Context& context, Ino old_parent, std::string_view old_name,
                      Ino new_parent, std::string_view new_name, uint32_t flags = 0);

  // A regular file without a name, which Link may give one (O_TMPFILE).
  Result<Attr> MakeTemporary(const Context& context, Ino parent, uint32_t mode);

  Result<std::string> ReadLink(Ino ino);
  Result<ReadAnswer> Read(Ino ino, uint64_t offset, size_t size);
  // Who wrote to a page that the kernel sends later is not known: whose rights were to be dropped
  // has been seen to.
  enum class Sent { kByCaller, kLater };
  // May write less than asked for when space runs out on the way.
  Result<size_t> Write(const Context& context, Ino ino, uint64_t offset,
                       absl::Span<const std::byte> bytes, Sent sent = Sent::kByCaller);

  // `mode`: 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE with it, FALLOC_FL_ZERO_RANGE with
  // or without it; EOPNOTSUPP for others.
  Result<void> Fallocate(const Context& context, Ino ino, uint64_t offset, uint64_t length,
                         int mode);
  // `whence`: SEEK_DATA, SEEK_HOLE.  ENXIO.
  Result<uint64_t> Seek(Ino ino, uint64_t offset, int whence);
  // May copy less than asked for, at the end of the file or when space runs out.  Whole
  // pages are not copied but shared, until one of the files is written to.
  Result<size_t> CopyRange(const Context& context, Ino from, uint64_t from_offset, Ino to,
                           uint64_t to_offset, size_t size);

  // The pages of a file, for one who reads them where they are: their bytes do not change until he
  // unlocks them.  At most `most` pieces.  EINVAL: no regular file; EOPNOTSUPP: its contents stand
  // in its inode.
  Result<HeldPages> Hold(Ino ino, uint64_t offset, uint64_t end, size_t most);

  // Calls `visit` for the entries behind `cookie` (0 to begin), "." and ".."
  // included, until it returns false.  The name is valid during the call, which
  // must not call the filesystem.
  Result<void> ReadDirectory(Ino ino, uint64_t cookie,
                             const std::function<bool(const DirEntry&)>& visit);

  // Names of the namespaces user., trusted. and security., and the POSIX ACLs;
  // EOPNOTSUPP for others.
  Result<std::string> GetXattr(Ino ino, std::string_view name);
  // Those of trusted. are shown to root only.
  Result<std::string> ListXattrs(const Context& context, Ino ino);
  // `flags`: XATTR_CREATE, XATTR_REPLACE.  An access ACL changes the mode with it.
  Result<void> SetXattr(const Context& context, Ino ino, std::string_view name,
                        std::string_view value, int flags);
  Result<void> RemoveXattr(const Context& context, Ino ino, std::string_view name);

  // --- Trees that were built elsewhere (adoption.h) ---
  struct BuiltTree {
    pkram::Pfn node;      // in lent pages
    uint64_t links = 0;   // of its table
    uint64_t inodes = 0;  // in it; kTreeName in its root is what is to be placed
  };
  static constexpr std::string_view kTreeName = "tree";
  // kNew: nothing has that name.  kReplace: what has it is exchanged for the tree in one step, and
  // deleted.  kMerge: a directory of that name gets what is in the tree, each file by itself.
  enum class Placing { kNew, kReplace, kMerge };
  // The tree becomes `name` in `parent`, or is merged into `parent` itself if that is empty.
  // Whole or not at all, but for kMerge.  ALREADY_EXISTS, NOT_FOUND, DATA_LOSS: the tree is not
  // sound; RESOURCE_EXHAUSTED; FAILED_PRECONDITION: what is there is of another kind, or its pages
  // are not lent.
  absl::Status AdoptTree(const Context& context, const BuiltTree& tree, Ino parent,
                         std::string_view name, Placing placing);
  // The same in steps, for one who renames it as everybody does: whoever looks up, renames or
  // removes just this name in `parent` finds the tree, and nobody else sees it.  A directory of
  // that name is removed with all that is in it.  Errors as above.
  absl::Status StageTree(const BuiltTree& tree, Ino parent, std::string_view name);
  // Deletes what is staged under that name, or has been exchanged for it; and what others have
  // staged who have not locked their node any more.
  void DiscardStaged(Ino parent, std::string_view name);

  // What processes that are gone have left, staged trees and lent pages, is free again.  (Trees not
  // while it is frozen.)
  void Recheck();

  FsStats StatFs() const;

  // Another size, of a filesystem in use; nothing keeps what it is, and 0 inodes is
  // "as many as there are pages".  OUT_OF_RANGE, and nothing changed, when more is in
  // use or the region cannot grow so far.
  absl::Status Resize(std::optional<uint64_t> region_pages, std::optional<uint64_t> max_inodes);

  // Between them nothing that the region holds changes, so that a copy of it is whole:
  // calls that change something wait.  (The kernel's lookups are still counted, and memory
  // that nothing reaches may be given back.)  False when it is so already.
  bool Freeze() { return gate_.Close(); }
  bool Thaw();
  // Runs `fn` between two changes, with all others waiting; also while it is frozen.
  void AtRest(const std::function<void()>& fn);
  // The same for another process: nothing changes while it has this page locked, which is lent to
  // it. `token` stands at the beginning of that page when that begins.  `ends` is asked all the
  // time. False: it is not lent.
  bool RestWhileLocked(pkram::Pfn page, uint64_t token, const std::function<bool()>& ends);
  // Holds pages, which somebody has locked for reading, of any files, while it rests for another
  // process; false, and none is held, if it does not, or some are not locked.
  bool HoldAtRest(absl::Span<const pkram::PageRun> runs);
  // Says when nobody is left to thaw it: waiting ends then.  Set before use.
  void set_abandoned(std::function<bool()> abandoned) { gate_.set_abandoned(std::move(abandoned)); }
  // Told of files that lost set-id bits or capabilities because they were written: the
  // kernel's idea of them is an old one.  No lock is held.  Set before use.
  void set_privileges_dropped(std::function<void(Ino)> told) {
    privileges_dropped_ = std::move(told);
  }

 private:
  Filesystem(pkram::Region* region, const Options& options, pkram::Pfn node);

  Result<Attr> MakeInode(const Context& context, Ino parent, std::string_view name, Birth birth);
  Result<Attr> ReplyWith(const InodeRef& inode);
  Result<InodeRef> GetDirectory(Ino ino);
  Result<InodeRef> FindChild(Inode* directory, std::string_view name);
  Result<void> Remove(const Context& context, Ino parent, std::string_view name, bool directory);
  bool IsAncestor(Ino ino, Ino of) const;
  void Inherit(const Context& context, Inode* directory, Birth* birth)
      ABSL_SHARED_LOCKS_REQUIRED(directory->mu);
  uint32_t DropPrivileges(const Context& context, Inode* inode, bool mode_too,
                          std::vector<XattrEdit>* edits) ABSL_EXCLUSIVE_LOCKS_REQUIRED(inode->mu);
  Result<void> EditInode(Inode* inode, Change* change, uint32_t mode,
                         absl::Span<const XattrEdit> edits)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(inode->mu);
  std::optional<uint64_t> AlreadyWritten(const Context& context, Ino ino);
  Result<size_t> WriteTo(const Context& context, Inode* inode, uint64_t offset,
                         absl::Span<const std::byte> bytes, Sent sent = Sent::kByCaller);
  Result<bool> PrepareWrite(const Context& context, Inode* inode, Change* change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(inode->mu);
  Result<size_t> SharePages(const Context& context, Inode* source, uint64_t from, Inode* target,
                            uint64_t to, size_t size);
  Result<size_t> CopyBytes(const Context& context, Inode* source, uint64_t from, Inode* target,
                           uint64_t to, size_t size);
  Result<void> FallocateLocked(const Context& context, Inode* inode, uint64_t offset,
                               uint64_t length, int mode, bool* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(inode->mu);
  Result<size_t> WriteLocked(const Context& context, Inode* inode, uint64_t offset,
                             absl::Span<const std::byte> bytes, Sent sent, bool* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(inode->mu);
  Result<void> SetAcl(const Context& context, Inode* inode, std::string_view name,
                      std::string_view value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(inode->mu);
  // A directory without links that holds a tree: `ref` keeps its number its own.
  struct Staged {
    InodeRef ref;
    pkram::Pfn node;
    Ino parent = 0;
    std::string name{};
  };
  absl::StatusOr<Staged> Adopt(const BuiltTree& tree);
  void Discard(Staged staged);
  Ino ThroughStaged(Ino parent, std::string_view* name);
  void NoteDoomed(InodeRef inode);
  absl::Status Place(const Context& context, Ino staging, Ino parent, std::string_view name,
                     Placing placing);
  absl::Status Merge(const Context& context, Ino from, Ino to, const std::string& path);
  Result<void> CopyXattrs(const Context& context, Ino from, Ino to);
  void DeleteDoomed(std::vector<Ino> doomed);
  std::vector<Ino> DoomContents(Ino directory);
  bool IsDoomed(const Inode& inode) const;
  void Reclaim(const Inode& inode);
  void ReclaimNow(const Inode& inode);
  void ReclaimOrphans();
  void ReclaimDeferred();

  pkram::Region* const region_;
  const std::string node_name_;
  std::atomic<bool> inodes_follow_pages_;
  Gate gate_;
  pkram::Mutex deferred_mu_;
  std::vector<Ino> deferred_ ABSL_GUARDED_BY(deferred_mu_);  // to reclaim when thawed
  std::vector<Ino> doomed_;                                  // that a predecessor has left
  InodeTable table_;
  InodeCache cache_;
  InodeRef root_;  // the kernel never looks it up, and always uses it
  pkram::Mutex rest_mu_;
  bool rests_for_another_ ABSL_GUARDED_BY(rest_mu_) = false;
  pkram::Mutex adoption_mu_;  // one at a time
  std::atomic<bool> any_staged_{false};
  pkram::Mutex staged_mu_;
  std::vector<Staged> staged_ ABSL_GUARDED_BY(staged_mu_);
  std::vector<InodeRef> removed_ ABSL_GUARDED_BY(staged_mu_);  // staged ones, to be deleted
  pkram::Mutex rename_mu_;  // directories change parents only under it
  std::function<void(Ino)> privileges_dropped_;
};

}  // namespace pkramfs

#endif  // FS_FILESYSTEM_H_
