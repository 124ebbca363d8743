#include "fs/xattrs.h"

#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "fs/layout.h"
#include "pkram/link_builder.h"
#include "pkram/link_list.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::Pfn;
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

bool Xattrs::Sound(std::string_view blob) {
  absl::flat_hash_set<std::string_view> names;
  bool sound = true;
  const bool whole = ForEach(blob, [&](std::string_view name, std::string_view, std::string_view) {
    sound = !name.empty() && name.size() <= kMaxName && name.find('\0') == std::string_view::npos &&
            names.insert(name).second;
    return sound;
  });
  return whole && sound;
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

std::string Xattrs::List() const {
  std::string names;
  if (empty()) return names;
  ForEach(Blob(), [&](std::string_view name, std::string_view, std::string_view) {
    names.append(name).push_back('\0');
    return true;
  });
  return names;
}

Result<void> Xattrs::Set(Change* change, std::string_view name,
                         std::optional<std::string_view> value) {
  std::string blob;
  ForEach(Blob(), [&](std::string_view n, std::string_view, std::string_view entry) {
    if (n != name) blob.append(entry);
    return true;
  });
  if (value) {
    const XattrHeader header{static_cast<uint32_t>(name.size()),
                             static_cast<uint32_t>(value->size())};
    blob.append(reinterpret_cast<const char*>(&header), sizeof(header));
    blob.append(name).append(*value);
  }
  if (blob.size() > format::kMaxMetadataBytes) return Errno{ENOSPC};
  // Removing makes space, so it may use what is kept for that.
  const auto urgency = value ? pkram::Urgency::kNormal : pkram::Urgency::kMakesSpace;
  pkram::LinkBuilder links(region_, urgency);
  for (size_t at = 0; at < blob.size(); at += kPageSize) {
    const absl::Status added =
        links.AppendFilledPage(at / kPageSize, std::string_view(blob).substr(at, kPageSize));
    if (!added.ok()) return ToErrno(added);
  }
  pkram::CollectList(region_->mapping(), inode_->header().bytes, change->dropped());
  change->Store(inode_, &inode_->header().bytes, links.Finish(change->made()));
  change->Store(inode_, &inode_->header().bytes_len, blob.size());
  return {};
}

}  // namespace pkramfs
