#include "mount/tools/archive.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "fs/acl.h"
#include "fs/xattrs.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::PagesFor;

namespace {

constexpr struct {
  uint16_t tag;
  int of_archive;
} kTags[] = {{Acl::kUserObj, ARCHIVE_ENTRY_ACL_USER_OBJ},   {Acl::kUser, ARCHIVE_ENTRY_ACL_USER},
             {Acl::kGroupObj, ARCHIVE_ENTRY_ACL_GROUP_OBJ}, {Acl::kGroup, ARCHIVE_ENTRY_ACL_GROUP},
             {Acl::kMask, ARCHIVE_ENTRY_ACL_MASK},          {Acl::kOther, ARCHIVE_ENTRY_ACL_OTHER}};

bool IsNamed(uint16_t tag) { return tag == Acl::kUser || tag == Acl::kGroup; }

// REQUIRES: the ACL was found sound.
void AddAcl(std::string_view bytes, int type, struct archive_entry* entry) {
  const std::optional<Acl> list = Acl::Parse(bytes);
  for (const Acl::Entry& acl : list->entries()) {
    const auto* const tag = std::ranges::find(kTags, acl.tag, [](const auto& t) { return t.tag; });
    archive_entry_acl_add_entry(entry, type, acl.perm, tag->of_archive,
                                IsNamed(acl.tag) ? static_cast<int>(acl.id) : -1, nullptr);
  }
}

// The ACL of an entry.  Nothing if it says no more than the mode, or is not valid.
std::optional<Acl> AclOf(struct archive_entry* entry, int type) {
  if (archive_entry_acl_reset(entry, type) == 0) return std::nullopt;
  std::vector<Acl::Entry> acls;
  int its_type = 0, perm = 0, tag = 0, id = 0;
  const char* name = nullptr;
  while (archive_entry_acl_next(entry, type, &its_type, &perm, &tag, &id, &name) == ARCHIVE_OK) {
    const auto* const its =
        std::ranges::find(kTags, tag, [](const auto& t) { return t.of_archive; });
    if (its == std::end(kTags)) continue;
    acls.push_back({its->tag, static_cast<uint16_t>(perm & 7),
                    IsNamed(its->tag) ? static_cast<uint32_t>(id) : ~uint32_t{0}});
  }
  std::optional<Acl> acl = Acl::Of(std::move(acls));
  if (!acl || acl->empty()) return std::nullopt;
  if (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS && acl->IsMode()) return std::nullopt;
  return acl;
}

}  // namespace

void ToEntry(const TreeBuilder::Attributes& attributes, struct archive_entry* entry) {
  archive_entry_set_mode(entry, attributes.mode);
  archive_entry_set_uid(entry, attributes.uid);
  archive_entry_set_gid(entry, attributes.gid);
  const auto set = [&](auto setter, const Timestamp& time) {
    setter(entry, time.seconds, static_cast<long>(time.nanos));
  };
  set(archive_entry_set_atime, attributes.atime);
  set(archive_entry_set_mtime, attributes.mtime);
  set(archive_entry_set_ctime, attributes.ctime);
  set(archive_entry_set_birthtime, attributes.btime);
  if (S_ISCHR(attributes.mode) || S_ISBLK(attributes.mode)) {
    archive_entry_set_rdev(entry, makedev(static_cast<unsigned>(attributes.rdev >> 32),
                                          static_cast<unsigned>(attributes.rdev)));
  }
  Xattrs::ForEachOf(attributes.xattrs, [&](std::string_view name, std::string_view value) {
    if (name == kAccessAcl) return AddAcl(value, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, entry);
    if (name == kDefaultAcl) return AddAcl(value, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, entry);
    archive_entry_xattr_add_entry(entry, std::string(name).c_str(), value.data(), value.size());
  });
}

TreeBuilder::Attributes FromEntry(struct archive_entry* entry) {
  TreeBuilder::Attributes a;
  a.mode = archive_entry_mode(entry);
  a.uid = static_cast<uint32_t>(archive_entry_uid(entry));
  a.gid = static_cast<uint32_t>(archive_entry_gid(entry));
  const auto time = [&](auto is_set, auto seconds, auto nanos, const Timestamp& otherwise) {
    if (is_set(entry) == 0) return otherwise;
    const long n = nanos(entry);
    return Timestamp{seconds(entry), n >= 0 && n < 1000000000 ? static_cast<uint32_t>(n) : 0};
  };
  a.mtime = time(archive_entry_mtime_is_set, archive_entry_mtime, archive_entry_mtime_nsec, {});
  a.atime =
      time(archive_entry_atime_is_set, archive_entry_atime, archive_entry_atime_nsec, a.mtime);
  a.ctime =
      time(archive_entry_ctime_is_set, archive_entry_ctime, archive_entry_ctime_nsec, a.mtime);
  a.btime = time(archive_entry_birthtime_is_set, archive_entry_birthtime,
                 archive_entry_birthtime_nsec, a.mtime);
  if (S_ISCHR(a.mode) || S_ISBLK(a.mode)) {
    a.rdev = uint64_t{static_cast<uint32_t>(archive_entry_rdevmajor(entry))} << 32 |
             static_cast<uint32_t>(archive_entry_rdevminor(entry));
  }
  std::map<std::string, std::string> xattrs;
  archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    if (Xattrs::CheckName(name) != 0 || IsAcl(name)) continue;
    // libarchive itself writes each twice, in two ways.
    xattrs[name] = std::string(static_cast<const char*>(value), size);
  }
  for (const auto& [its_name, its_value] : xattrs) Xattrs::Append(&a.xattrs, its_name, its_value);
  if (const auto access = AclOf(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS)) {
    Xattrs::Append(&a.xattrs, kAccessAcl, access->Bytes());
    // libarchive keeps the entry of the owning group in the mode, where the mask belongs.
    a.mode = (a.mode & ~0777u) | access->ModeBits();
  }
  if (S_ISDIR(a.mode)) {
    const auto inherited = AclOf(entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT);
    if (inherited) Xattrs::Append(&a.xattrs, kDefaultAcl, inherited->Bytes());
  }
  return a;
}

// --- Reading one ----------------------------------------------------------------------------

namespace {

class ArchiveSource {
 public:
  ArchiveSource(struct archive* archive, TreeBuilder* builder, pkram::Region* region,
                ImportProgress* progress)
      : archive_(archive), builder_(builder), region_(region), progress_(progress) {
    top_.is_directory = true;
    top_.attributes = Implied();
    top_.ino = builder->Reserve();
  }

  absl::Status ReadAll() {
    struct archive_entry* entry = nullptr;
    for (;;) {
      const int got = archive_read_next_header(archive_, &entry);
      if (got == ARCHIVE_EOF) break;
      if (got == ARCHIVE_RETRY) continue;
      if (got < ARCHIVE_WARN) return Damaged("the archive");
      if (absl::Status s = Read(entry); !s.ok()) return s;
    }
    if (archive_file_count(archive_) == 0) {
      return absl::FailedPreconditionError("the archive: nothing is in it, or it is none");
    }
    return Make(&top_, TreeBuilder::root());
  }
  Ino top() const { return top_.ino; }

 private:
  struct Node {
    bool is_directory = false;
    Ino ino = 0;
    uint32_t links = 1;
    TreeBuilder::Attributes attributes;  // of a directory; of others the mode
    std::map<std::string, Node*> children;
  };

  // Attributes of a directory that is not an entry of the archive.
  static TreeBuilder::Attributes Implied() {
    TreeBuilder::Attributes a;
    a.mode = S_IFDIR | 0755;
    a.uid = geteuid();
    a.gid = getegid();
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    a.atime = a.mtime = a.ctime = a.btime = {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
    return a;
  }
  absl::Status Damaged(const std::string& path) const {
    const char* const why = archive_error_string(archive_);
    return absl::DataLossError(absl::StrCat(path, ": ", why != nullptr ? why : "damaged"));
  }
  Node* NewNode() {
    nodes_.push_back(std::make_unique<Node>());
    return nodes_.back().get();
  }

  // Resolves a path: returns its directory, which is made, and its last part.
  absl::StatusOr<std::pair<Node*, std::string>> Find(const std::string& path) {
    Node* directory = &top_;
    std::string last;
    for (const absl::string_view part : absl::StrSplit(path, '/')) {
      if (part.empty() || part == ".") continue;
      if (part == ".." || part.size() > kMaxName) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": no path of a tree"));
      }
      if (!last.empty()) {
        Node*& next = directory->children[last];
        if (next == nullptr) {
          next = NewNode();
          next->is_directory = true;
          next->attributes = Implied();
          next->ino = builder_->Reserve();
        }
        if (!next->is_directory) {
          return absl::InvalidArgumentError(absl::StrCat(path, ": leads through a file"));
        }
        directory = next;
      }
      last = std::string(part);
    }
    return std::pair(directory, last);
  }

  absl::Status Read(struct archive_entry* entry) {
    const char* const named = archive_entry_pathname(entry);
    if (named == nullptr) return absl::DataLossError("the archive: a path in it is no text");
    const std::string path = named;
    const auto place = Find(path);
    if (!place.ok()) return place.status();
    const auto& [directory, name] = *place;
    TreeBuilder::Attributes attributes = FromEntry(entry);
    if (!Xattrs::Sound(attributes.xattrs, attributes.mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": its extended attributes or ACLs cannot be kept"));
    }
    const char* const hard_link = archive_entry_hardlink(entry);
    const bool is_directory = hard_link == nullptr && S_ISDIR(attributes.mode);
    if (name.empty()) {
      if (is_directory) top_.attributes = attributes;
      return absl::OkStatus();
    }
    Node*& node = directory->children[name];
    if (is_directory) {
      if (node == nullptr) {
        node = NewNode();
        node->is_directory = true;
        node->ino = builder_->Reserve();
      }
      if (!node->is_directory) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": is a file in it, too"));
      }
      node->attributes = std::move(attributes);
      return absl::OkStatus();
    }
    if (node != nullptr) {  // what comes later counts
      if (node->is_directory) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": is a directory in it, too"));
      }
      if (--node->links == 0) builder_->Drop(node->ino);
      node = nullptr;
    }
    if (hard_link != nullptr) {
      const auto other = Find(hard_link);
      if (!other.ok()) return other.status();
      const auto it = other->first->children.find(other->second);
      if (it == other->first->children.end() || it->second == nullptr || it->second->is_directory) {
        return absl::DataLossError(
            absl::StrCat(path, ": a link to ", hard_link, ", which is not there before it"));
      }
      node = it->second;
      ++node->links;
      return absl::OkStatus();
    }
    node = NewNode();
    node->ino = builder_->Reserve();
    node->attributes.mode = attributes.mode;
    ++progress_->inodes;
    return MakeFile(node->ino, attributes, entry, path);
  }

  absl::Status MakeFile(Ino ino, const TreeBuilder::Attributes& attributes,
                        struct archive_entry* entry, const std::string& path) {
    if (S_ISLNK(attributes.mode)) {
      const char* const target = archive_entry_symlink(entry);
      const std::string_view text = target == nullptr ? "" : target;
      if (text.empty() || text.size() > kMaxSymlink) {
        return absl::DataLossError(absl::StrCat(path, ": a symbolic link without a target"));
      }
      return Named(builder_->MakeSymlink(ino, attributes, text), path);
    }
    if (!S_ISREG(attributes.mode)) return Named(builder_->MakeNode(ino, attributes), path);
    // An entry without a size is read as a whole first.
    std::string whole;
    uint64_t at = 0;
    const bool has_size = archive_entry_size_is_set(entry) != 0;
    const auto read = [&](uint64_t offset, char* bytes, size_t size) -> absl::Status {
      if (!has_size) {
        whole.copy(bytes, size, offset);
        return absl::OkStatus();
      }
      // The entry is read in order; its holes are read as zeros.
      static thread_local std::vector<char> skipped(64 << 10);
      while (at < offset + size) {
        const bool skips = at < offset;
        char* const to = skips ? skipped.data() : bytes + (at - offset);
        const size_t n = skips ? std::min<size_t>(skipped.size(), offset - at) : offset + size - at;
        const la_ssize_t got = archive_read_data(archive_, to, n);
        if (got < 0) return Damaged(path);
        if (got == 0) {
          return absl::DataLossError(absl::StrCat(path, ": the archive ends in it"));
        }
        at += static_cast<uint64_t>(got);
      }
      return absl::OkStatus();
    };
    if (!has_size) {
      char buffer[65536];
      for (la_ssize_t got; (got = archive_read_data(archive_, buffer, sizeof(buffer))) != 0;) {
        if (got < 0) return Damaged(path);
        whole.append(buffer, static_cast<size_t>(got));
      }
    }
    const uint64_t size =
        has_size ? static_cast<uint64_t>(archive_entry_size(entry)) : whole.size();
    progress_->bytes += size;
    std::vector<char> buffer;
    const TreeBuilder::Reader reader = {
        [&](uint64_t offset, absl::Span<char> bytes) {
          return read(offset, bytes.data(), bytes.size());
        },
        [&](uint64_t offset, uint64_t n, uint64_t to) -> absl::Status {
          buffer.resize(256 << 10);
          for (uint64_t done = 0; done < n;) {
            const uint64_t piece = std::min<uint64_t>(buffer.size(), n - done);
            absl::Status got = read(offset + done, buffer.data(), piece);
            if (!got.ok()) return got;
            const iovec iov{buffer.data(), piece};
            got = region_->Fill(to + done, {&iov, 1});
            if (!got.ok()) return got;
            done += piece;
          }
          return absl::OkStatus();
        }};
    return Named(builder_->MakeFile(ino, attributes, size, ExtentsOf(entry, size), reader), path);
  }

  static std::vector<TreeBuilder::Extent> ExtentsOf(struct archive_entry* entry, uint64_t size) {
    std::vector<TreeBuilder::Extent> extents;
    if (archive_entry_sparse_reset(entry) == 0) {
      if (size > 0) extents.push_back({0, size});
      return extents;
    }
    la_int64_t offset = 0, length = 0;
    while (archive_entry_sparse_next(entry, &offset, &length) == ARCHIVE_OK) {
      if (length <= 0 || offset < 0) continue;
      const uint64_t from = static_cast<uint64_t>(offset) / kPageSize * kPageSize;
      const uint64_t end =
          std::min(size, PagesFor(static_cast<uint64_t>(offset + length)) * kPageSize);
      if (end <= from) continue;
      if (!extents.empty() && from <= extents.back().offset + extents.back().size) {
        extents.back().size = std::max(extents.back().size, end - extents.back().offset);
      } else {
        extents.push_back({from, end - from});
      }
    }
    return extents;
  }

  static absl::Status Named(absl::Status status, const std::string& path) {
    if (!absl::IsResourceExhausted(status)) return status;
    return absl::ResourceExhaustedError(absl::StrCat(path, ": no space is left in the region"));
  }

  // Directories come last: their names are known then.
  absl::Status Make(Node* directory, Ino parent) {
    std::vector<TreeBuilder::Name> names;
    for (const auto& [name, child] : directory->children) {
      if (child->is_directory) {
        if (absl::Status s = Make(child, directory->ino); !s.ok()) return s;
      } else if (child->links > 1) {
        builder_->SetLinks(child->ino, child->links);
      }
      names.push_back({name, child->ino, child->attributes.mode});
    }
    ++progress_->inodes;
    return Named(builder_->MakeDirectory(directory->ino, parent, directory->attributes, names),
                 "the archive");
  }

  struct archive* const archive_;
  TreeBuilder* const builder_;
  pkram::Region* const region_;
  ImportProgress* const progress_;
  Node top_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace

absl::StatusOr<Filesystem::BuiltTree> BuildFromArchive(int fd, const std::string& name,
                                                       pkram::Region* region,
                                                       ImportProgress* progress) {
  const ArchivePtr archive(archive_read_new());
  archive_read_support_filter_all(archive.get());
  archive_read_support_format_all(archive.get());
  if (archive_read_open_fd(archive.get(), fd, 1 << 20) != ARCHIVE_OK) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": ", archive_error_string(archive.get())));
  }
  TreeBuilder builder(region);
  ArchiveSource source(archive.get(), &builder, region, progress);
  const absl::Status read = source.ReadAll();
  if (!read.ok()) {
    return absl::Status(read.code(), absl::StrCat(name, ": ", read.message()));
  }
  return builder.Finish(source.top(), S_IFDIR);
}

}  // namespace pkramfs
