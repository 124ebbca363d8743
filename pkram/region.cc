#include "pkram/region.h"

#include <uuid/uuid.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/link_list.h"
#include "pkram/link_map.h"
#include "pkram/page_view.h"
#include "pkram/reading.h"

namespace pkram {
namespace {

using format::SuperBlock;

std::string LimitProblem(const SuperBlock& super, const PageMap& map) {
  if (super.limit == 0 || map.pages() - map.free_pages() <= super.limit) return "";
  return absl::StrCat("more pages are in use than ", super.limit, ", the super block's limit");
}

absl::Status TooSmall(const std::string& name, uint64_t pages, uint64_t needed) {
  constexpr uint64_t kKib = kPageSize / 1024;
  return absl::OutOfRangeError(absl::StrCat(
      name, ": a size of ", pages * kKib, " KiB, with what the region itself takes, is too small: ",
      needed * kKib, " KiB are needed for what is there: choose a larger size"));
}

absl::Status ProblemStatus(const std::string& name, const Problem& problem) {
  return absl::DataLossError(absl::StrCat(name, ": page ", problem.page.value(), ": ", problem.what,
                                          "; `pkramctl check` lists every problem"));
}

PageRun PagesOf(uint64_t offset, uint64_t size) {
  const Pfn first(offset >> kPageShift);
  return {first, PagesFor(offset + size) - first.value()};
}

}  // namespace

absl::Status CheckNodeName(std::string_view name) {
  if (name.empty() || name.size() >= format::kNameBytes ||
      name.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("a node's name has 1 to 255 bytes and no NUL");
  }
  return absl::OkStatus();
}

uint64_t Region::Overhead(uint64_t content_pages) {
  // Links of several half-full files, and the pages of a few directories.
  constexpr uint64_t kSlack = 64;
  return 1 + format::kJournalSlots + content_pages / format::kLinkEntries + kSlack +
         Space::ReserveFor(content_pages);
}

uint64_t Region::ContentPages(uint64_t pages) {
  uint64_t contents = pages - std::min(pages, Overhead(0));
  while (contents > 0 && contents + Overhead(contents) > pages) {
    contents -= contents + Overhead(contents) - pages;
  }
  return contents;
}

namespace {

std::string UuidOf(const SuperBlock& super) {
  char text[37];
  uuid_unparse_lower(super.uuid, text);
  return text;
}

// The glance at something that is no region.
Region::Glance Only(Region::Holds holds) {
  Region::Glance glance;
  glance.holds = holds;
  return glance;
}

}  // namespace

absl::StatusOr<Region::Holds> Region::Look(Backing* backing) {
  const absl::StatusOr<Glance> glance = GlanceAt(backing);
  if (!glance.ok()) return glance.status();
  return glance->holds;
}

absl::StatusOr<Region::Glance> Region::GlanceAt(Backing* backing) {
  const absl::StatusOr<uint64_t> size = backing->Size();
  if (!size.ok()) return size.status();
  if (*size == 0) return Only(Holds::kNothing);
  if (*size < kPageSize) return Only(Holds::kOther);
  const absl::StatusOr<std::unique_ptr<Mapping>> first = MapFirst(backing);
  if (!first.ok()) return first.status();
  return GlanceAt(*(*first)->At<SuperBlock>(Pfn(0)));
}

Region::Glance Region::GlanceAt(const SuperBlock& super) {
  const bool rest = super.version == format::kVersion && super.page_size == kPageSize &&
                    super.journal_first == format::kJournalFirst &&
                    super.journal_slots == format::kJournalSlots;
  if (super.magic == format::kRestoring) return Only(Holds::kRestoring);
  if (super.magic != format::kMagic && !rest) return Only(Holds::kOther);
  return {Holds::kRegion, super.page_count, super.seal != 0, UuidOf(super)};
}

bool Region::IsNew(Backing* backing) {
  const absl::StatusOr<Holds> holds = Look(backing);
  if (!holds.ok() || *holds != Holds::kRegion) return false;
  const absl::StatusOr<std::unique_ptr<Mapping>> first = MapFirst(backing);
  if (!first.ok()) return false;
  const auto& super = *(*first)->At<SuperBlock>(Pfn(0));
  return static_cast<uint32_t>(super.mount_epoch) <= 1;
}

absl::Status Region::Format(Backing* backing, uint64_t pages, Contents contents) {
  if (pages < format::kMinPages || pages > format::kMaxPages) {
    return absl::InvalidArgumentError(absl::StrCat(backing->name(), ": a region has ",
                                                   format::kMinPages, " to ", format::kMaxPages,
                                                   " pages, not ", pages));
  }
  if (absl::Status s = BeyondDevice(*backing, pages); !s.ok()) return s;
  if (contents == Contents::kGiveUp) {
    // If the region could not be opened, nothing is done.
    const absl::StatusOr<std::unique_ptr<Mapping>> all =
        Mapping::Create(backing, pages, Mapping::Access::kReadOnly);
    if (!all.ok()) return all.status();
    backing->ShrinkTo(0);
  }
  const absl::StatusOr<uint64_t> size = backing->Size();
  if (!size.ok()) return size.status();
  if (*size != 0 && contents == Contents::kKeep) {
    return absl::FailedPreconditionError(
        absl::StrCat(backing->name(), ": not empty (left as it is)"));
  }
  SuperBlock super{};
  super.magic = format::kMagic;
  super.version = format::kVersion;
  super.page_size = kPageSize;
  super.incompat = format::kShortLists;
  uuid_generate(super.uuid);
  super.page_count = pages;
  super.journal_first = format::kJournalFirst;
  super.journal_slots = format::kJournalSlots;
  super.created = static_cast<uint64_t>(std::time(nullptr));
  super.checksum = SuperChecksum(super);
  const iovec iov{&super, sizeof(super)};
  if (*size != 0) {
    // The first word decides whether there is a region.  It is stored last, when the journal is
    // empty.
    const PageRun head{Pfn(0), super.journal_first + super.journal_slots};
    if (absl::Status s = backing->FillZeros(head); !s.ok()) return s;
    super.magic = 0;
    if (absl::Status s = backing->Fill(0, {&iov, 1}); !s.ok()) return s;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    super.magic = format::kMagic;
  }
  // An empty region consists of its super block, which one write makes.  So an interrupted format
  // leaves an empty file.
  return backing->Fill(0, {&iov, 1});
}

absl::StatusOr<std::unique_ptr<Region>> Region::Open(std::unique_ptr<Backing> backing,
                                                     const OpenOptions& options) {
  if (absl::Status s = backing->Lock(options.writable); !s.ok()) return s;
  absl::StatusOr<Reading> reading = ReadRegion(backing.get(), options);
  if (!reading.ok()) return reading.status();
  const SuperBlock& super = reading->super();
  const uint64_t kept = super.limit != 0 ? super.limit : super.page_count;
  const uint64_t pages = options.pages != 0 ? options.pages : kept;
  PageMap map(reading->pages());
  Walk walk(reading->view.get(), &map, options.client, Walk::Mode::kStopAtFirst, options.walk);
  walk.Run(super);
  if (!walk.problems().empty()) return ProblemStatus(backing->name(), walk.problems().front());
  map.MakeRoom(reading->mapping->pages());
  if (const std::string what = LimitProblem(super, map); !what.empty()) {
    return DamagedPage(backing->name(), 0, what);
  }
  auto loans = std::make_unique<Loans>(backing->fd(), reading->mapping->pages());
  if (options.writable) loans->Find(&map);
  const uint64_t in_use = map.pages() - map.free_pages();
  const uint64_t needed = in_use + Space::ReserveFor(options.pages);
  if (options.pages != 0 && options.pages < super.page_count &&
      options.pages < std::max(needed, format::kMinPages)) {
    return TooSmall(backing->name(), options.pages, needed);
  }
  if (options.inspect != nullptr) {
    if (absl::Status s = options.inspect(*reading->view, walk); !s.ok()) return s;
  }
  const Space::Size wanted = Space::SizeFor(map, pages);
  std::unique_ptr<Region> region(new Region);
  region->backing_ =
      options.watch != nullptr ? Watched(std::move(backing), options.watch) : std::move(backing);
  region->mapping_ = std::move(reading->mapping);
  region->mapping_->set_watch(options.watch);
  region->journal_ = std::make_unique<Journal>(
      region->mapping_.get(), Pfn(region->super().journal_first), region->super().journal_slots);
  if (options.store_hook) region->journal_->set_store_hook(options.store_hook);
  region->found_ = walk.nodes();
  region->walk_ = options.walk;
  if (options.writable) {
    if (absl::Status s = region->Accept(walk, std::move(map), std::move(loans), wanted, options);
        !s.ok()) {
      return s;
    }
  }
  return region;
}

// From here on the region is changed: committed slots are applied, garbage is cleared, and this
// mount begins.
absl::Status Region::Accept(const Walk& walk, PageMap map, std::unique_ptr<Loans> loans,
                            Space::Size size, const OpenOptions& options) {
  if (absl::Status s = backing_->Reserve(Head(super(), super().page_count)); !s.ok()) return s;
  if (options.lock_memory) {
    if (absl::Status s = LockInMemory(map, size.pages); !s.ok()) return s;
  }
  journal_->Settle(options.receipts);
  journal_->Replay();
  for (const format::JournalStore& s : walk.repairs()) {
    journal_->Publish(reinterpret_cast<const uint64_t*>(mapping_->base() + s.offset), s.value);
  }
  Unseal(&super().seal);
  // The predecessor may be an older program, which goes on if this one fails.
  StoreSuper(size, options.takes_over ? 0 : format::kShortLists);
  if (!options.takes_over) {
    journal_->Publish(&super().mount_epoch, (super().mount_epoch + 1) & 0xffffffff);
  }
  map.SetPages(size.pages);
  loans->Find(&map);  // also of pages that do not exist yet
  map.FinishClaims();
  space_ = std::make_unique<Space>(backing_.get(), mapping_.get(), std::move(map), size.limit,
                                   std::move(loans));
  space_->FollowBacking();
  space_->GiveBackUnused();
  space_->KeepSpare();
  for (const Pfn object : walk.to_shorten()) FinishShortening(object);
  return absl::OkStatus();
}

// For a process that died between the change of an object's list and Shorten.
void Region::FinishShortening(Pfn object) {
  const format::ObjectHeader& header = mapping_->At<format::Object>(object)->header;
  if (!format::IsToShorten(header.pages)) return;  // the list was garbage
  Unseal(&header.seal);
  std::vector<PageRun> link;
  LinkMap(this, &header.pages, LinkMap::Short::kAllowed).Shorten(&link);
  space_->Retire(std::move(link));
}

void Region::StoreSuper(Space::Size size, uint64_t more_incompat) {
  SuperBlock changed = super();
  changed.incompat |= more_incompat;
  changed.page_count = size.pages;
  changed.limit = size.limit;
  changed.checksum = SuperChecksum(changed);
  Transaction t(journal_.get());
  for (const auto word : {&SuperBlock::incompat, &SuperBlock::page_count, &SuperBlock::checksum,
                          &SuperBlock::limit}) {
    if (super().*word != changed.*word) t.Store(&(super().*word), changed.*word);
  }
  t.Commit();
}

absl::Status Region::Resize(uint64_t pages) {
  MutexLock lock(&resize_mu_);
  if (absl::Status s = BeyondDevice(*backing_, pages); !s.ok()) return s;
  if (pages > mapping_->pages()) {
    return absl::OutOfRangeError(
        absl::StrCat(backing_->name(), ": cannot grow beyond ", mapping_->pages(),
                     " pages while it is in use: unmount it, and mount it with the new size"));
  }
  // Growing: space beyond the old size is used only after the region has the new size.  Shrinking:
  // space beyond the new size is not used any more before the region has it.
  const uint64_t before = super().page_count;
  if (pages > before) {
    if (locked_) {
      if (absl::Status s = mapping_->LockInMemory(pages); !s.ok()) return s;
    }
    StoreSuper({pages, 0});
  }
  const absl::StatusOr<Space::Size> size =
      pages < format::kMinPages ? absl::OutOfRangeError("") : space_->Resize(pages);
  if (!size.ok()) {
    return TooSmall(backing_->name(), pages, space_->counts().InUse() + Space::ReserveFor(pages));
  }
  StoreSuper(*size);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Region>> Region::OpenToBuild(std::unique_ptr<Backing> backing,
                                                            Lender* lender) {
  const absl::StatusOr<std::unique_ptr<Mapping>> first = MapFirst(backing.get());
  if (!first.ok()) return first.status();
  const auto& super = *(*first)->At<SuperBlock>(Pfn(0));
  if (super.magic != format::kMagic || super.page_count > format::kMaxPages) {
    return absl::FailedPreconditionError(absl::StrCat(backing->name(), ": not a pkramfs region"));
  }
  const uint64_t pages = super.page_count;
  absl::StatusOr<std::unique_ptr<Mapping>> mapping =
      Mapping::Create(backing.get(), pages, Mapping::Access::kWritable);
  if (!mapping.ok()) return mapping.status();
  std::unique_ptr<Region> region(new Region);
  region->backing_ = std::move(backing);
  region->mapping_ = *std::move(mapping);
  // No slots: nothing that is reachable is changed.
  region->journal_ = std::make_unique<Journal>(region->mapping_.get(), Pfn(0), 0);
  PageMap map = PageMap::WithFree(pages, {});
  map.FinishClaims();
  region->space_ =
      std::make_unique<Space>(region->backing_.get(), region->mapping_.get(), std::move(map));
  region->space_->depot().KeepTail();
  region->space_->set_shortage([region = region.get(), lender] {
    constexpr uint64_t kAtOnce = 8192;  // 32 MiB
    MutexLock lock(&region->borrowing_mu_);
    const absl::StatusOr<PageRun> run = Borrow(lender, region->backing_->fd(), kAtOnce);
    // The region may have grown meanwhile.
    const uint64_t has = region->mapping_->pages();
    if (!run.ok() || run->first.value() >= has || run->count > has - run->first.value()) {
      return false;
    }
    region->space_->Add(*run);
    return true;
  });
  return region;
}

absl::StatusOr<Region::Report> Region::Check(Backing* backing, WalkClient* client,
                                             const Inspect& inspect, Locking locking) {
  if (locking == Locking::kShared) {
    if (absl::Status s = backing->Lock(false); !s.ok()) return s;
  }
  OpenOptions options;
  options.writable = false;
  absl::StatusOr<Reading> reading = ReadRegion(backing, options);
  std::vector<Problem> problems;
  if (const absl::Status refused = reading.status(); absl::IsDataLoss(refused)) {
    reading = ReadDamagedRegion(backing, &problems);
    if (problems.empty()) return refused;
  }
  if (!reading.ok()) return reading.status();
  PageMap map(reading->pages());
  Walk walk(reading->view.get(), &map, client, Walk::Mode::kFindAll);
  const SuperBlock& super = reading->super();
  walk.Run(super);
  Report report;
  report.pages = super.page_count;
  report.sealed = super.seal != 0;
  report.committed_slots = reading->committed_slots;
  report.used_pages = map.pages() - map.free_pages();
  problems.insert(problems.end(), walk.problems().begin(), walk.problems().end());
  if (std::string what = LimitProblem(super, map); !what.empty()) {
    problems.push_back({Pfn(0), std::move(what)});
  }
  report.problems = std::move(problems);
  report.nodes = walk.nodes();
  report.uuid = UuidOf(super);
  if (inspect != nullptr) {
    if (absl::Status s = inspect(*reading->view, walk); !s.ok()) return s;
  }
  return report;
}

Region::~Region() = default;

absl::Status Region::Close(WalkClient* client) {
  space_->GiveBackUnused();
  absl::StatusOr<uint64_t> size = backing_->Size();
  if (!size.ok()) return size.status();
  const PageView view(mapping_.get(), std::min(*size / kPageSize, super().page_count));
  PageMap map(view.existing());
  Walk walk(&view, &map, client, Walk::Mode::kSeal, walk_);
  walk.Run(super());
  if (!walk.problems().empty()) return ProblemStatus(backing_->name(), walk.problems().front());
  for (const format::JournalStore& s : walk.seals()) {
    journal_->Publish(reinterpret_cast<const uint64_t*>(mapping_->base() + s.offset), s.value);
  }
  return absl::OkStatus();
}

absl::Status Region::LockInMemory(const PageMap& map, uint64_t pages) {
  if (absl::Status s = mapping_->LockInMemory(pages); !s.ok()) return s;
  for (PageRun run = map.NextUsed(Pfn()); run.count > 0;
       run = map.NextUsed(run.first + run.count)) {
    if (absl::Status s = mapping_->Populate(run); !s.ok()) return s;
  }
  locked_ = true;
  return absl::OkStatus();
}

absl::Status Region::LockInMemory() {
  MutexLock lock(&resize_mu_);
  if (locked_) return absl::OkStatus();
  if (absl::Status s = mapping_->LockInMemory(super().page_count); !s.ok()) return s;
  // Pages that are filled later are locked when they are filled.  Pages that exist now are locked
  // here.
  locked_ = true;
  const int fd = backing_->fd();
  for (off_t end = 0, at; (at = lseek(fd, end, SEEK_DATA)) >= 0;) {
    end = lseek(fd, at, SEEK_HOLE);
    const Pfn first(static_cast<uint64_t>(at) >> kPageShift);
    const uint64_t last = std::min(PagesFor(static_cast<uint64_t>(end)), super().page_count);
    if (first.value() >= last) break;
    if (absl::Status s = mapping_->Populate({first, last - first.value()}); !s.ok()) {
      locked_ = false;
      mapping_->UnlockFromMemory();
      return s;
    }
  }
  return absl::OkStatus();
}

void Region::UnlockFromMemory() {
  MutexLock lock(&resize_mu_);
  locked_ = false;
  mapping_->UnlockFromMemory();
}

// A copy through the mapping takes a fraction of a call's time, and avoids the lock that the kernel
// takes for each write to a file.  But only the backing's call can say that there is no space for a
// page.  And the first touch of a page takes a fault, which is slower than a call.
bool Region::AtHand(PageRun run) const {
  return space_->depot().Exist(run) && space_->depot().Touched(run);
}

absl::Status Region::Fill(uint64_t offset, absl::Span<const iovec> bytes) {
  uint64_t size = 0;
  for (const iovec& v : bytes) size += v.iov_len;
  const PageRun run = PagesOf(offset, size);
  if (AtHand(run)) {
    std::byte* to = mapping_->WritableRun(run) + offset % kPageSize;
    for (const iovec& v : bytes) {
      std::memcpy(to, v.iov_base, v.iov_len);
      to += v.iov_len;
    }
    std::memset(to, 0, run.count * kPageSize - offset % kPageSize - size);
    return absl::OkStatus();
  }
  absl::Status filled = backing_->Fill(offset, bytes);
  if (!filled.ok() && space_->GiveBackIdle()) filled = backing_->Fill(offset, bytes);
  return filled.ok() ? NoteExist(run) : filled;
}

absl::Status Region::FillZeros(PageRun run) {
  // The pages are made holes first, and may stay holes.
  space_->depot().Forget(run);
  absl::Status filled = backing_->FillZeros(run);
  if (!filled.ok() && space_->GiveBackIdle()) filled = backing_->FillZeros(run);
  return filled.ok() ? NoteExist(run) : filled;
}

absl::Status Region::Overwrite(uint64_t offset, absl::Span<const std::byte> bytes) {
  // A page that is overwritten again and again is worth a fault.  One overwrite in so many touches
  // it.
  constexpr uint32_t kColdOnes = 256;
  static thread_local uint32_t cold = 0;
  const PageRun run = PagesOf(offset, bytes.size());
  if (AtHand(run) || (space_->depot().Exist(run) && ++cold % kColdOnes == 0)) {
    std::memcpy(mapping_->WritableRun(run) + offset % kPageSize, bytes.data(), bytes.size());
    space_->depot().NoteTouched(run);
    return absl::OkStatus();
  }
  const iovec iov{const_cast<std::byte*>(bytes.data()), bytes.size()};
  absl::Status written = backing_->Write(offset, {&iov, 1});
  if (!written.ok() && space_->GiveBackIdle()) written = backing_->Write(offset, {&iov, 1});
  return written.ok() ? NoteExist(run) : written;
}

absl::Status Region::ProveReadable(uint64_t offset, uint64_t size) {
  const PageRun run = PagesOf(offset, size);
  if (space_->depot().Touched(run)) return absl::OkStatus();
  if (!mapping_->Populate(run).ok()) return absl::ResourceExhaustedError("no space for a hole");
  space_->depot().NoteTouched(run);
  return absl::OkStatus();
}

absl::Status Region::MakeExist(PageRun run) {
  const auto first = static_cast<off_t>(run.first.offset());
  const auto end = static_cast<off_t>((run.first + run.count).offset());
  const bool exist = !backing_->device_pages() && lseek(backing_->fd(), first, SEEK_HOLE) >= end;
  if (!exist) {
    if (absl::Status s = backing_->Reserve(run); !s.ok()) return s;
  }
  return NoteExist(run);
}

absl::Status Region::NoteExist(PageRun run) {
  space_->depot().NoteExist(run);
  if (!locked_) return absl::OkStatus();
  absl::Status populated = mapping_->Populate(run);
  if (populated.ok()) space_->depot().NoteTouched(run);
  return populated;
}

void Region::Unseal(const uint64_t* seal) {
  if (LoadWord(seal) != 0) journal_->Publish(seal, 0);
}

// --- Nodes --------------------------------------------------------------------

Pfn Region::FindNode(std::string_view name) const {
  MutexLock lock(&nodes_mu_);
  for (uint64_t word = LoadWord(&super().nodes); word != 0;) {
    const Pfn pfn = format::EntryPfn(word);
    const auto* node = mapping_->At<format::Node>(pfn);
    if (name == node->name) return pfn;
    word = LoadWord(&node->next);
  }
  return Pfn();
}

std::vector<std::string> Region::NodeNames() const {
  MutexLock lock(&nodes_mu_);
  std::vector<std::string> names;
  for (uint64_t word = LoadWord(&super().nodes); word != 0;) {
    const auto* node = mapping_->At<format::Node>(format::EntryPfn(word));
    names.emplace_back(node->name);
    word = LoadWord(&node->next);
  }
  return names;
}

absl::Status Region::TakeName(std::string_view name) {
  MutexLock lock(&nodes_mu_);
  if (taken_.emplace(name).second) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("node '", std::string(name), "' is in use"));
}

void Region::ReturnName(std::string_view name) {
  MutexLock lock(&nodes_mu_);
  taken_.erase(std::string(name));
}

absl::Status Region::PublishNode(Pfn pfn) {
  const auto* node = mapping_->At<format::Node>(pfn);
  if (FindNode(node->name)) {
    return absl::AlreadyExistsError(absl::StrCat("node '", node->name, "' exists"));
  }
  MutexLock lock(&nodes_mu_);
  mapping_->Writable(node)->next = super().nodes;
  journal_->Publish(&super().nodes, format::MakeEntry(pfn));
  return absl::OkStatus();
}

void Region::RemoveNode(Pfn pfn) {
  Retiring retiring(space_.get());
  {
    MutexLock lock(&nodes_mu_);
    const uint64_t* word = &super().nodes;
    while (*word != 0 && format::EntryPfn(*word) != pfn) {
      const auto* node = mapping_->At<format::Node>(format::EntryPfn(*word));
      word = &node->next;
      if (format::EntryPfn(*word) == pfn) Unseal(&node->seal);
    }
    const auto* node = mapping_->At<format::Node>(pfn);
    journal_->Publish(word, node->next);
    ForEachLink(*mapping_, node->objects, [&](const LinkRef& link) {
      ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        CollectObject(*mapping_, format::EntryPfn(entry), &retiring);
      });
      AddLink(*mapping_, link, &retiring);
    });
    AddRun(&retiring, pfn);
  }
}

}  // namespace pkram
