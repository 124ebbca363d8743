#include "fs/inode_table.h"

#include <algorithm>

#include "fs/layout.h"

namespace pkramfs {

namespace format = pkram::format;

InodeTable::InodeTable(pkram::Region* region, pkram::Pfn node, uint64_t limit)
    : region_(region),
      node_(region->mapping().At<format::Node>(node)),
      limit_(limit),
      entries_(region, &node_->objects) {
  pkram::MutexLock lock(&mu_);
  end_ = std::max<uint64_t>(entries_.end(), kRootIno);
  for (Ino ino = end_; ino-- > kRootIno;) {
    const uint64_t entry = entries_.Get(ino);
    if (format::IsPage(entry)) {
      ++used_;
    } else if (format::EntryPfn(entry).value() <= kMaxGeneration) {
      free_.push_back(ino);
    }
  }
}

pkram::Pfn InodeTable::PageOf(Ino ino) const {
  pkram::MutexLock lock(&mu_);
  const uint64_t entry = entries_.Get(ino);
  return format::IsPage(entry) ? format::EntryPfn(entry) : pkram::Pfn();
}

Result<InodeTable::Reservation> InodeTable::Reserve() {
  pkram::MutexLock lock(&mu_);
  if (used_ >= limit()) return Errno{ENOSPC};
  region_->Unseal(&node_->seal);
  const bool fresh = free_.empty();
  const Ino ino = fresh ? end_ : free_.back();
  const absl::StatusOr<const uint64_t*> word = entries_.Word(ino);
  if (!word.ok()) return ToErrno(word.status());
  // From here on the slot is another's to fill, so it must not look unused to Word.
  if (**word == 0) region_->journal().Publish(*word, format::MakeHole());
  const uint64_t generation = format::EntryPfn(**word).value();
  fresh ? void(++end_) : free_.pop_back();
  ++used_;
  return Reservation{ino, static_cast<uint32_t>(generation), *word};
}

void InodeTable::Cancel(const Reservation& reservation) {
  pkram::MutexLock lock(&mu_);
  --used_;
  free_.push_back(reservation.ino);
}

void InodeTable::Clear(Ino ino, uint32_t generation) {
  pkram::MutexLock lock(&mu_);
  region_->Unseal(&node_->seal);
  const uint64_t next = uint64_t{generation} + 1;
  region_->journal().Publish(entries_.ExistingWord(ino), format::MakeHole(next));
  --used_;
  if (next <= kMaxGeneration) free_.push_back(ino);
}

uint64_t InodeTable::used() const {
  pkram::MutexLock lock(&mu_);
  return used_;
}

std::vector<Ino> InodeTable::All() const {
  pkram::MutexLock lock(&mu_);
  std::vector<Ino> all;
  entries_.ForEachPage(0, ~uint64_t{0}, [&](uint64_t ino, uint64_t) { all.push_back(ino); });
  return all;
}

}  // namespace pkramfs
