// A bit that flips in the metadata of a sealed region is found at open, with the page that
// it is on or the one of the object that it belongs to, and nothing is changed.  What may
// flip unnoticed is what means nothing: reserved fields, the journal behind a commit word
// that is 0, and lookup counts, which a mount does not take over from another.
#include <cstdlib>
#include <map>
#include <random>

#include "pkram/link_list.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::Pfn;
using pkram::format::JournalSlot;
using pkram::format::Link;
using pkram::format::Node;
using pkram::format::Object;
using pkram::format::ObjectHeader;
using pkram::format::SuperBlock;

// One bit in so many bytes; all of them: BYTES_APART=1 build/gcc/tests/scribble_test
uint64_t BytesApart() {
  const char* const given = std::getenv("BYTES_APART");
  if (given != nullptr) return std::stoul(given);
#ifdef __clang__
  return 41;
#else
  return 5;
#endif
}

struct MetadataPage {
  Pfn owner;
  std::function<bool(uint64_t)> meant;  // says of a byte of the page that it means something
};

class ScribbleTest : public FsTest {
 protected:
  ScribbleTest() : FsTest(400) {}
  void SetUp() override {
    FsTest::SetUp();
    const Ino dir = Make("dir", S_IFDIR | 0755);
    // A directory with a page, a file with two links, attributes, a symlink that is long.
    for (int i = 0; i < 70; ++i) Make("name" + std::to_string(i), S_IFREG | 0644, dir);
    Put(Make("large"), 0, std::string(30000, 'l'));
    Put(Find("large"), 600 * kPageSize, "second link");
    ASSERT_TRUE(fs().SetXattr(ctx(), dir, "user.a", std::string(5000, 'x'), 0).ok());
    ASSERT_TRUE(fs().MakeSymlink(ctx(), dir, "link", std::string(4000, 't')).ok());
    for (int i = 3; i < 70; ++i) {
      const std::string name = "name" + std::to_string(i);
      ASSERT_TRUE(fs().Link(ctx(), Find("name0", dir), kRootIno, name).ok());
      ASSERT_TRUE(fs().Unlink(ctx(), dir, name).ok());
    }
    Collect();
    mounted_->Close();
    mounted_.reset();
  }
  void CollectLinks(uint64_t head, Pfn owner, bool pages_too) {
    pkram::ForEachLink(region().mapping(), head, [&](const Link& link) {
      pages_[region().mapping().PfnOf(&link)] = {owner, [](uint64_t) { return true; }};
      pkram::ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        if (pages_too)
          pages_[pkram::format::EntryPfn(entry)] = {owner, [](uint64_t) { return true; }};
      });
    });
  }
  void Collect() {
    const SuperBlock& super = region().super();
    pages_[Pfn(0)] = {Pfn(0), [](uint64_t at) { return at < offsetof(SuperBlock, reserved); }};
    for (uint64_t i = 0; i < super.journal_slots; ++i) {
      const Pfn slot(super.journal_first + i);
      pages_[slot] = {slot, [](uint64_t at) { return at < offsetof(JournalSlot, reserved); }};
    }
    const Pfn node_page = region().FindNode("pkramfs");
    const auto& node = *region().mapping().At<Node>(node_page);
    pages_[node_page] = {node_page, [](uint64_t at) { return at < offsetof(Node, reserved); }};
    pkram::ForEachLink(region().mapping(), node.objects, [&](const Link& link) {
      pages_[region().mapping().PfnOf(&link)] = {node_page, [](uint64_t) { return true; }};
      pkram::ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        const Pfn page = pkram::format::EntryPfn(entry);
        const ObjectHeader& header = region().mapping().At<Object>(page)->header;
        pages_[page] = {page,
                        [](uint64_t at) { return at / 8 != offsetof(ObjectHeader, lookups) / 8; }};
        CollectLinks(header.pages, page, (header.flags & pkram::format::kPagesAreMetadata) != 0);
        CollectLinks(header.bytes, page, true);
      });
    });
  }

  std::map<Pfn, MetadataPage> pages_;
};

TEST_F(ScribbleTest, EveryBitThatMeansSomethingIsFound) {
  std::mt19937_64 random(1);
  const uint64_t apart = BytesApart();
  const auto backing = file_.Reopen();
  uint64_t flips = 0, found = 0;
  for (const auto& [page, kind] : pages_) {
    for (uint64_t at = random() % apart; at < kPageSize; at += apart) {
      const uint64_t offset = page.offset() + at, bit = random() % 8;
      const uint64_t word = file_.Peek(offset / 8 * 8);
      file_.Poke(offset / 8 * 8, word ^ (uint64_t{1} << (offset % 8 * 8 + bit)));
      ++flips;
      FsCheck check;
      pkram::Region::OpenOptions options;
      options.writable = false;
      options.client = &check;
      const auto opened = pkram::Region::Open(file_.Reopen(), options);
      SCOPED_TRACE("page " + std::to_string(page.value()) + " byte " + std::to_string(at) +
                   " bit " + std::to_string(bit));
      ASSERT_EQ(!opened.ok(), kind.meant(at));
      if (!opened.ok()) {
        ++found;
        const std::string message(opened.status().message());
        // Of the first words of the super block not even that is known that it is one.
        const bool named =
            message.find(": page " + std::to_string(page.value()) + ": ") != std::string::npos ||
            message.find(": page " + std::to_string(kind.owner.value()) + ": ") !=
                std::string::npos ||
            message.find("(sealed with page " + std::to_string(kind.owner.value()) + ")") !=
                std::string::npos ||
            absl::IsFailedPrecondition(opened.status());
        ASSERT_TRUE(named) << message;
      }
      file_.Poke(offset / 8 * 8, word);
    }
  }
  std::printf("  %llu bits flipped on %zu pages of metadata, %llu that mean something: all found\n",
              static_cast<unsigned long long>(flips), pages_.size(),
              static_cast<unsigned long long>(found));
}

}  // namespace
}  // namespace pkramfs
