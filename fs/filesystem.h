// A filesystem in a region: typed calls in, results out, POSIX rules inside.
// When a call has returned success, its effect is in the region.
//
// The caller checks permissions (the kernel does, with default_permissions).  Errors are the errnos
// of tmpfs.  A call that fails has changed nothing.  Calls that return a name's Attr raise the
// inode's lookup count, which Forget lowers.  An inode lives as long as it has links or lookups.
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
  // The error that Open would give for the node of that name, if there is one.  To be called after
  // a region was walked, before anything of it is changed (Region::OpenOptions::inspect).
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
  // kLater: a page that the kernel sends later.  Nobody knows who wrote to it, and the file's
  // set-id bits were dropped when that happened.
  enum class Sent { kByCaller, kLater };
  // Writes less than it was asked for when space runs out on the way.
  Result<size_t> Write(const Context& context, Ino ino, uint64_t offset,
                       absl::Span<const std::byte> bytes, Sent sent = Sent::kByCaller);

  // `mode`: 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE with it, FALLOC_FL_ZERO_RANGE with
  // or without it; EOPNOTSUPP for others.
  Result<void> Fallocate(const Context& context, Ino ino, uint64_t offset, uint64_t length,
                         int mode);
  // `whence`: SEEK_DATA, SEEK_HOLE.  ENXIO.
  Result<uint64_t> Seek(Ino ino, uint64_t offset, int whence);
  // Copies less than it was asked for at the end of the file, or when space runs out.  Whole pages
  // are not copied but shared, until one of the files is written to.
  Result<size_t> CopyRange(const Context& context, Ino from, uint64_t from_offset, Ino to,
                           uint64_t to_offset, size_t size);

  // Holds pages of a file for a process that reads them in place: their bytes do not change until
  // that process unlocks them.  Returns `most` pieces at most.  EINVAL: it is no regular file.
  // EOPNOTSUPP: its contents stand in its inode.
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
  // kNew: nothing may have that name.  kReplace: the old owner of the name is exchanged for the
  // tree in one step, and deleted.  kMerge: the files of the tree are moved into the directory of
  // that name, one by one.
  enum class Placing { kNew, kReplace, kMerge };
  // Makes the tree `name` in `parent`.  If `name` is empty, merges it into `parent` itself.  Whole
  // or not at all, except with kMerge.  ALREADY_EXISTS; NOT_FOUND; RESOURCE_EXHAUSTED; DATA_LOSS:
  // the tree is not sound; FAILED_PRECONDITION: the name has an owner of another kind, or the
  // tree's pages are not lent.
  absl::Status AdoptTree(const Context& context, const BuiltTree& tree, Ino parent,
                         std::string_view name, Placing placing);
  // The same in steps, for a process that renames the tree through the kernel.  The tree is shown
  // under a secret name: a lookup, a rename or a removal of exactly this name in `parent` finds it,
  // and no listing shows it.  Removing it removes all that is in it.  It stays staged as long as
  // the process has the tree's node locked, also when the filesystem is opened again meanwhile.
  // Errors as above.
  absl::Status StageTree(const BuiltTree& tree, Ino parent, uint64_t token);
  static std::string StagedName(uint64_t token);
  // Deletes the tree that is staged there, or what has been exchanged for it.  Also deletes staged
  // trees whose processes have not locked their node any more.
  void DiscardStaged(Ino parent, std::string_view name);

  // Frees what processes that are gone have left: staged trees (not while frozen) and lent pages.
  void Recheck();

  FsStats StatFs() const;

  // Changes the size of a filesystem in use.  An empty optional keeps a value.  0 inodes means "as
  // many as there are pages".  OUT_OF_RANGE, and nothing changed, when more is in use or the region
  // cannot grow so far.
  absl::Status Resize(std::optional<uint64_t> region_pages, std::optional<uint64_t> max_inodes);

  // Between Freeze and Thaw nothing in the region changes, so a copy of it is whole.  Calls that
  // change something wait.  (The kernel's lookups are still counted, and memory that nothing
  // reaches may be given back.)  False when it is frozen, or not frozen, already.
  bool Freeze() { return gate_.Close(); }
  bool Thaw();
  // Runs `fn` between two changes, with all others waiting; also while it is frozen.
  void AtRest(const std::function<void()>& fn);
  // Lets all changes wait while another process has this page locked, which is lent to it.  Stores
  // `token` at the beginning of that page when the rest begins.  Ends also when `ends` returns
  // true, which is asked all the time.  False: the page is not lent.
  bool RestWhileLocked(pkram::Pfn page, uint64_t token, const std::function<bool()>& ends);
  // Holds pages of any files that another process has locked for reading.  False, and none is held,
  // if the filesystem does not rest for another process (RestWhileLocked), or if some are not
  // locked.
  bool HoldAtRest(absl::Span<const pkram::PageRun> runs);
  // To be set before use: tells when nobody is left who could thaw it.  Then waiting ends.
  void set_abandoned(std::function<bool()> abandoned) { gate_.set_abandoned(std::move(abandoned)); }
  // To be set before use: is called for files that lost set-id bits or capabilities because they
  // were written, so that the kernel forgets their old mode.  No lock is held.
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
  // A directory without links that holds a tree.  `ref` keeps its number from being used again.
  struct Staged {
    InodeRef ref;
    StagedAt at;
    std::string name;
  };
  absl::StatusOr<InodeRef> Adopt(const BuiltTree& tree, const StagedAt& at);
  bool IsBuilderHere(pkram::Pfn node) const;
  void AddStaged(InodeRef ref, const StagedAt& at);
  void Discard(InodeRef staged);
  Ino ThroughStaged(Ino parent, std::string_view* name);
  void NoteDoomed(InodeRef inode);
  void ExpectPagesOf(const Inode& deleted);
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
