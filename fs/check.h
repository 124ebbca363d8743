// Checks what the walk over a region cannot know: whether the inodes, names and attributes of its
// filesystems are sound.  Used at every open, before anything is trusted.
#ifndef FS_CHECK_H_
#define FS_CHECK_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "fs/layout.h"
#include "fs/types.h"
#include "pkram/walk.h"

namespace pkramfs {

class FsCheck final : public pkram::WalkClient {
 public:
  std::string BeginNode(const pkram::format::Node& node) override;
  std::string BeginObjects(uint64_t end) override;
  std::string Object(const pkram::WalkedObject& object) override;
  std::string Hole(uint64_t index, uint64_t payload) override;
  std::string EndNode(const pkram::format::Node& node) override;

 private:
  // What is known of an inode from its own page and from the names that lead to it.
  struct Seen {
    uint32_t mode = 0;  // 0: no object so far
    uint32_t nlink = 0;
    uint32_t names = 0;
    uint32_t subdirectories = 0;
    uint32_t named_type = 0;
    Ino parent = 0;        // as the inode says
    Ino named_parent = 0;  // as the name says
  };
  std::string CheckContents(const InodeRecord& record, const pkram::WalkedObject& object) const;
  std::string CheckDirectory(const InodeRecord& record, const pkram::WalkedObject& object);
  std::string CheckBlock(Ino directory, uint64_t block, const Slot* slots,
                         absl::flat_hash_set<std::string_view>* names);
  std::string CheckLinks() const;
  std::string CheckTree() const;

  bool ours_ = false;
  std::vector<Seen> inodes_;
};

}  // namespace pkramfs

#endif  // FS_CHECK_H_
