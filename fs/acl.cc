#include "fs/acl.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace pkramfs {
namespace {

constexpr uint32_t kVersion = 2;
constexpr uint32_t kShifts[] = {6, 3, 0};  // owner, group, others

}  // namespace

std::optional<Acl> Acl::Parse(std::string_view bytes) {
  uint32_t version;
  if (bytes.size() < sizeof(version)) return std::nullopt;
  std::memcpy(&version, bytes.data(), sizeof(version));
  bytes.remove_prefix(sizeof(version));
  if (version != kVersion || bytes.size() % sizeof(Entry) != 0) return std::nullopt;
  Acl acl;
  acl.entries_.resize(bytes.size() / sizeof(Entry));
  if (acl.empty()) return acl;
  std::memcpy(acl.entries_.data(), bytes.data(), bytes.size());
  // In this order: owner, users, group, groups, mask, others.
  uint16_t last = 0;
  bool needs_mask = false, has_mask = false, has_group = false;
  for (const Entry& e : acl.entries_) {
    const bool may_repeat = e.tag == kUser || e.tag == kGroup;
    if (e.perm > 7 || e.tag < last || (e.tag == last && !may_repeat)) return std::nullopt;
    switch (e.tag) {
      case kUserObj:
      case kOther:
        break;
      case kGroupObj:
        has_group = true;
        break;
      case kMask:
        has_mask = true;
        break;
      case kUser:
      case kGroup:
        if (e.id == ~uint32_t{0}) return std::nullopt;
        needs_mask = true;
        break;
      default:
        return std::nullopt;
    }
    last = e.tag;
  }
  if (acl.entries_.front().tag != kUserObj || !has_group || last != kOther ||
      (needs_mask && !has_mask)) {
    return std::nullopt;
  }
  return acl;
}

std::optional<Acl> Acl::Of(std::vector<Entry> entries) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.tag, a.id) < std::pair(b.tag, b.id);
  });
  Acl acl;
  acl.entries_ = std::move(entries);
  return Parse(acl.Bytes());
}

std::string Acl::Bytes() const {
  std::string bytes(reinterpret_cast<const char*>(&kVersion), sizeof(kVersion));
  static_assert(sizeof(Entry) == 8);
  bytes.append(reinterpret_cast<const char*>(entries_.data()), entries_.size() * sizeof(Entry));
  return bytes;
}

bool Acl::IsMode() const {
  return entries_.size() == 3;  // owner, group, others: each is there once
}

const Acl::Entry* Acl::ForClass(uint32_t shift) const {
  if (shift == 6) return &entries_.front();
  if (shift == 0) return &entries_.back();
  const Entry* group = nullptr;
  for (const Entry& e : entries_) {
    if (e.tag == kGroupObj && group == nullptr) group = &e;
    if (e.tag == kMask) group = &e;
  }
  return group;
}

uint32_t Acl::ModeBits() const {
  uint32_t mode = 0;
  for (const uint32_t shift : kShifts) mode |= uint32_t{ForClass(shift)->perm} << shift;
  return mode;
}

void Acl::SetModeBits(uint32_t mode) {
  for (const uint32_t shift : kShifts) {
    ForClass(shift)->perm = static_cast<uint16_t>(mode >> shift & 7);
  }
}

void Acl::Restrict(uint32_t mode) {
  for (const uint32_t shift : kShifts) {
    Entry* const e = ForClass(shift);
    e->perm = static_cast<uint16_t>(e->perm & (mode >> shift & 7));
  }
}

}  // namespace pkramfs
