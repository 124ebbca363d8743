#include "fs/check.h"

#include <sys/stat.h>

#include <atomic>
#include <limits>

#include "absl/strings/str_cat.h"
#include "fs/xattrs.h"

namespace pkramfs {

namespace format = pkram::format;

std::string FsCheck::BeginNode(const format::Node& node) {
  ours_ = node.client[0] == kFsMagic && node.client[1] == kFsVersion;
  inodes_.clear();
  return "";
}

std::string FsCheck::BeginObjects(uint64_t end) {
  if (ours_) inodes_.resize(end);
  return "";
}

std::string FsCheck::Hole(uint64_t, uint64_t payload) {
  if (ours_ && payload > kMaxGeneration + 1) return "a free inode has an impossible generation";
  return "";
}

std::string FsCheck::Object(const pkram::WalkedObject& object) {
  if (!ours_) return "";
  const format::ObjectHeader& header = object.object->header;
  const auto& record = *reinterpret_cast<const InodeRecord*>(object.object->client);
  const auto mode = static_cast<uint32_t>(record.mode_nlink);
  const bool directory = S_ISDIR(mode);
  if (object.index < kRootIno) return "is no inode's";
  if (header.client_bytes != format::kObjectClientBytes ||
      header.flags != (format::kBytesAreMetadata | (directory ? format::kPagesAreMetadata : 0))) {
    return "its header is not an inode's";
  }
  if ((mode & ~(S_IFMT | 07777)) != 0) return "its mode is malformed";
  for (const uint64_t word : record.nanos) {
    if ((word & 0xffffffff) >= 1000000000 || word >> 32 >= 1000000000) {
      return "a time is malformed";
    }
  }
  if ((record.generation_flags >> 32 & ~uint64_t{kInlineData | kLinkable}) != 0) {
    return "has unknown inode flags";
  }
  if ((record.generation_flags >> 32 & kLinkable) != 0 && record.mode_nlink >> 32 != 0) {
    return "has names and is said to have had none";
  }
  if (!Xattrs::Sound(object.bytes, mode)) return "its extended attributes are malformed";
  Seen& seen = inodes_[object.index];
  seen.mode = mode;
  seen.nlink = static_cast<uint32_t>(record.mode_nlink >> 32);
  seen.parent = record.parent;
  return directory ? CheckDirectory(record, object) : CheckContents(record, object);
}

std::string FsCheck::CheckContents(const InodeRecord& record,
                                   const pkram::WalkedObject& object) const {
  const bool is_inline = (record.generation_flags >> 32 & kInlineData) != 0;
  switch (record.mode_nlink & S_IFMT) {
    case S_IFREG:
      if (record.size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return "its size is impossible";
      }
      break;
    case S_IFLNK:
      if (record.size == 0 || record.size > kMaxSymlink) return "its size is impossible";
      break;
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      if (record.size != 0 || object.pages != 0 || is_inline) return "has contents";
      return "";
    default:
      return "its mode is malformed";
  }
  const uint64_t allocated_end = object.object->header.allocated_end;
  if (allocated_end > pkram::PagesFor(std::numeric_limits<int64_t>::max())) {
    return "its allocated end is impossible";
  }
  if (is_inline && (record.size > kInlineBytes || object.pages != 0 || allocated_end != 0)) {
    return "its contents stand in two places";
  }
  return "";
}

// One block of a directory: 61 slots of the inode or the 64 of a page.
std::string FsCheck::CheckBlock(Ino directory, uint64_t block, const Slot* slots,
                                absl::flat_hash_set<std::string_view>* names) {
  for (uint64_t place = 0; place < SlotsIn(block);) {
    const uint64_t word = slots[place].header;
    if (word == 0) return "";
    const uint64_t slot = block * kBlockSlots + place;
    const uint64_t length = IsLive(word) ? SlotsFor(SlotNameLen(word)) : word;
    if (length > SlotsIn(block) - place) {
      return absl::StrCat("directory slot ", slot, " is longer than its block");
    }
    place += length;
    if (!IsLive(word)) continue;
    const std::string_view name = SlotName(slots[place - length]);
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
      return absl::StrCat("directory slot ", slot, " holds no name");
    }
    if (!names->insert(name).second) {
      return absl::StrCat("directory slot ", slot, " has the same name as another");
    }
    const Ino ino = SlotIno(word);
    const uint32_t type = SlotType(word);
    if ((word & ~kLiveSlot) >> 52 != 0) {
      return absl::StrCat("directory slot ", slot, " is malformed");
    }
    if (ino >= inodes_.size()) return absl::StrCat("directory slot ", slot, " leads to no inode");
    // Other threads may find names of the same inode.
    Seen& seen = inodes_[ino];
    std::atomic_ref(seen.names).fetch_add(1, std::memory_order_relaxed);
    const uint32_t other =
        std::atomic_ref(seen.named_type).exchange(type, std::memory_order_relaxed);
    if (other != 0 && other != type) {
      return absl::StrCat("directory slot ", slot, " has another type than another name");
    }
    std::atomic_ref(seen.named_parent).store(directory, std::memory_order_relaxed);
    if (type << 12 == S_IFDIR) ++inodes_[directory].subdirectories;
  }
  return "";
}

std::string FsCheck::CheckDirectory(const InodeRecord& record, const pkram::WalkedObject& object) {
  absl::flat_hash_set<std::string_view> names;
  if ((record.generation_flags >> 32) != 0) return "has unknown inode flags";
  // Blocks are made one behind the other.  So a walk over them needs no more steps than there are
  // entries.
  if (object.object->header.allocated_end > object.links * pkram::format::kLinkEntries) {
    return "its allocated end is behind its links";
  }
  std::string problem =
      CheckBlock(object.index, 0, reinterpret_cast<const Slot*>(record.inline_area), &names);
  for (const pkram::WalkedPage& page : object.metadata) {
    if (!problem.empty()) return problem;
    problem =
        CheckBlock(object.index, page.index + 1, reinterpret_cast<const Slot*>(page.bytes), &names);
  }
  if (problem.empty() && record.size != DirectorySize(names.size())) {
    problem = "its size does not fit its entries";
  }
  return problem;
}

std::string FsCheck::CheckLinks() const {
  for (Ino ino = 0; ino < inodes_.size(); ++ino) {
    const Seen& seen = inodes_[ino];
    const auto problem = [&](const char* what) { return absl::StrCat("inode ", ino, " ", what); };
    if (seen.mode == 0) {
      if (seen.names > 0) return problem("has a name but does not exist");
      continue;
    }
    if (seen.names > 0 && seen.named_type << 12 != (seen.mode & S_IFMT)) {
      return problem("has another type than its name says");
    }
    if (!S_ISDIR(seen.mode)) {
      if (seen.names != seen.nlink) return problem("has a wrong link count");
      continue;
    }
    const uint32_t links = seen.nlink == 0 ? 0 : 2 + seen.subdirectories;
    if (seen.nlink != links) return problem("has a wrong link count");
    const uint32_t names = ino == kRootIno || seen.nlink == 0 ? 0 : 1;
    if (seen.names != names) return problem("is a directory with a wrong number of names");
    const Ino parent = ino == kRootIno ? kRootIno : seen.named_parent;
    if (names > 0 || ino == kRootIno) {
      if (seen.parent != parent) return problem("is a directory with a wrong parent");
    }
  }
  return "";
}

// Every directory has exactly one name by now.  So a path of parents that does not end at the root
// is a circle, or ends at a doomed directory.
std::string FsCheck::CheckTree() const {
  enum : uint8_t { kUnknown, kOnPath, kRooted };
  std::vector<uint8_t> state(inodes_.size(), kUnknown);
  for (Ino ino = 0; ino < inodes_.size(); ++ino) {
    if (S_ISDIR(inodes_[ino].mode) && inodes_[ino].nlink == 0) state[ino] = kRooted;
  }
  state[kRootIno] = kRooted;
  std::vector<Ino> path;
  for (Ino start = 0; start < inodes_.size(); ++start) {
    if (!S_ISDIR(inodes_[start].mode) || inodes_[start].nlink == 0) continue;
    Ino ino = start;
    for (; state[ino] == kUnknown; ino = inodes_[ino].parent) {
      state[ino] = kOnPath;
      path.push_back(ino);
    }
    if (state[ino] == kOnPath) return absl::StrCat("inode ", ino, " is a directory in itself");
    for (const Ino passed : path) state[passed] = kRooted;
    path.clear();
  }
  return "";
}

std::string FsCheck::EndNode(const format::Node&) {
  if (!ours_) return "";
  if (inodes_.size() <= kRootIno || !S_ISDIR(inodes_[kRootIno].mode) ||
      inodes_[kRootIno].nlink == 0) {
    return "has no root directory";
  }
  std::string problem = CheckLinks();
  return problem.empty() ? CheckTree() : problem;
}

}  // namespace pkramfs
