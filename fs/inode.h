// An inode in use: a view of its object page, its lock, and what is derived from
// the page and kept as long as somebody uses it.
#ifndef FS_INODE_H_
#define FS_INODE_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "fs/layout.h"
#include "fs/types.h"
#include "pkram/link_map.h"
#include "pkram/mutex.h"
#include "pkram/region.h"

namespace pkramfs {

class Directory;

class Inode {
 public:
  Inode(pkram::Region* region, Ino ino, pkram::Pfn page);
  ~Inode();
  Inode(const Inode&) = delete;
  Inode& operator=(const Inode&) = delete;

  // Covers every word of the object, its lists and its directory.
  pkram::SharedMutex mu;

  Ino ino() const { return ino_; }
  pkram::Pfn page() const { return page_; }
  const pkram::format::ObjectHeader& header() const { return object_->header; }
  const InodeRecord& record() const {
    return *reinterpret_cast<const InodeRecord*>(object_->client);
  }

  uint32_t mode() const { return static_cast<uint32_t>(Word(&InodeRecord::mode_nlink)); }
  uint32_t nlink() const { return static_cast<uint32_t>(Word(&InodeRecord::mode_nlink) >> 32); }
  uint64_t size() const { return Word(&InodeRecord::size); }
  uint32_t generation() const {
    return static_cast<uint32_t>(Word(&InodeRecord::generation_flags));
  }
  Ino parent() const { return Word(&InodeRecord::parent); }
  bool is_inline() const { return HasFlag(kInlineData); }
  bool is_linkable() const { return HasFlag(kLinkable); }
  bool is_directory() const { return S_ISDIR(mode()); }
  bool is_regular() const { return S_ISREG(mode()); }

  // All attributes, of one moment.
  Attr GetAttr() ABSL_SHARED_LOCKS_REQUIRED(mu);

  // Whether somebody has set the mtime since the last write.  Pages of a mapping that the kernel
  // sends later may have been stored to before that, so they leave the mtime as it is.
  bool has_given_mtime() const;
  void set_has_given_mtime(bool given);

  // Clears the seal.  To be called before the first change of anything that the seal covers.
  void Unseal() { region_->Unseal(&object_->header.seal); }

  // The page list, adopted on first use.
  pkram::LinkMap& pages() ABSL_SHARED_LOCKS_REQUIRED(mu);
  // Pages that the list holds.
  uint64_t allocated() ABSL_SHARED_LOCKS_REQUIRED(mu);
  void AddAllocated(int64_t pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    allocated_ += static_cast<uint64_t>(pages);
  }

  // The index of a directory's names, built on first use.
  Directory& directory() ABSL_SHARED_LOCKS_REQUIRED(mu);

  // The kernel's lookups, in the region: {mount epoch, whether an mtime was given, count}.  This is
  // the only word that is stored to outside Publish and Transaction. REQUIRES: the inode cache's
  // lock.
  uint64_t lookups() const;
  void SetLookups(uint64_t count);

 private:
  friend class InodeCache;

  bool HasFlag(uint32_t flag) const {
    return (Word(&InodeRecord::generation_flags) >> 32 & flag) != 0;
  }
  uint64_t Word(uint64_t InodeRecord::*field) const { return pkram::LoadWord(&(record().*field)); }
  // The word of lookups, or 0 if it is of another mount.
  uint64_t MountWord() const;
  void SetMountWord(uint64_t clear, uint64_t set);

  pkram::Region* const region_;
  const Ino ino_;
  const pkram::Pfn page_;
  const pkram::format::Object* const object_;
  std::once_flag pages_once_;
  std::unique_ptr<pkram::LinkMap> pages_;
  uint64_t allocated_ = 0;
  std::once_flag directory_once_;
  std::unique_ptr<Directory> directory_;
  uint64_t references_ = 0;  // guarded by the cache's lock
};

// One atomic change of any number of inodes: a transaction that knows the fields
// of an inode, unseals what it changes, and retires what it drops.
//
// REQUIRES, of every call: the inode's lock, exclusively, until after Commit.
class Change {
 public:
  // `context` says who asked for the change.
  Change(pkram::Region* region, const Context& context)
      : region_(region), receipt_(context.receipt), transaction_(&region->journal()) {}

  void Store(Inode* inode, const uint64_t* word, uint64_t value) {
    inode->Unseal();
    transaction_.Store(word, value);
  }
  void SetMode(Inode* inode, uint32_t mode);
  void SetOwner(Inode* inode, uint32_t uid, uint32_t gid);
  void AddLinks(Inode* inode, int32_t delta);
  void SetSize(Inode* inode, uint64_t size) { Store(inode, &inode->record().size, size); }
  void SetFlag(Inode* inode, uint32_t flag, bool value);
  void SetInline(Inode* inode, bool is_inline) { SetFlag(inode, kInlineData, is_inline); }
  void SetAllocatedEnd(Inode* inode, uint64_t end) {
    Store(inode, &inode->header().allocated_end, end);
  }
  void SetParent(Inode* inode, Ino parent) { Store(inode, &inode->record().parent, parent); }
  void SetTime(Inode* inode, TimeIndex which, Timestamp time);
  // Sets the times that a change of contents changes.
  void Modified(Inode* inode, const Context& context) {
    if (!context.sets_times) return;
    inode->set_has_given_mtime(false);
    SetTime(inode, kMtime, context.now);
    SetTime(inode, kCtime, context.now);
  }

  ~Change();
  // Pages that the commit makes reachable.  Without a commit they are freed.
  std::vector<pkram::PageRun>* made() { return &made_; }
  // Pages that are retired once this is committed.
  std::vector<pkram::PageRun>* dropped() { return &dropped_; }
  // Stores to words that belong to no inode.
  pkram::Transaction& transaction() { return transaction_; }
  // Has a function called once this is committed, before Commit returns.
  void AfterCommit(std::function<void()> action) { after_.push_back(std::move(action)); }

  // `answer` is the outcome of the request (see Outcome).
  void Commit(uint64_t answer = 0);

 private:
  pkram::Region* const region_;
  pkram::Receipt* const receipt_;
  pkram::Transaction transaction_;
  std::vector<pkram::PageRun> made_;
  std::vector<pkram::PageRun> dropped_;
  absl::InlinedVector<std::function<void()>, 2> after_;
};

// The packed words of a time.
Timestamp TimeOf(const InodeRecord& record, TimeIndex which);

}  // namespace pkramfs

#endif  // FS_INODE_H_
