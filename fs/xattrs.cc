#include "fs/xattrs.h"

#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "fs/acl.h"
#include "fs/layout.h"
#include "pkram/link_builder.h"
#include "pkram/link_list.h"

namespace pkramfs {

using pkram::kPageSize;
namespace format = pkram::format;

namespace {

// fn(name, value, entry) for each entry, until it returns false; false when the
// blob ends in the middle of one.
template <typename Fn>
bool ForEach(std::string_view blob, Fn fn) {
  while (!blob.empty()) {
    XattrHeader header;
    if (blob.size() < sizeof(header)) return false;
    std::memcpy(&header, blob.data(), sizeof(header));
    const uint64_t size = sizeof(header) + uint64_t{header.name_len} + header.value_len;
    if (size > blob.size()) return false;
    if (!fn(blob.substr(sizeof(header), header.name_len),
            blob.substr(sizeof(header) + header.name_len, header.value_len),
            blob.substr(0, size))) {
      return true;
    }
    blob.remove_prefix(size);
  }
  return true;
}

}  // namespace

bool Xattrs::Sound(std::string_view blob, bool directory) {
  absl::flat_hash_set<std::string_view> names;
  bool sound = true;
  const auto check = [&](std::string_view name, std::string_view value, std::string_view) {
    sound = !name.empty() && name.size() <= kMaxName && name.find('\0') == std::string_view::npos &&
            names.insert(name).second;
    if (name == kAccessAcl || name == kDefaultAcl) {
      const std::optional<Acl> acl = Acl::Parse(value);
      sound = sound && acl && !acl->empty() && (directory || name == kAccessAcl);
    }
    return sound;
  };
  return ForEach(blob, check) && sound;
}

void Xattrs::Append(std::string* blob, std::string_view name, std::string_view value) {
  const XattrHeader header{static_cast<uint32_t>(name.size()), static_cast<uint32_t>(value.size())};
  blob->append(reinterpret_cast<const char*>(&header), sizeof(header));
  blob->append(name).append(value);
}

std::string Xattrs::Blob() const {
  std::string blob;
  pkram::ForEachLink(region_->mapping(), inode_->header().bytes, [&](const format::Link& link) {
    pkram::ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
      blob.append(region_->mapping().At<char>(format::EntryPfn(entry)), kPageSize);
    });
  });
  blob.resize(inode_->header().bytes_len);
  return blob;
}

std::optional<std::string> Xattrs::Get(std::string_view name) const {
  std::optional<std::string> found;
  if (empty()) return found;
  ForEach(Blob(), [&](std::string_view n, std::string_view value, std::string_view) {
    if (n == name) found = std::string(value);
    return !found;
  });
  return found;
}

void Xattrs::ForEachName(absl::FunctionRef<void(std::string_view)> fn) const {
  if (empty()) return;
  ForEach(Blob(), [&](std::string_view name, std::string_view, std::string_view) {
    fn(name);
    return true;
  });
}

Result<void> Xattrs::Edit(Change* change, absl::Span<const XattrEdit> edits) {
  std::string blob;
  ForEach(Blob(), [&](std::string_view name, std::string_view, std::string_view entry) {
    const bool edited = std::any_of(edits.begin(), edits.end(),
                                    [&](const XattrEdit& edit) { return edit.name == name; });
    if (!edited) blob.append(entry);
    return true;
  });
  bool adds = false;
  for (const XattrEdit& edit : edits) {
    if (!edit.value) continue;
    Append(&blob, edit.name, *edit.value);
    adds = true;
  }
  if (blob.size() > format::kMaxMetadataBytes) return Errno{ENOSPC};
  // Removing makes space, so it may use what is kept for that.
  const auto urgency = adds ? pkram::Urgency::kNormal : pkram::Urgency::kMakesSpace;
  const absl::StatusOr<uint64_t> bytes = pkram::BuildBytes(region_, blob, urgency, change->made());
  if (!bytes.ok()) return ToErrno(bytes.status());
  pkram::CollectList(region_->mapping(), inode_->header().bytes, change->dropped());
  change->Store(inode_, &inode_->header().bytes, *bytes);
  change->Store(inode_, &inode_->header().bytes_len, blob.size());
  return {};
}

}  // namespace pkramfs
