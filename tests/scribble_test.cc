// A bit that flips in the metadata of a sealed region is found at open, with the page that
// it is on or the one of the object that it belongs to, and nothing is changed.  What may
// flip unnoticed is what means nothing: reserved fields, the journal behind a commit word
// that is 0, and lookup counts, which a mount does not take over from another.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>

#include "pkram/stream.h"
#include "tests/fs_fixture.h"
#include "tests/metadata_pages.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::MetadataPage;
using pkram::Pfn;
using pkram::format::JournalSlot;
using pkram::format::Node;
using pkram::format::ObjectHeader;
using pkram::format::SuperBlock;

// One bit in so many bytes; all of them: BYTES_APART=1 build/gcc/tests/core_tests
// --gtest_filter=ScribbleTest.*
uint64_t BytesApart() {
  const char* const given = std::getenv("BYTES_APART");
  if (given != nullptr) return std::stoul(given);
#ifdef __clang__
  return 41;
#else
  return 5;
#endif
}

// Whether a byte of such a page means something.
bool IsMeant(const MetadataPage& page, uint64_t at) {
  switch (page.kind) {
    case MetadataPage::kSuper:
      return at < offsetof(SuperBlock, reserved);
    case MetadataPage::kSlot:
      return at < offsetof(JournalSlot, reserved);
    case MetadataPage::kNode:
      return at < offsetof(Node, reserved);
    case MetadataPage::kObject:
      return at / 8 != offsetof(ObjectHeader, lookups) / 8 &&
             at < sizeof(ObjectHeader) + page.client_bytes;
    default:
      return true;
  }
}

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
    const char none = '\xff';
    const std::string acl = {2,    0,    0,    0,    1,    0,    7,  0,    none, none, none,
                             none, 2,    0,    4,    0,    1,    0,  0,    0,    4,    0,
                             5,    0,    none, none, none, none, 16, 0,    7,    0,    none,
                             none, none, none, 32,   0,    5,    0,  none, none, none, none};
    ASSERT_TRUE(fs().SetXattr(ctx(), dir, "system.posix_acl_default", acl, 0).ok());
    Save();
    pages_ = pkram::MetadataPagesOf(region());
    mounted_->Close();
    mounted_.reset();
  }
  void Save() {
    auto save = pkram::SaveStream::Prepare(&region(), "saved").value();
    pkram::SaveObject* const object = save->PrepareObject().value();
    {
      pkram::SaveAccess access(object);
      ASSERT_EQ(access.SavePage(7, BytesOf(std::string(kPageSize, 's'))), absl::OkStatus());
    }
    ASSERT_EQ(object->WriteBytes(BytesOf(std::string(9000, 'b'))), absl::OkStatus());
    ASSERT_EQ(save->Finish(), absl::OkStatus());
  }
  // What writes, and what finds everything (`pkramctl check`), see it, too, and change nothing.
  void ExpectRefusedByAll(const std::string& message) {
    const std::string before = file_.Contents();
    FsCheck check, again;
    EXPECT_FALSE(pkram::OpenRegion(file_, 0, &check).ok());
    const auto report = pkram::Region::Check(file_.Reopen().get(), &again);
    const auto is_named = [&](const pkram::Problem& p) {
      return message.find(": page " + std::to_string(p.page.value()) + ": ") != std::string::npos;
    };
    EXPECT_TRUE(report.ok() ? std::ranges::any_of(report->problems, is_named)
                            : report.status().message() == message)
        << message;
    EXPECT_TRUE(file_.Contents() == before);
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
      ASSERT_EQ(!opened.ok(), IsMeant(kind, at));
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
            (kind.kind == MetadataPage::kSuper && absl::IsFailedPrecondition(opened.status()));
        ASSERT_TRUE(named) << message;
        if (found % 50 == 0) ExpectRefusedByAll(message);
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
