// Collects what is sound in a damaged region: inodes, and the names that lead to them.  It is a
// client of the walk that finds all problems:
//
//   Survivors survivors;
//   Region::Check(backing, &survivors, [&](const PageView& pages, const Walk& walk) {
//     for (const SurvivingTree& tree : survivors.trees()) { ... ForEachPiece(pages, ...) ... }
//   });
#ifndef FS_SURVIVORS_H_
#define FS_SURVIVORS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "fs/check.h"
#include "fs/layout.h"
#include "fs/types.h"
#include "pkram/page_view.h"
#include "pkram/walk.h"

namespace pkramfs {

struct SurvivingName {
  std::string name;
  Ino ino;
  uint32_t type;  // S_IFMT >> 12
};

struct SurvivingTree {
  std::string node;
  bool filesystem = false;  // else nothing more is known of it
  struct Inode {
    pkram::Pfn page;
    bool sealed = false;
    std::string xattrs;  // a blob
  };
  std::map<Ino, Inode> inodes;
  struct Wreck {
    pkram::Pfn page;
    std::string what;  // is wrong with it
  };
  std::map<Ino, Wreck> damaged;
  // Names by directory.  Of a damaged directory, the names that can be read, which may be wrong.
  std::map<Ino, std::vector<SurvivingName>> names;
};

class Survivors final : public pkram::WalkClient {
 public:
  std::string BeginNode(const pkram::format::Node& node) override;
  std::string BeginObjects(uint64_t end) override { return check_.BeginObjects(end); }
  std::string Object(const pkram::WalkedObject& object) override;
  void Changed(const pkram::WalkedObject& object) override;
  void Damaged(uint64_t index, pkram::Pfn pfn, const std::string& what) override;
  std::string Hole(uint64_t index, uint64_t payload) override {
    return check_.Hole(index, payload);
  }
  std::string EndNode(const pkram::format::Node& node) override { return check_.EndNode(node); }

  const std::vector<SurvivingTree>& trees() const { return trees_; }

 private:
  void TakeNames(const pkram::WalkedObject& object);

  FsCheck check_;
  std::vector<SurvivingTree> trees_;
};

// Calls fn(offset, bytes) for each piece of a file that is not a hole, or of a symlink's target,
// until it returns false.  Returns false when it did, or when the file cannot be told from another
// one: a page of it is contested (as Merged gives them), and no seal says whose it is.
bool ForEachPiece(const pkram::PageView& pages, const std::vector<pkram::PageRun>& contested,
                  const SurvivingTree::Inode& inode,
                  absl::FunctionRef<bool(uint64_t, std::string_view)> fn);

// Calls fn(index, page) for each page of a sound object's list that begins with `head`, up to
// `end`, and without an index for each link of that list, until it returns false.  Returns false
// when it did.
bool ForEachPage(const pkram::PageView& pages, uint64_t head, uint64_t end,
                 absl::FunctionRef<bool(std::optional<uint64_t>, pkram::Pfn)> fn);

// Sorts runs of pages, and joins runs that touch each other.
std::vector<pkram::PageRun> Merged(std::vector<pkram::PageRun> runs);

// The record of an inode.
const InodeRecord& RecordOf(const pkram::PageView& pages, const SurvivingTree::Inode& inode);

}  // namespace pkramfs

#endif  // FS_SURVIVORS_H_
