#include "tests/fuzz/targets.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "fs/layout.h"
#include "fs/survivors.h"
#include "pkram/checksum.h"
#include "pkram/link_list.h"
#include "pkram/seal.h"
#include "pkram/stream.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::MemoryFile;
using pkram::Pfn;
using pkram::Region;
using pkram::format::JournalSlot;
using pkram::format::JournalStore;
using pkram::format::Link;
using pkram::format::Node;
using pkram::format::ObjectHeader;
using pkram::format::SuperBlock;

constexpr uint64_t kPages = 192;

[[noreturn]] void Broken(const std::string& what) {
  std::fprintf(stderr, "broken: %s\n", what.c_str());
  std::abort();
}
void Require(bool kept, const std::string& what) {
  if (!kept) Broken(what);
}

// Reads that nothing may leave out.
void Use(uint64_t value) {
  static volatile uint64_t sink = 0;
  sink = sink + value;
}

// --- The sound region ------------------------------------------------------------------------

struct Base {
  std::string bytes;
  std::vector<uint64_t> metadata;  // pages, by number
  std::vector<uint64_t> seals;     // offsets of words
};

class Builder {
 public:
  Base Build() {
    pkram::FormatRegion(&file_, kPages);
    Mounted mounted(file_);
    Fill(*mounted.fs());
    Save(mounted.region());
    Collect(*mounted.region());
    mounted.Close();
    base_.bytes = file_.Contents();
    base_.bytes.resize(kPages * kPageSize);
    return base_;
  }

 private:
  template <typename T>
  static void Must(const Result<T>& result) {
    Require(result.ok(), "the sound region cannot be made");
  }
  // Of everything something, in few pages.
  static void Fill(Filesystem& fs) {
    const Context ctx{.uid = 0, .gid = 0, .now = {2000, 1}};
    const Ino d = (*fs.MakeDirectory(ctx, kRootIno, "d", 0755)).ino;
    const Ino below = (*fs.MakeDirectory(ctx, d, "below", 0755)).ino;
    for (int i = 0; i < 64; ++i) {
      const std::string name = "n" + std::to_string(i);
      if (i < 3) {
        fs.Forget((*fs.MakeNode(ctx, d, name, S_IFREG | 0644)).ino, 1);
      } else {
        Must(fs.Link(ctx, (*fs.Lookup(d, "n0")).ino, d, name));
      }
    }
    const Ino small = (*fs.Lookup(d, "n1")).ino;
    Must(fs.Write(ctx, small, 0, BytesOf("small")));
    const Ino large = (*fs.MakeNode(ctx, below, "large", S_IFREG | 0644)).ino;
    Must(fs.Write(ctx, large, 0, BytesOf(std::string(3 * kPageSize, 'l'))));
    Must(fs.Write(ctx, large, 511 * kPageSize, BytesOf(std::string(100, 'f'))));
    const Ino twin = (*fs.MakeNode(ctx, below, "twin", S_IFREG | 0644)).ino;
    Must(fs.CopyRange(ctx, large, 0, twin, 0, 2 * kPageSize));
    Must(fs.MakeSymlink(ctx, d, "short", "target"));
    Must(fs.MakeSymlink(ctx, d, "long", std::string(3999, 't')));
    Must(fs.SetXattr(ctx, small, "user.a", std::string(300, 'x'), 0));
    Must(fs.MakeNode(ctx, d, "fifo", S_IFIFO | 0600));
    const Ino gone = (*fs.MakeNode(ctx, d, "gone", S_IFREG | 0644)).ino;
    Must(fs.Unlink(ctx, d, "gone"));
    fs.Forget(gone, 1);
  }
  static void Save(Region* region) {
    auto save = pkram::SaveStream::Prepare(region, "saved").value();
    pkram::SaveObject* const object = save->PrepareObject().value();
    {
      pkram::SaveAccess access(object);
      const std::string pages(kPageSize << 2, 's');
      for (const uint64_t index : {0, 4, 100}) {
        (void)access.SavePage(index, BytesOf(pages), 2);
      }
    }
    (void)object->WriteBytes(BytesOf(std::string(9000, 'b')));
    (void)save->PrepareObject().value()->WriteBytes(BytesOf("more"));
    (void)save->Finish();
  }
  void CollectList(const pkram::Mapping& mapping, uint64_t head, bool pages_too) {
    pkram::ForEachLink(mapping, head, [&](const pkram::LinkRef& link) {
      if (!link.is_short()) base_.metadata.push_back(mapping.PfnOf(link.link).value());
      pkram::ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        if (pages_too) base_.metadata.push_back(pkram::format::EntryPfn(entry).value());
      });
    });
  }
  void Collect(Region& region) {
    const pkram::Mapping& mapping = region.mapping();
    base_.metadata = {0, 1, 2};
    base_.seals = {offsetof(SuperBlock, seal)};
    for (const std::string& name : region.NodeNames()) {
      const Pfn page = region.FindNode(name);
      base_.metadata.push_back(page.value());
      base_.seals.push_back(page.offset() + offsetof(Node, seal));
      const auto& node = *mapping.At<Node>(page);
      CollectList(mapping, node.objects, false);
      pkram::ForEachLink(mapping, node.objects, [&](const pkram::LinkRef& link) {
        pkram::ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
          const Pfn object = pkram::format::EntryPfn(entry);
          const auto& header = mapping.At<pkram::format::Object>(object)->header;
          base_.metadata.push_back(object.value());
          base_.seals.push_back(object.offset() + offsetof(ObjectHeader, seal));
          const uint64_t flags = header.flags;
          CollectList(mapping, header.pages, (flags & pkram::format::kPagesAreMetadata) != 0);
          CollectList(mapping, header.bytes, (flags & pkram::format::kBytesAreMetadata) != 0);
        });
      });
    }
  }

  MemoryFile file_;
  Base base_;
};

const Base& TheBase() {
  static const Base base = Builder().Build();
  return base;
}

// --- The edits ---------------------------------------------------------------------------------

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  uint64_t Next(size_t bytes = 1) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && size_ > 0; ++i, ++data_, --size_) value = value << 8 | *data_;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

class Editor {
 public:
  explicit Editor(Input* input) : in_(*input), bytes_(TheBase().bytes) {}

  std::string Edit() {
    const uint64_t flags = in_.Next();
    if ((flags & 1) == 0) {
      for (const uint64_t offset : TheBase().seals) Put(offset, 0);
    }
    for (int i = 0; i < 24 && !in_.empty(); ++i) One();
    if ((flags & 9) == 9) Seal();
    // Bitmaps for 64 TiB cost nothing until they are used, but the sanitizer's shadow of them
    // costs seconds.
    const uint64_t claimed = Get(offsetof(SuperBlock, page_count));
    if (claimed <= pkram::format::kMaxPages) {
      Put(offsetof(SuperBlock, page_count), std::min(claimed, uint64_t{1} << 28));
    }
    if ((flags & 2) == 0) {
      Put(offsetof(SuperBlock, checksum),
          pkram::Crc32c(bytes_.data(), offsetof(SuperBlock, checksum)));
    }
    if ((flags & 4) != 0) bytes_.resize(bytes_.size() / 256 * (1 + in_.Next()));
    if (bytes_.size() < kPageSize) bytes_.resize(kPageSize);
    return std::move(bytes_);
  }

 private:
  uint64_t Get(uint64_t offset) const {
    uint64_t word;
    std::memcpy(&word, bytes_.data() + offset, sizeof(word));
    return word;
  }
  void Put(uint64_t offset, uint64_t word) {
    std::memcpy(bytes_.data() + offset, &word, sizeof(word));
  }
  uint64_t Page() {
    const auto& pages = TheBase().metadata;
    return pages[in_.Next() % pages.size()];
  }
  // Of a word: among the first ones of a page, where the pointers and the numbers are, or any.
  uint64_t Word() {
    const uint64_t page = Page(), at = in_.Next();
    const uint64_t word = at < 192 ? at % 24 : (at % 64) * 8 + in_.Next() % 8;
    return page * kPageSize + word * 8;
  }
  void One() {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            2,
                                            3,
                                            509,
                                            510,
                                            511,
                                            512,
                                            4095,
                                            4096,
                                            4097,
                                            uint64_t{1} << 20,
                                            (uint64_t{16} << 20) + 1,
                                            uint64_t{1} << 31,
                                            uint64_t{1} << 32,
                                            uint64_t{1} << 34,
                                            uint64_t{1} << 35,
                                            uint64_t{1} << 39,
                                            uint64_t{1} << 40,
                                            uint64_t{1} << 51,
                                            uint64_t{1} << 62,
                                            (uint64_t{1} << 63) - 1,
                                            uint64_t{1} << 63,
                                            ~uint64_t{0} - 509,
                                            ~uint64_t{0}};
    const uint64_t op = in_.Next() % 14, word = Word();
    switch (op) {
      case 0:
        return Put(word, pkram::format::MakeEntry(Pfn(Page())));
      case 1: {  // what nothing should point at
        const uint64_t specials[] = {0, 1, 16, 17, kPages - 1, kPages, kPages + 1, 1ull << 39};
        return Put(word, pkram::format::MakeEntry(Pfn(specials[in_.Next() % 8])));
      }
      case 2:
        return Put(word, Get(word) ^ uint64_t{1} << in_.Next() % 64);
      case 3:
        return Put(word, in_.Next(2));
      case 4:
        return Put(word, kNumbers[in_.Next() % std::size(kNumbers)]);
      case 5:
        return Put(word, Get(Word()));
      case 6:  // an order, and flags
        return Put(word, (Get(word) & ~uint64_t{0xfff}) | in_.Next(2));
      case 7:
        return Put(word, pkram::format::MakeEntry(Pfn(in_.Next())));
      case 8:
        bytes_[word + in_.Next() % 8] = "/\0.a"[in_.Next() % 4];
        return;
      case 9: {
        const std::string page = bytes_.substr(Page() * kPageSize, kPageSize);
        bytes_.replace(word / kPageSize * kPageSize, kPageSize, page);
        return;
      }
      case 10:
        return Commit(1 + in_.Next() % 4);
      case 11:
        return Put(word, Get(word) + in_.Next() - 128);
      case 12: {  // a number in half a word: modes, link counts, generations, nanoseconds
        const uint64_t half = kNumbers[in_.Next() % std::size(kNumbers)] & 0xffffffff;
        return Put(word, (Get(word) & 0xffffffff) | half << 32);
      }
      default: {
        // Two words change places: orders, indexes, names.
        const uint64_t other = Word(), value = Get(other);
        Put(other, Get(word));
        return Put(word, value);
      }
    }
  }
  template <typename T>
  const T& At(Pfn page) const {
    return *reinterpret_cast<const T*>(bytes_.data() + page.offset());
  }
  // Seals that fit what is there by now, in the order of pkram/seal.h.
  void Seal() {
    for (const uint64_t offset : TheBase().seals) {
      const Pfn page(offset / kPageSize);
      pkram::SealSum sum;
      if (offset % kPageSize == offsetof(SuperBlock, seal)) {
        sum.AddSuper(At<SuperBlock>(page));
      } else if (offset % kPageSize == offsetof(Node, seal)) {
        sum.AddNode(At<Node>(page));
        AddList(At<Node>(page).objects, false, &sum);
      } else {
        const auto& object = At<pkram::format::Object>(page);
        const ObjectHeader& header = object.header;
        if (header.client_bytes > pkram::format::kObjectClientBytes) continue;
        sum.AddObject(object);
        AddList(header.pages, (header.flags & pkram::format::kPagesAreMetadata) != 0, &sum);
        AddList(header.bytes, (header.flags & pkram::format::kBytesAreMetadata) != 0, &sum);
      }
      Put(offset, sum.Word());
    }
  }
  // As far as it leads to pages that exist, and does not go in circles.
  void AddList(uint64_t head, bool pages_too, pkram::SealSum* sum) const {
    for (uint64_t i = 0; i < kPages && head != 0; ++i) {
      if (pkram::format::EntryPfn(head).value() >= kPages) return;
      const auto* const at =
          reinterpret_cast<const Link*>(bytes_.data() + pkram::format::LinkOffset(head));
      const pkram::LinkRef link{at, pkram::format::LinkEntries(head)};
      if (!link.is_short()) sum->Add(at, kPageSize);
      pkram::ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        const Pfn page = pkram::format::EntryPfn(entry);
        if (pages_too && page.value() < kPages) sum->Add(&At<char>(page), kPageSize);
      });
      head = link->next;
    }
  }
  // A slot of the journal that says that it is whole.
  void Commit(uint64_t count) {
    const uint64_t slot = (1 + in_.Next() % 3) * kPageSize;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t at = slot + offsetof(JournalSlot, store) + i * sizeof(JournalStore);
      const uint64_t word = Word();
      Put(at, word + (in_.Next() == 255 ? in_.Next() : 0));
      Put(at + 8, in_.Next() % 2 == 0 ? pkram::format::MakeEntry(Pfn(Page())) : in_.Next(2));
    }
    const uint32_t crc = pkram::Crc32c(bytes_.data() + slot + offsetof(JournalSlot, store),
                                       count * sizeof(JournalStore));
    Put(slot, uint64_t{crc} << 32 | count);
  }

  Input& in_;
  std::string bytes_;
};

// --- The targets -------------------------------------------------------------------------------

// The hostile region, and the rest of the input.
struct Hostile {
  Hostile(const uint8_t* data, size_t size) : input(data, size) {
    contents = Editor(&input).Edit();
    file.SetContents(contents);
  }
  // Returns the open region, or nothing.  A refused region must not have changed, and a check must
  // refuse it, too.
  std::unique_ptr<Region> Open() {
    FsCheck check;
    auto region = pkram::OpenRegion(file, 0, &check);
    if (region.ok()) return *std::move(region);
    Require(file.Contents() == contents, "a region that was refused has changed");
    Require(!region.status().message().empty(), "no reason is given");
    FsCheck again;
    const auto report = Region::Check(file.Reopen().get(), &again);
    // What is not sound; not, what cannot be mapped, or be written by this version.
    Require(!report.ok() || !report->problems.empty() || !absl::IsDataLoss(region.status()),
            "a check does not find what opening did: " + region.status().ToString());
    return nullptr;
  }
  void Close(std::unique_ptr<Region> region) const {
    FsCheck check;
    const absl::Status closed = region->Close(&check);
    Require(closed.ok(), "it was opened, and cannot be sealed: " + closed.ToString());
    region.reset();
    FsCheck again;
    const auto report = Region::Check(file.Reopen().get(), &again);
    Require(report.ok(), "it was sealed, and cannot be read: " + report.status().ToString());
    Require(report->problems.empty(),
            "it was sealed, and is not sound: " +
                (report->problems.empty() ? "" : report->problems.front().what));
  }

  MemoryFile file;
  Input input;
  std::string contents;
};

void Touch(const ReadAnswer& answer) {
  for (const iovec& v : answer.iov) {
    const auto* const bytes = static_cast<const unsigned char*>(v.iov_base);
    for (size_t i = 0; i < v.iov_len; i += 512) Use(bytes[i]);
  }
}

void ReadAll(Filesystem* fs, Ino ino, const Attr& attr) {
  const auto names = fs->ListXattrs({}, ino);
  if (names.ok()) {
    for (size_t at = 0; at < (*names).size(); at = (*names).find('\0', at) + 1) {
      Require(fs->GetXattr(ino, (*names).c_str() + at).ok(),
              "an attribute that is listed is not there");
    }
  }
  if (S_ISLNK(attr.mode)) (void)fs->ReadLink(ino);
  if (!S_ISREG(attr.mode)) return;
  for (const uint64_t at :
       {uint64_t{0}, attr.size / 2, attr.size - std::min<uint64_t>(attr.size, 5000)}) {
    const auto read = fs->Read(ino, at, 70000);
    if (read.ok()) Touch(*read);
  }
  uint64_t at = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto data = fs->Seek(ino, at, SEEK_DATA);
    if (!data.ok()) break;
    const auto hole = fs->Seek(ino, *data, SEEK_HOLE);
    if (!hole.ok()) break;
    Require(*hole > at, "seeking does not come further");
    const auto read = fs->Read(ino, *data, std::min<uint64_t>(*hole - *data, 70000));
    if (read.ok()) Touch(*read);
    at = *hole;
  }
}

struct Entry {
  Ino parent;
  std::string name;
  Attr attr;
};

// Every name, parents before what is in them.
std::vector<Entry> WalkAll(Filesystem* fs) {
  std::vector<Entry> entries;
  std::deque<Ino> directories = {kRootIno};
  std::set<Ino> seen;
  ReadAll(fs, kRootIno, *fs->GetAttr(kRootIno));
  for (; !directories.empty(); directories.pop_front()) {
    const Ino dir = directories.front();
    Require(seen.insert(dir).second, "a directory is found twice");
    std::vector<std::string> names;
    const auto read = fs->ReadDirectory(dir, 2, [&](const DirEntry& e) {
      names.emplace_back(e.name);
      return names.size() < 100000;
    });
    Require(read.ok() && names.size() < 100000, "a directory cannot be read");
    for (const std::string& name : names) {
      const auto found = fs->Lookup(dir, name);
      Require(found.ok(), "a name that is listed is not found");
      entries.push_back({dir, name, *found});
      ReadAll(fs, (*found).ino, *found);
      if (S_ISDIR((*found).mode)) directories.push_back((*found).ino);
      fs->Forget((*found).ino, 1);
    }
  }
  return entries;
}

// Whatever may be refused, nothing may break.
void ChangeAll(Filesystem* fs, const std::vector<Entry>& entries, Input* input) {
  Context ctx{.uid = 0, .gid = 0, .now = {9000, 1}};
  for (const Entry& e : entries) {
    const Ino ino = e.attr.ino;
    switch (input->Next() % 8) {
      case 0:
        (void)fs->Write(ctx, ino, e.attr.size / 2, BytesOf(std::string(5000, 'w')));
        break;
      case 1:
        (void)fs->SetAttr(ctx, ino, {.what = AttrChange::kSetSize, .size = e.attr.size / 3});
        break;
      case 2:
        (void)fs->Fallocate(ctx, ino, 100, e.attr.size, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
        break;
      case 3:
        (void)fs->SetXattr(ctx, ino, "user.fuzz", "value", 0);
        break;
      case 4:
        (void)fs->Rename(ctx, e.parent, e.name, kRootIno, "moved", 0);
        break;
      case 5:
        (void)fs->CopyRange(ctx, ino, 0, entries.front().attr.ino, 4096, 3 * kPageSize);
        break;
      case 6:
        (void)fs->SetAttr(ctx, ino, {.what = AttrChange::kSetSize, .size = e.attr.size + 10000});
        break;
      default:
        (void)fs->MakeNode(ctx, ino, "new", S_IFREG | 0644);
    }
  }
}

void RemoveAll(Filesystem* fs) {
  const std::vector<Entry> entries = WalkAll(fs);
  const Context ctx{.uid = 0, .gid = 0, .now = {9999, 1}};
  for (auto it = entries.rbegin(); it != entries.rend(); ++it) {
    const auto removed = S_ISDIR(it->attr.mode) ? fs->RemoveDirectory(ctx, it->parent, it->name)
                                                : fs->Unlink(ctx, it->parent, it->name);
    Require(removed.ok(), "a name cannot be removed: errno " + std::to_string(removed.error()));
  }
}

}  // namespace

void FuzzOpen(const uint8_t* data, size_t size) {
  Hostile hostile(data, size);
  std::unique_ptr<Region> region = hostile.Open();
  if (region != nullptr) hostile.Close(std::move(region));
}

void FuzzStreams(const uint8_t* data, size_t size) {
  Hostile hostile(data, size);
  std::unique_ptr<Region> region = hostile.Open();
  if (region == nullptr) return;
  for (const std::string& name : region->NodeNames()) {
    auto load = pkram::LoadStream::Prepare(region.get(), name);
    if (!load.ok()) continue;
    uint64_t objects = 0;
    for (auto object = (*load)->NextObject(); object.ok(); object = (*load)->NextObject()) {
      Require(++objects < 1000000, "objects have no end");
      const bool in_bulk = hostile.input.Next() % 2 == 0;
      pkram::LoadAccess access(object->get());
      pkram::PageBuffer pages;
      if (in_bulk) {
        while (const auto batch = access.LoadFilePages(&pages)) {
          for (uint64_t i = 0; i < batch->count; ++i) {
            Use(std::to_integer<uint64_t>(pages[i].data()[pages[i].size() - 1]));
          }
        }
      } else {
        while (const auto page = access.LoadFilePage()) {
          Use(std::to_integer<uint64_t>(page->page.data()[page->page.size() - 1]));
        }
      }
      std::vector<std::byte> bytes(5000);
      while ((*object)->ReadBytes(absl::MakeSpan(bytes)) > 0) continue;
    }
    if (hostile.input.Next() % 2 == 0) (*load)->Finish();
  }
  auto save = pkram::SaveStream::Prepare(region.get(), "fuzz");
  if (save.ok()) {
    auto object = (*save)->PrepareObject();
    if (object.ok()) {
      {
        pkram::SaveAccess access(*object);
        const std::string page(kPageSize, 'f');
        for (uint64_t i = 0; i < 20; ++i) (void)access.SavePage(i * 3, BytesOf(page));
      }
      (void)(*object)->WriteBytes(BytesOf(std::string(6000, 'f')));
    }
    if (hostile.input.Next() % 2 == 0) (void)(*save)->Finish();
  }
  save = absl::UnknownError("done");
  for (const std::string& name : region->NodeNames()) {
    if (hostile.input.Next() % 2 == 0) region->RemoveNode(region->FindNode(name));
  }
  hostile.Close(std::move(region));
}

void FuzzMount(const uint8_t* data, size_t size) {
  Hostile hostile(data, size);
  std::unique_ptr<Region> region = hostile.Open();
  if (region == nullptr) return;
  auto opened = Filesystem::Open(region.get(), {}, {7000, 1});
  if (opened.ok()) {
    Filesystem* const fs = opened->get();
    fs->StatFs();
    ChangeAll(fs, WalkAll(fs), &hostile.input);
    if (hostile.input.Next() % 2 == 0) RemoveAll(fs);
    opened->reset();
  }
  hostile.Close(std::move(region));
}

void FuzzSurvivors(const uint8_t* data, size_t size) {
  const Hostile hostile(data, size);
  Survivors survivors;
  const auto report = Region::Check(
      hostile.file.Reopen().get(), &survivors,
      [&](const pkram::PageView& pages, const pkram::Walk& walk) {
        const auto contested = Merged(walk.contested());
        for (const SurvivingTree& tree : survivors.trees()) {
          for (const auto& [ino, inode] : tree.inodes) {
            ForEachPiece(pages, contested, inode, [&](uint64_t offset, std::string_view bytes) {
              Use(offset + static_cast<unsigned char>(bytes.empty() ? 0 : bytes.back()));
              return true;
            });
          }
        }
        return absl::OkStatus();
      });
  Require(hostile.file.Contents() == hostile.contents, "a region that was read has changed");
}

}  // namespace pkramfs
