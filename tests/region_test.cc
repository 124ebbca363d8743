#include "pkram/region.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <set>

#include "pkram/checksum.h"
#include "pkram/link_map.h"
#include "pkram/seal.h"
#include "pkram/stream.h"
#include "tests/region_fixture.h"

namespace pkram {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPages = 4096;

absl::Span<const std::byte> Bytes(const std::string& s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

// A live node "live" with one object that has pages 0, 2 and 600.
void AddLiveNode(Region* region) {
  Mapping& mapping = region->mapping();
  const Pfn node = region->space().AllocateMetadata().value();
  mapping.WritableAt<format::Node>(node)->state = format::kLive;
  std::strcpy(mapping.WritableAt<format::Node>(node)->name, "live");
  ASSERT_EQ(region->PublishNode(node), absl::OkStatus());
  LinkMap objects(region, &mapping.At<format::Node>(node)->objects);
  for (uint64_t i = 0; i < 2; ++i) {
    const Pfn object = region->space().AllocateMetadata().value();
    if (i == 1) mapping.WritableAt<format::Object>(object)->header.allocated_end = 601;
    region->journal().Publish(objects.Word(i).value(), format::MakeEntry(object));
    if (i == 0) continue;
    LinkMap pages(region, &mapping.At<format::Object>(object)->header.pages);
    for (uint64_t index : {0, 2, 600}) {
      const PageRun run = region->space().AllocateData(1, Pfn()).value();
      const std::string bytes(kPageSize, 'p');
      const iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
      ASSERT_EQ(region->backing().Fill(run.first.offset(), {&iov, 1}), absl::OkStatus());
      region->journal().Publish(pages.Word(index).value(), format::MakeEntry(run.first));
    }
  }
  // The third slot is a hole with a payload, as a deleted object leaves it.
  region->journal().Publish(objects.Word(2).value(), format::MakeHole(5));
}

void AddSavedNode(Region* region) {
  auto save = SaveStream::Prepare(region, "saved").value();
  SaveObject* object = save->PrepareObject().value();
  {
    SaveAccess access(object);
    for (uint64_t i = 0; i < 520; ++i) {
      ASSERT_EQ(access.SavePage(i, Bytes(std::string(kPageSize, 's'))), absl::OkStatus());
    }
  }
  ASSERT_EQ(object->WriteBytes(Bytes(std::string(10000, 'b'))), absl::OkStatus());
  ASSERT_EQ(save->Finish(), absl::OkStatus());
}

class RegionTest : public testing::Test {
 protected:
  void SetUp() override {
    FormatRegion(&file_, kPages);
    auto region = OpenRegion(file_).value();
    AddSavedNode(region.get());
    AddLiveNode(region.get());
    if (sealed_) {
      ASSERT_EQ(region->Close(), absl::OkStatus());
    }
    region.reset();
    Locate();
  }
  void Locate() {
    live_ = format::EntryPfn(file_.Peek(offsetof(format::SuperBlock, nodes)));
    saved_ = format::EntryPfn(file_.Peek(live_.offset()));
    live_table_ = Pointer(live_, offsetof(format::Node, objects));
    saved_table_ = Pointer(saved_, offsetof(format::Node, objects));
    live_object_ = Pointer(live_table_, Entry(1));
    saved_object_ = Pointer(saved_table_, Entry(0));
    live_link_ = Pointer(live_object_, offsetof(format::ObjectHeader, pages));
    saved_link_ = Pointer(saved_object_, offsetof(format::ObjectHeader, pages));
    bytes_link_ = Pointer(saved_object_, offsetof(format::ObjectHeader, bytes));
  }
  Pfn Pointer(Pfn page, uint64_t offset) {
    return format::EntryPfn(file_.Peek(page.offset() + offset));
  }
  static uint64_t Entry(uint64_t i) { return offsetof(format::Link, entry) + 8 * i; }

  // The region is refused, the message says so, and nothing has changed.
  void ExpectRefused(const std::string& message, Pfn page) {
    SCOPED_TRACE(message);
    const std::string before = file_.Contents();
    auto opened = OpenRegion(file_);
    ASSERT_FALSE(opened.ok());
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(opened.status().message()),
                HasSubstr("page " + std::to_string(page.value()) + ":"));
    auto report = Region::Check(file_.Reopen().get(), nullptr);
    if (report.ok()) {
      ASSERT_FALSE(report->problems.empty());
    } else {
      EXPECT_THAT(std::string(report.status().message()), HasSubstr(message));
    }
    EXPECT_TRUE(file_.Contents() == before);
  }
  void ExpectRefusedWith(uint64_t offset, uint64_t word, const std::string& message, Pfn page) {
    const uint64_t was = file_.Peek(offset);
    file_.Poke(offset, word);
    ExpectRefused(message, page);
    file_.Poke(offset, was);
  }
  void PokeSuper(const std::function<void(format::SuperBlock*)>& change) {
    format::SuperBlock super;
    std::memcpy(&super, file_.Contents().data(), sizeof(super));
    change(&super);
    super.checksum = Crc32c(&super, offsetof(format::SuperBlock, checksum));
    file_.Poke(0, &super, sizeof(super));
  }
  std::string OpenError(uint64_t pages = 0) {
    auto opened = OpenRegion(file_, pages);
    return opened.ok() ? "" : std::string(opened.status().message());
  }

  MemoryFile file_;
  bool sealed_ = false;
  Pfn live_, saved_, live_table_, saved_table_, live_object_, saved_object_, live_link_,
      saved_link_, bytes_link_;
};

class SealedRegionTest : public RegionTest {
 protected:
  SealedRegionTest() { sealed_ = true; }
};

TEST_F(RegionTest, ComesBackWithEverythingInIt) {
  EXPECT_EQ(UsedPages(file_), 1 + 16 + (1 + 1 + 2 + 2 + 3) + (1 + 1 + 1 + 2 + 520 + 1 + 3));
  auto region = OpenRegion(file_).value();
  EXPECT_THAT(region->NodeNames(), testing::ElementsAre("live", "saved"));
  region->RemoveNode(region->FindNode("saved"));
  region->RemoveNode(region->FindNode("live"));
  region.reset();
  EXPECT_EQ(UsedPages(file_), 17);
}

TEST_F(RegionTest, AnEmptyRegionCostsNextToNothing) {
  MemoryFile file;
  FormatRegion(&file, 1 << 20);
  EXPECT_EQ(file.memory(), kPageSize);
  // While it is open, its reserve is kept, and a kill leaves it.
  OpenRegion(file).value().reset();
  EXPECT_LE(file.size(), 33 * kPageSize);
  ASSERT_EQ(OpenRegion(file).value()->Close(), absl::OkStatus());
  EXPECT_LE(file.size(), 17 * kPageSize);
}

TEST_F(RegionTest, DeletingGivesMemoryBackAndShrinksTheFile) {
  const uint64_t size = file_.size();
  auto region = OpenRegion(file_).value();
  region->RemoveNode(region->FindNode("saved"));
  region->RemoveNode(region->FindNode("live"));
  EXPECT_LE(file_.memory(), 48 * kPageSize);
  ASSERT_EQ(region->Close(), absl::OkStatus());
  EXPECT_LE(file_.size(), 17 * kPageSize);
  EXPECT_LT(file_.size(), size);
}

TEST_F(RegionTest, WhatACrashLeftUnreachableIsGivenBackAtOpen) {
  auto region = OpenRegion(file_).value();
  const PageRun run = region->space().AllocateData(100, Pfn()).value();
  const std::string bytes(run.count * kPageSize, 'z');
  const iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
  ASSERT_EQ(region->backing().Fill(run.first.offset(), {&iov, 1}), absl::OkStatus());
  region.reset();
  const uint64_t memory = file_.memory();
  region = OpenRegion(file_).value();
  EXPECT_EQ(file_.memory(), memory - run.count * kPageSize);
}

// --- One test per reason to refuse ---------------------------------------------------

TEST_F(RegionTest, RefusesWhatIsNotARegion) {
  MemoryFile file;
  file.SetContents(std::string(100, 'x'));
  EXPECT_THAT(std::string(OpenRegion(file).status().message()), HasSubstr("not a pkramfs region"));
  file.SetContents(std::string(10 * kPageSize, 'x'));
  EXPECT_THAT(std::string(OpenRegion(file).status().message()), HasSubstr("not a pkramfs region"));
  EXPECT_EQ(file.Contents(), std::string(10 * kPageSize, 'x'));
  EXPECT_EQ(Region::Format(file.Reopen().get(), 100).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RegionTest, RefusesANewerFormat) {
  PokeSuper([](format::SuperBlock* s) { s->version = 2; });
  EXPECT_THAT(OpenError(), HasSubstr("format version 2; this program knows 1"));
}

TEST_F(RegionTest, FeatureFlagsSayWhetherAnOlderProgramMayReadOrWrite) {
  PokeSuper([](format::SuperBlock* s) { s->compat = 4; });
  EXPECT_EQ(OpenError(), "");
  PokeSuper([](format::SuperBlock* s) { s->ro_compat = 4; });
  EXPECT_THAT(OpenError(), HasSubstr("can read but not write"));
  Region::OpenOptions reading;
  reading.writable = false;
  EXPECT_TRUE(Region::Open(file_.Reopen(), reading).ok());
  PokeSuper([](format::SuperBlock* s) { s->incompat = 4; });
  EXPECT_THAT(OpenError(), HasSubstr("features that this program does not know"));
  EXPECT_FALSE(Region::Open(file_.Reopen(), reading).ok());
}

TEST_F(RegionTest, RefusesADamagedSuperBlock) {
  ExpectRefusedWith(offsetof(format::SuperBlock, created), 99, "checksum is wrong", Pfn(0));
  const std::string good = file_.Contents();
  PokeSuper([](format::SuperBlock* s) { s->page_size = 8192; });
  ExpectRefused("super block is damaged", Pfn(0));
  file_.SetContents(good);
  PokeSuper([](format::SuperBlock* s) { s->journal_first = 5; });
  ExpectRefused("super block is damaged", Pfn(0));
  file_.SetContents(good);
  PokeSuper([](format::SuperBlock* s) { s->journal_slots = 65; });
  ExpectRefused("super block is damaged", Pfn(0));
  file_.SetContents(good);
  PokeSuper([](format::SuperBlock* s) { s->page_count = 63; });
  ExpectRefused("size is out of bounds", Pfn(0));
  PokeSuper([](format::SuperBlock* s) { s->page_count = ~uint64_t{0}; });
  ExpectRefused("size is out of bounds", Pfn(0));
}

TEST_F(RegionTest, RefusesAJournalThatDoesNotFit) {
  MemoryFile file;
  FormatRegion(&file, 64);
  format::SuperBlock super;
  std::memcpy(&super, file.Contents().data(), sizeof(super));
  super.journal_slots = 64;
  super.checksum = Crc32c(&super, offsetof(format::SuperBlock, checksum));
  file.Poke(0, &super, sizeof(super));
  EXPECT_THAT(std::string(OpenRegion(file).status().message()), HasSubstr("out of bounds"));
}

TEST_F(RegionTest, RefusesTooMuchMetadata) {
  const uint64_t at = saved_object_.offset();
  file_.Poke(at + offsetof(format::ObjectHeader, flags), format::kBytesAreMetadata);
  ExpectRefusedWith(at + offsetof(format::ObjectHeader, bytes_len), format::kMaxMetadataBytes + 1,
                    "bytes of metadata", saved_object_);
  ExpectRefusedWith(at + offsetof(format::ObjectHeader, bytes_len), 4096,
                    "more pages than the bytes need", bytes_link_);
  const uint64_t entry = file_.Peek(bytes_link_.offset() + Entry(0));
  ExpectRefusedWith(bytes_link_.offset() + Entry(0), entry | 1, "has an order", bytes_link_);
}

TEST_F(RegionTest, RefusesALimitThatCannotBe) {
  const auto used = static_cast<uint64_t>(UsedPages(file_));
  const auto poke = [this](uint64_t limit) {
    file_.Poke(offsetof(format::SuperBlock, seal), 0);
    file_.Poke(offsetof(format::SuperBlock, limit), limit);
    return std::string(OpenRegion(file_).status().message());
  };
  EXPECT_THAT(poke(63), HasSubstr("limit is out of bounds"));
  EXPECT_THAT(poke(uint64_t{1} << 39), HasSubstr("limit is out of bounds"));
  EXPECT_EQ(poke(0), "");
  if (used > 64) {
    EXPECT_THAT(poke(used - 1), HasSubstr("more pages are in use"));
    EXPECT_EQ(Region::Check(file_.Reopen().get(), nullptr)->problems.size(), 1u);
    EXPECT_EQ(poke(0), "");
  }
}

TEST_F(RegionTest, RefusesATruncatedRegion) {
  const std::string whole = file_.Contents();
  file_.SetContents(whole.substr(0, 20 * kPageSize));
  auto opened = OpenRegion(file_);
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("beyond the end (20 pages)"));
  EXPECT_TRUE(file_.Contents() == whole.substr(0, 20 * kPageSize));
}

// The missing part of a page would read as zeros.
TEST_F(SealedRegionTest, RefusesARegionTruncatedWithinItsLastPage) {
  const std::string whole = file_.Contents();
  const uint64_t pages = whole.size() / kPageSize;
  file_.SetContents(whole.substr(0, whole.size() - 1));
  auto opened = OpenRegion(file_);
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(std::string(opened.status().message()),
              HasSubstr("beyond the end (" + std::to_string(pages - 1) + " pages)"));
  auto report = Region::Check(file_.Reopen().get(), nullptr);
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->problems.empty());
  EXPECT_TRUE(file_.Contents() == whole.substr(0, whole.size() - 1));
}

// A process that was killed within a write leaves a page that nothing points at.
TEST_F(SealedRegionTest, APartOfAPageBehindTheLastOneIsGivenBack) {
  const uint64_t size = file_.size();
  for (const uint64_t part : {uint64_t{1}, kPageSize - 1}) {
    file_.SetContents(file_.Contents() + std::string(part, 'p'));
    ASSERT_EQ(OpenRegion(file_).value()->Close(), absl::OkStatus());
    EXPECT_EQ(file_.size(), size);
  }
}

TEST_F(RegionTest, RefusesADamagedJournal) {
  const uint64_t slot = Pfn(3).offset();
  ExpectRefusedWith(slot, 1, "wrong checksum", Pfn(3));
  ExpectRefusedWith(slot, 256, "says that it holds 256 stores", Pfn(3));
  const auto commit = [&](uint64_t offset) {
    const format::JournalStore store{offset, 0};
    file_.Poke(slot + offsetof(format::JournalSlot, store), &store, sizeof(store));
    return uint64_t{Crc32c(&store, sizeof(store))} << 32 | 1;
  };
  ExpectRefusedWith(slot, commit(3), "stores to offset 3", Pfn(3));
  ExpectRefusedWith(slot, commit(kPages * kPageSize * 2), "stores to offset", Pfn(3));
  ExpectRefusedWith(slot, commit(Pfn(2).offset()), "stores to offset", Pfn(3));
  ExpectRefusedWith(slot, commit(offsetof(format::SuperBlock, magic)), "stores to offset", Pfn(3));
  ExpectRefusedWith(slot, commit(offsetof(format::SuperBlock, journal_slots)), "stores to offset",
                    Pfn(3));
  ExpectRefusedWith(slot, commit(offsetof(format::SuperBlock, reserved)), "stores to offset",
                    Pfn(3));
}

TEST_F(RegionTest, RefusesTwoSlotsThatStoreToOneWord) {
  const format::JournalStore store{live_.offset() + 40, 7};
  for (uint64_t slot : {3, 4}) {
    file_.Poke(Pfn(slot).offset() + 16, &store, sizeof(store));
    file_.Poke(Pfn(slot).offset(), uint64_t{Crc32c(&store, sizeof(store))} << 32 | 1);
  }
  ExpectRefused("another slot stores to", Pfn(4));
}

TEST_F(RegionTest, RefusesPointersThatLeadAstray) {
  const uint64_t nodes = offsetof(format::SuperBlock, nodes);
  ExpectRefusedWith(nodes, format::MakeEntry(Pfn(kPages * 2)), "beyond the end", Pfn(0));
  ExpectRefusedWith(nodes, 1, "malformed", Pfn(0));
  ExpectRefusedWith(nodes, format::MakeEntry(Pfn(3)), "already owns", Pfn(0));
  ExpectRefusedWith(saved_.offset(), format::MakeEntry(live_), "already owns", saved_);
  ExpectRefusedWith(live_link_.offset(), format::MakeEntry(live_link_), "already owns", live_link_);
  ExpectRefusedWith(saved_table_.offset() + Entry(0), format::MakeEntry(live_object_),
                    "already owns", saved_table_);
  ExpectRefusedWith(live_table_.offset() + Entry(1), format::MakeEntry(live_object_, 0, 1),
                    "malformed", live_table_);
  ExpectRefusedWith(saved_table_.offset() + Entry(0), format::MakeEntry(saved_object_, 0, 1),
                    "with an order", saved_table_);
  ExpectRefusedWith(live_object_.offset(), format::MakeEntry(Pfn(0)) | 64, "malformed",
                    live_object_);
}

TEST_F(RegionTest, RefusesEntriesThatAreNone) {
  const uint64_t entry = saved_link_.offset() + Entry(3);
  ExpectRefusedWith(entry, 0, "behind the link's end", saved_link_);
  ExpectRefusedWith(entry, format::MakeHole(), "malformed", saved_link_);
  ExpectRefusedWith(entry, 2 << 5, "malformed", saved_link_);
  ExpectRefusedWith(entry, format::MakeEntry(Pfn(30), 0, 19), "malformed", saved_link_);
  ExpectRefusedWith(entry, format::MakeEntry(Pfn(30), 0, 18), "beyond the end", saved_link_);
  ExpectRefusedWith(live_link_.offset() + Entry(1), format::MakeHole(9), "malformed", live_link_);
  ExpectRefusedWith(live_link_.offset() + Entry(2), format::MakeEntry(live_), "already owns",
                    live_link_);
}

// A page may have several entries, if every one says so.
TEST_F(RegionTest, RefusesToSharePagesThatAreNotMeantToBe) {
  const uint64_t first = live_link_.offset() + Entry(0), second = live_link_.offset() + Entry(1);
  const uint64_t entry = file_.Peek(first), shared = format::MakeShared(entry);
  ExpectRefusedWith(second, entry, "already owns", live_link_);
  ExpectRefusedWith(second, shared, "already owns", live_link_);
  file_.Poke(first, shared);
  EXPECT_GT(UsedPages(file_), 0);  // a flag too many
  ExpectRefusedWith(second, entry, "already owns", live_link_);
  ExpectRefusedWith(second, shared | 1, "malformed", live_link_);
  ExpectRefusedWith(second, shared | format::kHole << 5, "malformed", live_link_);
  ExpectRefusedWith(second, format::MakeShared(format::MakeEntry(live_object_)), "already owns",
                    live_link_);
  ExpectRefusedWith(second, format::MakeShared(format::MakeEntry(Pfn(kPages + 1))),
                    "beyond the end", live_link_);
  ExpectRefusedWith(live_table_.offset() + Entry(1),
                    format::MakeShared(format::MakeEntry(live_object_)), "malformed", live_table_);
  ExpectRefusedWith(saved_link_.offset() + Entry(0), entry, "already owns", saved_link_);
  ExpectRefusedWith(saved_link_.offset() + Entry(0), shared, "malformed", saved_link_);
  const uint64_t flags = live_object_.offset() + offsetof(format::ObjectHeader, flags);
  ExpectRefusedWith(flags, format::kPagesAreMetadata, "malformed", live_link_);
  const int64_t used = UsedPages(file_);
  file_.Poke(second, shared);
  EXPECT_EQ(UsedPages(file_), used);
  auto region = OpenRegion(file_).value();
  EXPECT_TRUE(region->space().Shared(format::EntryPfn(entry)));
}

TEST_F(RegionTest, RefusesLinksOutOfOrder) {
  ExpectRefusedWith(live_link_.offset() + 8, 3, "is not aligned", live_link_);
  ExpectRefusedWith(live_table_.offset() + 8, 510, "out of order", live_table_);
  ExpectRefusedWith(saved_link_.offset() + 8, ~uint64_t{0} - 3, "overflow", saved_link_);
  ExpectRefusedWith(bytes_link_.offset() + 8, 1, "out of order", bytes_link_);
  const Pfn second = Pointer(saved_link_, 0);
  ExpectRefusedWith(second.offset() + 8, 400, "out of order", second);
}

TEST_F(RegionTest, RefusesMalformedNodes) {
  ExpectRefusedWith(live_.offset() + offsetof(format::Node, name), 0, "not a name", live_);
  const std::string good = file_.Contents();
  const std::string endless(256, 'n');
  file_.Poke(live_.offset() + offsetof(format::Node, name), endless.data(), endless.size());
  ExpectRefused("not a name", live_);
  file_.SetContents(good);
  file_.Poke(live_.offset() + offsetof(format::Node, name), "saved", 6);
  ExpectRefused("the same name", saved_);
  file_.SetContents(good);
  ExpectRefusedWith(live_.offset() + offsetof(format::Node, state), 1, "unknown state 1", live_);
}

TEST_F(RegionTest, RefusesMalformedObjects) {
  const uint64_t at = saved_object_.offset();
  ExpectRefusedWith(at + offsetof(format::ObjectHeader, bytes_len), 1, "says that it has 1 bytes",
                    saved_object_);
  ExpectRefusedWith(at + offsetof(format::ObjectHeader, bytes_len), ~uint64_t{0},
                    "says that it has", saved_object_);
  ExpectRefusedWith(at + offsetof(format::ObjectHeader, client_bytes), 4033, "of its own page",
                    saved_object_);
  ExpectRefusedWith(at + offsetof(format::ObjectHeader, flags), 4, "unknown flags", saved_object_);
}

TEST_F(RegionTest, CheckFindsEveryProblem) {
  file_.Poke(live_link_.offset() + Entry(1), format::MakeHole(9));
  file_.Poke(saved_object_.offset() + offsetof(format::ObjectHeader, flags), 4);
  auto report = Region::Check(file_.Reopen().get(), nullptr).value();
  std::set<uint64_t> pages;
  for (const Problem& p : report.problems) pages.insert(p.page.value());
  EXPECT_EQ(pages, (std::set<uint64_t>{live_link_.value(), saved_object_.value()}));
}

// Any number of objects may say that the same pages are theirs, each with a seal that fits.
// To hear all of them out would take longer the more of them there are.
TEST_F(SealedRegionTest, ManyWhoClaimTheSameAreNotAllHeardOut) {
  std::string contents = file_.Contents();
  const uint64_t first = contents.size() / kPageSize;
  constexpr uint64_t kObjects = 500;
  contents.resize(contents.size() + kObjects * kPageSize);
  file_.SetContents(contents);
  const auto word = [&](Pfn page, uint64_t offset) { return file_.Peek(page.offset() + offset); };
  for (uint64_t i = 0; i < kObjects; ++i) {
    format::Object object;
    std::memcpy(&object, contents.data() + saved_object_.offset(), sizeof(object));
    object.header.bytes = object.header.bytes_len = 0;
    SealSum sum;
    sum.AddObject(object);
    for (uint64_t link = object.header.pages; link != 0;
         link = word(format::EntryPfn(link), offsetof(format::Link, next))) {
      sum.Add(contents.data() + format::EntryPfn(link).offset(), kPageSize);
    }
    object.header.seal = sum.Word();
    file_.Poke(Pfn(first + i).offset(), &object, sizeof(object));
    file_.Poke(saved_table_.offset() + Entry(1 + i), format::MakeEntry(Pfn(first + i)));
  }
  uint64_t contested = 0;
  const auto inspect = [&](const PageView&, const Walk& walk) {
    for (const PageRun& run : walk.contested()) contested += run.count;
    return absl::OkStatus();
  };
  auto report = Region::Check(file_.Reopen().get(), nullptr, inspect).value();
  EXPECT_EQ(report.problems.size(), kObjects + 1);  // and the seal of their table
  EXPECT_GT(contested, 2 * 520u);                   // some of them were
  EXPECT_LT(contested, kObjects * 520 / 10);
}

// A link that holds nothing and leads to itself, in an object that says that it is sealed.
TEST_F(SealedRegionTest, AListThatIsItsOwnEndComesToOne) {
  file_.Poke(bytes_link_.offset() + Entry(0), 0);
  file_.Poke(bytes_link_.offset(), format::MakeEntry(bytes_link_));
  uint64_t contested = 0;
  const auto inspect = [&](const PageView&, const Walk& walk) {
    contested = walk.contested().size();
    return absl::OkStatus();
  };
  EXPECT_FALSE(Region::Check(file_.Reopen().get(), nullptr, inspect)->problems.empty());
  EXPECT_LT(contested, 10u);
}

// --- Repairs and replay --------------------------------------------------------------

TEST_F(RegionTest, EntriesBeyondTheAllocatedEndAreClearedNotTrusted) {
  // As a crash in the middle of a truncate leaves it: page 600 is garbage, and its
  // entry may point anywhere.
  file_.Poke(live_object_.offset() + offsetof(format::ObjectHeader, allocated_end), 1);
  file_.Poke(live_link_.offset() + Entry(2), format::MakeEntry(Pfn(123456789)));
  OpenRegion(file_).value().reset();
  EXPECT_EQ(file_.Peek(live_link_.offset()), 0u);
  EXPECT_EQ(file_.Peek(live_link_.offset() + Entry(2)), 0u);
  EXPECT_EQ(file_.Peek(live_link_.offset() + Entry(1)), 0u);
  EXPECT_NE(file_.Peek(live_link_.offset() + Entry(0)), 0u);
  file_.Poke(live_object_.offset() + offsetof(format::ObjectHeader, allocated_end), 10000);
  EXPECT_GT(UsedPages(file_), 0);
}

TEST_F(RegionTest, ACommittedSlotIsReadThroughBeforeItIsApplied) {
  // The slot repairs a word that is broken in the region itself.
  const uint64_t word = live_.offset() + offsetof(format::Node, state);
  const format::JournalStore store{word, format::kLive};
  file_.Poke(word, 77);
  file_.Poke(Pfn(3).offset() + 16, &store, sizeof(store));
  file_.Poke(Pfn(3).offset(), uint64_t{Crc32c(&store, sizeof(store))} << 32 | 1);
  EXPECT_GT(UsedPages(file_), 0);
  EXPECT_EQ(file_.Peek(word), 77u);
  OpenRegion(file_).value().reset();
  EXPECT_EQ(file_.Peek(word), static_cast<uint64_t>(format::kLive));
  EXPECT_EQ(file_.Peek(Pfn(3).offset()), 0u);
}

TEST_F(RegionTest, OneUserAtATimeAndTheErrorNamesIt) {
  auto region = OpenRegion(file_).value();
  auto second = OpenRegion(file_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("in use by process " + std::to_string(getpid())));
}

TEST_F(RegionTest, ChangesItsSizeWhenAsked) {
  OpenRegion(file_, 2 * kPages).value().reset();
  EXPECT_EQ(OpenRegion(file_).value()->space().counts().total, 2 * kPages);
  OpenRegion(file_, kPages).value().reset();
  EXPECT_EQ(OpenRegion(file_).value()->space().counts().total, kPages);
  const std::string before = file_.Contents();
  EXPECT_THAT(OpenError(64),
              HasSubstr("a size of 256 KiB, with what the region itself takes, is too small"));
  EXPECT_TRUE(file_.Contents() == before);
}

// --- Seals ----------------------------------------------------------------------------

TEST_F(SealedRegionTest, EverythingIsSealedAndStaysSoundWhenOpened) {
  auto report = Region::Check(file_.Reopen().get(), nullptr).value();
  EXPECT_TRUE(report.problems.empty());
  EXPECT_TRUE(report.sealed);
  for (const NodeCounts& n : report.nodes) {
    EXPECT_TRUE(n.node_sealed);
    EXPECT_EQ(n.sealed, n.objects);
  }
  OpenRegion(file_).value().reset();
  EXPECT_FALSE(Region::Check(file_.Reopen().get(), nullptr)->sealed);
  EXPECT_GT(UsedPages(file_), 0);
}

TEST_F(SealedRegionTest, AScribbleOnAnythingSealedIsFoundOut) {
  const char* const changed = "was changed since it was sealed";
  ExpectRefusedWith(offsetof(format::SuperBlock, mount_epoch), 77, changed, Pfn(0));
  // The unused words of a node, of an object and of its links are sealed too.
  ExpectRefusedWith(live_.offset() + offsetof(format::Node, client), 1, changed, live_);
  ExpectRefusedWith(live_table_.offset() + Entry(2), format::MakeHole(6), changed, live_);
  ExpectRefusedWith(live_object_.offset() + offsetof(format::ObjectHeader, allocated_end), 602,
                    changed, live_object_);
  const uint64_t data = file_.Peek(saved_link_.offset() + Entry(5));
  const uint64_t other = file_.Peek(saved_link_.offset() + Entry(6));
  file_.Poke(saved_link_.offset() + Entry(5), other);
  file_.Poke(saved_link_.offset() + Entry(6), data);
  ExpectRefused(changed, saved_object_);
}

TEST_F(SealedRegionTest, WhatIsRepairedLosesItsSealFirst) {
  // Garbage behind the end of an object, sealed with it.
  auto region = OpenRegion(file_).value();
  region->Unseal(&region->mapping().At<format::Object>(live_object_)->header.seal);
  file_.Poke(live_object_.offset() + offsetof(format::ObjectHeader, allocated_end), 1);
  ASSERT_EQ(region->Close(), absl::OkStatus());
  region.reset();
  // Nothing that will be repaired was sealed; and the opens after it are sound.
  EXPECT_EQ(file_.Peek(live_object_.offset() + offsetof(format::ObjectHeader, seal)), 0u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(OpenError(), "");
}

TEST_F(SealedRegionTest, TheLookupWordIsOutsideTheSeal) {
  file_.Poke(live_object_.offset() + offsetof(format::ObjectHeader, lookups), 77);
  EXPECT_EQ(OpenError(), "");
}

TEST_F(SealedRegionTest, ACloseThatFindsDamageSealsNothing) {
  auto region = OpenRegion(file_).value();
  file_.Poke(live_link_.offset() + 8, 3);
  EXPECT_EQ(region->Close().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file_.Peek(offsetof(format::SuperBlock, seal)), 0u);
}

// --- Crashes during recovery and sealing -----------------------------------------------

TEST_F(SealedRegionTest, EveryCrashPointOfRecoveryIsASoundRegion) {
  // A region with work for every step of recovery.
  {
    const format::JournalStore store{live_.offset() + offsetof(format::Node, client), 42};
    file_.Poke(Pfn(3).offset() + 16, &store, sizeof(store));
    file_.Poke(Pfn(3).offset(), uint64_t{Crc32c(&store, sizeof(store))} << 32 | 1);
    file_.Poke(live_.offset() + offsetof(format::Node, seal), 0);
    file_.Poke(live_object_.offset() + offsetof(format::ObjectHeader, seal), 0);
    file_.Poke(live_object_.offset() + offsetof(format::ObjectHeader, allocated_end), 1);
  }
  std::vector<std::string> images;
  Region::OpenOptions options;
  options.guarded = true;
  options.pages = 2 * kPages;
  options.store_hook = [&] { images.push_back(file_.Contents()); };
  auto region = Region::Open(file_.Reopen(), options).value();
  EXPECT_GT(images.size(), 8u);
  const size_t recovery = images.size();
  ASSERT_EQ(region->Close(), absl::OkStatus());
  EXPECT_GE(images.size(), recovery + 3);
  region.reset();
  for (size_t i = 0; i < images.size(); ++i) {
    SCOPED_TRACE(i);
    MemoryFile copy;
    copy.SetContents(images[i]);
    EXPECT_EQ(OpenRegion(copy).status(), absl::OkStatus());
    EXPECT_EQ(copy.Peek(live_.offset() + offsetof(format::Node, client)), 42u);
    EXPECT_EQ(copy.Peek(live_link_.offset()), 0u);
    EXPECT_EQ(UsedPages(copy), UsedPages(file_));
  }
}

// (A sanitizer's shadow of what is mapped counts as the process's data.)
#ifndef __clang__
TEST_F(RegionTest, WhatIsRefusedTakesNoMemoryByTheSizeThatItClaims) {
  constexpr uint64_t kClaimed = uint64_t{1} << 34;  // 64 TiB
  file_.Poke(offsetof(format::SuperBlock, page_count), kClaimed);
  format::SuperBlock super;
  std::memcpy(&super, file_.Contents().data(), sizeof(super));
  super.checksum = Crc32c(&super, offsetof(format::SuperBlock, checksum));
  file_.Poke(0, &super, sizeof(super));
  // The first node leads to nothing.
  file_.Poke(live_.offset(), format::MakeEntry(Pfn(kClaimed - 1)));
  const auto refuse = [&] {
    std::ifstream statm("/proc/self/statm");
    uint64_t total, resident, shared, text, library, data = 0;
    statm >> total >> resident >> shared >> text >> library >> data;
    const rlimit limit{data * kPageSize + (16 << 20), RLIM_INFINITY};
    if (setrlimit(RLIMIT_DATA, &limit) != 0) return 1;
    Region::OpenOptions options;
    options.resizable = true;
    const auto opened = Region::Open(file_.Reopen(), options);
    if (!absl::IsDataLoss(opened.status())) return 2;
    const auto report = Region::Check(file_.Reopen().get(), nullptr);
    return report.ok() && report->problems.size() == 1 ? 0 : 3;
  };
  EXPECT_EXIT(std::_Exit(refuse()), testing::ExitedWithCode(0), "");
}
#endif

// Of pages that were to be zeros, and for which there is no space in the end.
class PunchingBacking : public ForwardingBacking {
 public:
  using ForwardingBacking::ForwardingBacking;
  absl::Status FillZeros(PageRun run) override {
    below().GiveBack(run);
    return absl::ResourceExhaustedError("no space");
  }
};

TEST_F(RegionTest, APageThatBecameAHoleIsNotTakenForOneThatExists) {
  file_.wrap = [](std::unique_ptr<Backing> backing) {
    return std::make_unique<PunchingBacking>(std::move(backing));
  };
  const auto region = OpenRegion(file_).value();
  const PageRun run = region->space().AllocateData(4, Pfn()).value();
  const std::string bytes(4 * kPageSize, 'x');
  const iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
  ASSERT_TRUE(region->Fill(run.first.offset(), {&iov, 1}).ok());
  EXPECT_TRUE(region->space().depot().Exist(run));
  EXPECT_FALSE(region->FillZeros(run).ok());
  for (uint64_t i = 0; i < run.count; ++i) {
    EXPECT_FALSE(region->space().depot().Exist({run.first + i, 1}));
  }
}

}  // namespace
}  // namespace pkram
