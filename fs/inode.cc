#include "fs/inode.h"

#include <algorithm>
#include <atomic>

#include "fs/directory.h"

namespace pkramfs {
namespace {

// Parts of the word of lookups.
constexpr uint64_t kGivenMtime = 1u << 31;
constexpr uint64_t kLookups = kGivenMtime - 1;

uint64_t WithLow(uint64_t word, uint32_t low) { return (word >> 32 << 32) | low; }
uint64_t WithHigh(uint64_t word, uint32_t high) {
  return (word & 0xffffffff) | uint64_t{high} << 32;
}

}  // namespace

Timestamp TimeOf(const InodeRecord& record, TimeIndex which) {
  const uint64_t nanos = pkram::LoadWord(&record.nanos[which / 2]);
  return {static_cast<int64_t>(pkram::LoadWord(&record.seconds[which])),
          static_cast<uint32_t>(which % 2 == 0 ? nanos : nanos >> 32)};
}

Inode::Inode(pkram::Region* region, Ino ino, pkram::Pfn page)
    : region_(region),
      ino_(ino),
      page_(page),
      object_(region->mapping().At<pkram::format::Object>(page)) {}

Inode::~Inode() = default;

Attr Inode::GetAttr() {
  Attr attr;
  attr.ino = ino_;
  attr.generation = generation();
  attr.mode = mode();
  attr.nlink = nlink();
  const uint64_t owner = Word(&InodeRecord::owner);
  attr.uid = static_cast<uint32_t>(owner);
  attr.gid = static_cast<uint32_t>(owner >> 32);
  attr.rdev = Word(&InodeRecord::rdev);
  attr.size = size();
  // Inline contents count as the page that tmpfs would spend: programs take a file
  // of no blocks for one big hole.
  if (is_regular()) {
    const uint64_t pages = is_inline() ? attr.size > 0 : allocated();
    attr.blocks = pages * (pkram::kPageSize / 512);
  }
  attr.atime = TimeOf(record(), kAtime);
  attr.mtime = TimeOf(record(), kMtime);
  attr.ctime = TimeOf(record(), kCtime);
  attr.btime = TimeOf(record(), kBtime);
  return attr;
}

// Under a shared lock nobody changes the list.  So the first thread that needs it may adopt it.
pkram::LinkMap& Inode::pages() {
  std::call_once(pages_once_, [this] {
    // In a directory's page there are names, where a short link would stand.
    const auto allowed = region_->may_have_short_lists() && !is_directory()
                             ? pkram::LinkMap::Short::kAllowed
                             : pkram::LinkMap::Short::kNever;
    pages_ = std::make_unique<pkram::LinkMap>(region_, &object_->header.pages, allowed);
    pages_->ForEachPage(0, ~uint64_t{0}, [this](uint64_t, uint64_t) { ++allocated_; });
  });
  return *pages_;
}

uint64_t Inode::allocated() {
  pages();
  return allocated_;
}

Directory& Inode::directory() {
  pkram::LinkMap* const list = &pages();
  std::call_once(directory_once_,
                 [this, list] { directory_ = std::make_unique<Directory>(region_, this, list); });
  return *directory_;
}

uint64_t Inode::MountWord() const {
  const uint64_t word = pkram::LoadWord(&header().lookups);
  return word >> 32 == region_->mount_epoch() ? word & 0xffffffff : 0;
}

// The count and the flag are changed under two locks.
void Inode::SetMountWord(uint64_t clear, uint64_t set) {
  std::atomic_ref<uint64_t> word(*region_->mapping().Unwatched(&header().lookups));
  uint64_t was = word.load(std::memory_order_acquire);
  for (;;) {
    const uint64_t kept = was >> 32 == region_->mount_epoch() ? was & 0xffffffff & ~clear : 0;
    const uint64_t now = uint64_t{region_->mount_epoch()} << 32 | kept | set;
    if (word.compare_exchange_weak(was, now, std::memory_order_acq_rel)) return;
  }
}

uint64_t Inode::lookups() const { return MountWord() & kLookups; }
void Inode::SetLookups(uint64_t count) { SetMountWord(kLookups, std::min(count, kLookups)); }

bool Inode::has_given_mtime() const { return (MountWord() & kGivenMtime) != 0; }
void Inode::set_has_given_mtime(bool given) {
  if (given != has_given_mtime()) SetMountWord(kGivenMtime, given ? kGivenMtime : 0);
}

void Change::SetMode(Inode* inode, uint32_t mode) {
  const uint64_t* const word = &inode->record().mode_nlink;
  Store(inode, word, WithLow(transaction_.Pending(word), mode));
}

void Change::SetOwner(Inode* inode, uint32_t uid, uint32_t gid) {
  Store(inode, &inode->record().owner, WithHigh(uid, gid));
}

void Change::AddLinks(Inode* inode, int32_t delta) {
  const uint64_t* const word = &inode->record().mode_nlink;
  const uint64_t was = transaction_.Pending(word);
  Store(inode, word,
        WithHigh(was, static_cast<uint32_t>(was >> 32) + static_cast<uint32_t>(delta)));
}

void Change::SetFlag(Inode* inode, uint32_t flag, bool value) {
  const uint64_t* const word = &inode->record().generation_flags;
  const uint64_t was = transaction_.Pending(word);
  const auto flags = static_cast<uint32_t>(was >> 32);
  Store(inode, word, WithHigh(was, value ? flags | flag : flags & ~flag));
}

void Change::SetTime(Inode* inode, TimeIndex which, Timestamp time) {
  // The clock may be set back.  And the thread that changes the file first need not have read the
  // clock first.  ctime, which says "changed since", must not go back.
  if (which == kCtime) time = std::max(time, TimeOf(inode->record(), kCtime));
  Store(inode, &inode->record().seconds[which], static_cast<uint64_t>(time.seconds));
  const uint64_t* const nanos = &inode->record().nanos[which / 2];
  const uint64_t was = transaction_.Pending(nanos);
  Store(inode, nanos, which % 2 == 0 ? WithLow(was, time.nanos) : WithHigh(was, time.nanos));
}

Change::~Change() {
  for (const pkram::PageRun& run : made_) region_->space().Discard(run);
}

void Change::Commit(uint64_t answer) {
  transaction_.set_receipt(receipt_, answer);
  transaction_.Commit();
  made_.clear();
  for (const auto& action : after_) action();
  after_.clear();
  region_->space().Retire(std::move(dropped_));
  dropped_.clear();
}

}  // namespace pkramfs
