#include "fs/xattrs.h"

#include <linux/limits.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "fs/acl.h"
#include "fs/layout.h"
#include "pkram/link_builder.h"
#include "pkram/link_list.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::Pfn;
namespace format = pkram::format;

namespace {

// Calls fn(name, value, entry) for each entry, until it returns false.  Returns false when the blob
// ends in the middle of an entry.
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

int Xattrs::CheckName(std::string_view name) {
  if (IsAcl(name)) return 0;
  for (const std::string_view prefix :
       {std::string_view("user."), kTrusted, std::string_view("security.")}) {
    if (!name.starts_with(prefix)) continue;
    if (name.size() == prefix.size()) return EINVAL;
    return name.size() > kMaxName ? ERANGE : 0;
  }
  return EOPNOTSUPP;
}

bool Xattrs::Sound(std::string_view blob, uint32_t mode) {
  absl::flat_hash_set<std::string_view> names;
  bool sound = true;
  const auto check = [&](std::string_view name, std::string_view value, std::string_view) {
    if (name.empty()) return true;  // was taken away
    sound = CheckName(name) == 0 && value.size() <= XATTR_SIZE_MAX &&
            name.find('\0') == std::string_view::npos && names.insert(name).second;
    if (name == kAccessAcl || name == kDefaultAcl) {
      const std::optional<Acl> acl = Acl::Parse(value);
      sound = sound && acl && !acl->empty() && !S_ISLNK(mode) &&
              (name == kAccessAcl ? acl->ModeBits() == (mode & 0777) : S_ISDIR(mode));
    }
    return sound;
  };
  return ForEach(blob, check) && sound;
}

void Xattrs::ForEachOf(std::string_view blob,
                       absl::FunctionRef<void(std::string_view, std::string_view)> fn) {
  ForEach(blob, [&](std::string_view name, std::string_view value, std::string_view) {
    if (!name.empty()) fn(name, value);
    return true;
  });
}

void Xattrs::Append(std::string* blob, std::string_view name, std::string_view value) {
  const XattrHeader header{static_cast<uint32_t>(name.size()), static_cast<uint32_t>(value.size())};
  blob->append(reinterpret_cast<const char*>(&header), sizeof(header));
  blob->append(name).append(value);
}

std::string Xattrs::Blob() const {
  std::string blob;
  pkram::ForEachLink(region_->mapping(), inode_->header().bytes, [&](const pkram::LinkRef& link) {
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
    if (!name.empty()) fn(name);
    return true;
  });
}

// Takes an attribute away in place: its name becomes part of a value that has no name.  Used when
// there is no space for a blob without it.
void Xattrs::Blot(Change* change, std::string_view name) {
  uint64_t offset = 0;
  uint64_t header = 0;
  ForEach(Blob(), [&](std::string_view n, std::string_view value, std::string_view entry) {
    header = (uint64_t{n.size()} + value.size()) << 32;
    if (n == name) return false;
    offset += entry.size();
    return true;
  });
  std::vector<Pfn> pages;
  pkram::ForEachLink(region_->mapping(), inode_->header().bytes, [&](const pkram::LinkRef& link) {
    pkram::ForEachPageEntry(
        link, [&](uint64_t, uint64_t entry) { pages.push_back(format::EntryPfn(entry)); });
  });
  // Eight bytes at any place are parts of two words at most.
  for (unsigned i = 0; i < sizeof(header); ++i) {
    const uint64_t at = offset + i;
    const auto* const word =
        region_->mapping().At<uint64_t>(pages[at / kPageSize]) + at % kPageSize / sizeof(header);
    const unsigned shift = at % sizeof(header) * 8;
    const uint64_t byte = header >> (8 * i) & 0xff;
    const uint64_t was = change->transaction().Pending(word);
    change->Store(inode_, word, (was & ~(uint64_t{0xff} << shift)) | byte << shift);
  }
}

Result<void> Xattrs::Edit(Change* change, absl::Span<const XattrEdit> edits) {
  std::string blob;
  std::vector<std::string> gone;
  ForEach(Blob(), [&](std::string_view name, std::string_view, std::string_view entry) {
    const bool edited = std::any_of(edits.begin(), edits.end(),
                                    [&](const XattrEdit& edit) { return edit.name == name; });
    if (!edited && !name.empty()) blob.append(entry);
    if (edited) gone.emplace_back(name);
    return true;
  });
  bool adds = false;
  for (const XattrEdit& edit : edits) {
    if (!edit.value) continue;
    Append(&blob, edit.name, *edit.value);
    adds = true;
  }
  if (!adds && gone.empty()) return {};  // what is to go is not there
  if (blob.size() > format::kMaxMetadataBytes) return Errno{ENOSPC};
  // A blob that is no larger than the old one may use the reserve.
  const auto urgency = blob.size() <= inode_->header().bytes_len ? pkram::Urgency::kMakesSpace
                                                                 : pkram::Urgency::kNormal;
  const absl::StatusOr<uint64_t> bytes = pkram::BuildBytes(region_, blob, urgency, change->made());
  if (!bytes.ok() && !adds) {
    for (const std::string& name : gone) Blot(change, name);
    return {};
  }
  if (!bytes.ok()) return ToErrno(bytes.status());
  pkram::CollectList(region_->mapping(), inode_->header().bytes, change->dropped());
  change->Store(inode_, &inode_->header().bytes, *bytes);
  change->Store(inode_, &inode_->header().bytes_len, blob.size());
  return {};
}

}  // namespace pkramfs
