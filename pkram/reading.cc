#include "pkram/reading.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "pkram/checksum.h"
#include "pkram/journal.h"

namespace pkram {

using format::SuperBlock;

uint32_t SuperChecksum(const SuperBlock& super) {
  return Crc32c(&super, offsetof(SuperBlock, checksum));
}

absl::Status DamagedPage(const std::string& name, uint64_t page, const std::string& what) {
  return absl::DataLossError(absl::StrCat(name, ": page ", page, ": ", what));
}

absl::Status BeyondDevice(const Backing& backing, uint64_t pages) {
  const uint64_t has = backing.device_pages().value_or(format::kMaxPages);
  if (pages <= has) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(backing.name(), ": a region of ", pages,
                                            " pages is larger than the device, which has ", has,
                                            ": choose a smaller size, or a larger device"));
}

PageRun Head(const SuperBlock& super, uint64_t existing) {
  return {Pfn(0), std::min(existing, super.journal_first + super.journal_slots)};
}

namespace {

// Checks what is needed to find the journal.  Without the journal the rest cannot be read.
absl::Status CheckIdentity(const std::string& name, const SuperBlock& super) {
  if (super.magic == format::kRestoring) {
    return absl::FailedPreconditionError(absl::StrCat(
        name, ": an image was restored to it in part: delete it, and restore it anew"));
  }
  if (super.magic != format::kMagic) {
    return absl::FailedPreconditionError(
        absl::StrCat(name,
                     ": not a pkramfs region (left as it is): choose another path, or make it one "
                     "with mkfs.pkramfs, if what is there is not needed"));
  }
  if (super.version != format::kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": a region of format version ",
                                                      super.version, "; this program knows ",
                                                      format::kVersion, ": use a newer pkramfs"));
  }
  if ((super.incompat & ~format::kKnownIncompat) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": the region has features that this program does not know (",
                     absl::Hex(super.incompat), "): use a newer pkramfs"));
  }
  if (super.page_size != kPageSize || super.journal_first != format::kJournalFirst ||
      super.journal_slots == 0 || super.journal_slots > format::kMaxJournalSlots) {
    return absl::DataLossError(absl::StrCat(name, ": page 0: the super block is damaged"));
  }
  return absl::OkStatus();
}

constexpr char kWrongChecksum[] = "the super block's checksum is wrong";
constexpr char kWrongSize[] = "the super block's size is out of bounds";

// Says what is wrong with the super block, or nothing.
std::string GeometryProblem(const SuperBlock& super) {
  if (super.checksum != SuperChecksum(super)) return kWrongChecksum;
  if (super.page_count < format::kMinPages || super.page_count > format::kMaxPages ||
      super.journal_first + super.journal_slots > super.page_count) {
    return kWrongSize;
  }
  if (super.limit != 0 && (super.limit < format::kMinPages || super.limit > super.page_count)) {
    return "the super block's limit is out of bounds";
  }
  return "";
}

absl::Status CheckGeometry(const std::string& name, const SuperBlock& super, bool writable) {
  if (std::string what = GeometryProblem(super); !what.empty()) {
    return DamagedPage(name, 0, what);
  }
  if (writable && (super.ro_compat & ~format::kKnownReadOnlyCompat) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": the region has features that this program can read but not write (",
                     absl::Hex(super.ro_compat), "): use a newer pkramfs"));
  }
  return absl::OkStatus();
}

// Applies each committed slot to the view.  Calls on_damage(pfn, what) for a damaged slot; it
// returns whether to go on with the next.
template <typename OnDamage>
void ReadJournal(Reading* reading, OnDamage on_damage) {
  const auto& raw = *reading->mapping->At<SuperBlock>(Pfn(0));
  const uint64_t existing = reading->view->existing();
  absl::flat_hash_set<uint64_t> seen;
  for (uint64_t i = 0; i < raw.journal_slots; ++i) {
    const Pfn pfn(raw.journal_first + i);
    if (pfn.value() >= existing) break;
    std::vector<format::JournalStore> stores;
    const auto& slot = *reading->mapping->At<format::JournalSlot>(pfn);
    absl::Status read = Journal::ReadSlot(slot, existing * kPageSize, &stores);
    const uint64_t journal_end = Pfn(raw.journal_first + raw.journal_slots).offset();
    for (const format::JournalStore& s : stores) {
      const bool changes =
          s.offset == offsetof(SuperBlock, incompat) ||
          s.offset == offsetof(SuperBlock, page_count) ||
          (s.offset >= offsetof(SuperBlock, checksum) && s.offset < offsetof(SuperBlock, reserved));
      if (s.offset < journal_end && !changes) {
        read = absl::DataLossError(absl::StrCat("stores to offset ", s.offset));
      }
      if (!seen.insert(s.offset).second) {
        read = absl::DataLossError("stores to a word that another slot stores to");
      }
    }
    if (!read.ok()) {
      if (!on_damage(pfn, std::string(read.message()))) return;
      continue;
    }
    for (const format::JournalStore& s : stores) reading->view->Apply(s);
    if (!stores.empty()) ++reading->committed_slots;
  }
}

// Address space for a region that may grow, in pages.
uint64_t RoomToGrow(const Backing& backing, uint64_t pages) {
  constexpr uint64_t kLeast = uint64_t{1} << 24;  // 64 GiB
  return std::min(std::max(kLeast, 4 * pages),
                  std::max(pages, backing.device_pages().value_or(format::kMaxPages)));
}

// A hole of a file becomes a page when it is read through a mapping, and then there must be memory
// for it. (A copy of a region has holes where the region's pages are zeros.)
absl::Status ProveReadable(const std::string& name, Mapping* mapping, PageRun run) {
  if (mapping->Populate(run).ok()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(name, ": some of its first ",
                                                   (run.first + run.count).value(),
                                                   " pages are holes of the file, and there is no "
                                                   "space for them: make space in its filesystem"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Mapping>> MapFirst(Backing* backing) {
  absl::StatusOr<std::unique_ptr<Mapping>> first =
      Mapping::Create(backing, 1, Mapping::Access::kReadOnly);
  if (!first.ok()) return first;
  if (absl::Status s = ProveReadable(backing->name(), first->get(), {Pfn(0), 1}); !s.ok()) return s;
  return first;
}

absl::StatusOr<Reading> ReadRegion(Backing* backing, const Region::OpenOptions& options) {
  absl::StatusOr<uint64_t> size = backing->Size();
  if (!size.ok()) return size.status();
  const std::string& name = backing->name();
  if (*size < kPageSize) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": not a pkramfs region (", *size,
                     " bytes are too few; left as it is): choose another path, or make it one with "
                     "mkfs.pkramfs, if what is there is not needed"));
  }
  Reading reading;
  uint64_t bound = 0;
  absl::Status damaged;
  {
    const absl::StatusOr<std::unique_ptr<Mapping>> first = MapFirst(backing);
    if (!first.ok()) return first.status();
    const auto& super = *(*first)->At<SuperBlock>(Pfn(0));
    if (absl::Status s = CheckIdentity(name, super); !s.ok()) return s;
    // Read again below, where the journal may have its checksum; until then the size only
    // has to be one that can be mapped.
    bound = super.page_count;
    if (super.checksum != SuperChecksum(super)) damaged = DamagedPage(name, 0, kWrongChecksum);
    if (bound > format::kMaxPages) {
      return damaged.ok() ? DamagedPage(name, 0, kWrongSize) : damaged;
    }
  }
  if (absl::Status s = BeyondDevice(*backing, std::max(bound, options.pages)); !s.ok()) {
    return damaged.ok() ? s : damaged;
  }
  const auto access = !options.writable ? Mapping::Access::kReadOnly
                      : options.guarded ? Mapping::Access::kGuarded
                                        : Mapping::Access::kWritable;
  for (;;) {
    const uint64_t least = std::max(bound, options.pages);
    absl::StatusOr<std::unique_ptr<Mapping>> mapping =
        Mapping::Create(backing, options.resizable ? RoomToGrow(*backing, least) : least, access);
    // Less address space will do if there is no more.
    if (!mapping.ok() && options.resizable) mapping = Mapping::Create(backing, least, access);
    if (!mapping.ok()) return damaged.ok() ? mapping.status() : damaged;
    reading.mapping = *std::move(mapping);
    // If the file ends within a page, that page counts as missing: its rest would read as zeros.
    reading.view =
        std::make_unique<PageView>(reading.mapping.get(), std::min(*size / kPageSize, bound));
    reading.committed_slots = 0;
    const PageRun head = Head(*reading.mapping->At<SuperBlock>(Pfn(0)), reading.view->existing());
    if (absl::Status s = ProveReadable(name, reading.mapping.get(), head); !s.ok()) return s;
    absl::Status journal;
    ReadJournal(&reading, [&](Pfn pfn, const std::string& what) {
      journal = DamagedPage(name, pfn.value(), what);
      return false;
    });
    if (!journal.ok()) return damaged.ok() ? journal : damaged;
    if (absl::Status s = CheckIdentity(name, reading.super()); !s.ok()) return s;
    if (absl::Status s = CheckGeometry(name, reading.super(), options.writable); !s.ok()) return s;
    // A committed slot may hold a change of the size itself.
    if (reading.super().page_count == bound) return reading;
    bound = reading.super().page_count;
    if (absl::Status s = BeyondDevice(*backing, bound); !s.ok()) return s;
  }
}

absl::StatusOr<Reading> ReadDamagedRegion(Backing* backing, std::vector<Problem>* problems) {
  const absl::StatusOr<uint64_t> size = backing->Size();
  if (!size.ok()) return size.status();
  uint64_t existing = std::min(*size / kPageSize, format::kMaxPages);
  absl::StatusOr<std::unique_ptr<Mapping>> mapping =
      Mapping::Create(backing, existing, Mapping::Access::kReadOnly);
  if (!mapping.ok()) return mapping.status();
  Reading reading;
  reading.mapping = *std::move(mapping);
  const auto& raw = *reading.mapping->At<SuperBlock>(Pfn(0));
  if (GeometryProblem(raw).empty()) existing = std::min(existing, raw.page_count);
  reading.view = std::make_unique<PageView>(reading.mapping.get(), existing);
  if (absl::Status s = CheckIdentity(backing->name(), reading.super()); !s.ok()) return s;
  if (absl::Status s = ProveReadable(backing->name(), reading.mapping.get(), Head(raw, existing));
      !s.ok()) {
    return s;
  }
  ReadJournal(&reading, [&](Pfn pfn, std::string what) {
    problems->push_back({pfn, std::move(what)});
    return true;
  });
  if (std::string what = GeometryProblem(reading.super()); !what.empty()) {
    problems->push_back({Pfn(0), std::move(what)});
    reading.view->Apply({offsetof(SuperBlock, page_count), existing});
  }
  return reading;
}

}  // namespace pkram
