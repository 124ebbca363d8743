// One test per reason why a filesystem in a sound region is refused.
#include "fs/check.h"

#include <gmock/gmock.h>

#include "fs/layout.h"
#include "fs/xattrs.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::format::Object;
using testing::HasSubstr;

class CheckTest : public FsTest {
 protected:
  void SetUp() override {
    FsTest::SetUp();
    dir_ = Make("dir", S_IFDIR | 0755);
    file_ino_ = Make("file", S_IFREG | 0644, dir_);
    Put(file_ino_, 0, "inline");
    large_ = Make("large");
    Put(large_, 0, std::string(10000, 'l'));
    whole_ = Make("whole");
    Put(whole_, 490 * 4096, "has a whole link");
    ASSERT_TRUE(fs().SetXattr(ctx(), file_ino_, "user.a", "1", 0).ok());
    ASSERT_TRUE(fs().MakeSymlink(ctx(), dir_, "link", "target").ok());
    link_ = Find("link", dir_);
    fifo_ = Make("fifo", S_IFIFO | 0600, dir_);
    sub_ = Make("sub", S_IFDIR | 0755, dir_);
    for (const Ino ino : {kRootIno, dir_, file_ino_, large_, whole_, link_, fifo_, sub_}) {
      pages_of_[ino] = PageOf(ino).offset();
    }
    const auto* node = region().mapping().At<pkram::format::Node>(region().FindNode("pkramfs"));
    root_entry_ = pkram::format::EntryPfn(node->objects).offset() + 16 + 8 * kRootIno;
    mounted_.reset();
  }
  pkram::Pfn PageOf(Ino ino) {
    const auto* node = region().mapping().At<pkram::format::Node>(region().FindNode("pkramfs"));
    const pkram::LinkMap table(&region(), &node->objects);
    return pkram::format::EntryPfn(table.Get(ino));
  }
  // Where a field of an inode's record stands in the file.
  uint64_t Field(Ino ino, size_t offset) {
    return pages_of_[ino] + sizeof(pkram::format::ObjectHeader) + offset;
  }
  uint64_t SlotAt(Ino dir, uint64_t slot) {
    return Field(dir, offsetof(InodeRecord, inline_area)) + slot * kSlotBytes;
  }
  void ExpectRefusedWith(uint64_t offset, uint64_t word, const std::string& message) {
    SCOPED_TRACE(message);
    const uint64_t was = file_.Peek(offset);
    file_.Poke(offset, word);
    const std::string before = file_.Contents();
    FsCheck check;
    auto opened = pkram::OpenRegion(file_, 0, &check);
    ASSERT_FALSE(opened.ok());
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr(message));
    EXPECT_TRUE(file_.Contents() == before);
    file_.Poke(offset, was);
  }

  Ino dir_ = 0, file_ino_ = 0, large_ = 0, whole_ = 0, link_ = 0, fifo_ = 0, sub_ = 0;
  uint64_t root_entry_ = 0;
  std::map<Ino, uint64_t> pages_of_;
};

TEST_F(CheckTest, MalformedInodes) {
  const auto mode = [&](Ino ino) { return Field(ino, offsetof(InodeRecord, mode_nlink)); };
  const auto size = [&](Ino ino) { return Field(ino, offsetof(InodeRecord, size)); };
  const auto flags = [&](Ino ino) { return Field(ino, offsetof(InodeRecord, generation_flags)); };
  ExpectRefusedWith(mode(file_ino_), uint64_t{1} << 32 | 0644, "its mode is malformed");
  ExpectRefusedWith(mode(file_ino_), uint64_t{1} << 32 | S_IFREG | 1 << 20,
                    "its mode is malformed");
  ExpectRefusedWith(size(large_), uint64_t{1} << 63, "its size is impossible");
  ExpectRefusedWith(pages_of_[large_] + offsetof(pkram::format::ObjectHeader, allocated_end),
                    ~uint64_t{0}, "allocated end is impossible");
  ExpectRefusedWith(size(link_), 0, "its size is impossible");
  ExpectRefusedWith(size(link_), 4096, "its size is impossible");
  ExpectRefusedWith(size(fifo_), 1, "has contents");
  ExpectRefusedWith(size(file_ino_), kInlineBytes + 1, "stand in two places");
  ExpectRefusedWith(flags(large_), uint64_t{kInlineData} << 32, "stand in two places");
  ExpectRefusedWith(flags(large_), uint64_t{4} << 32, "unknown inode flags");
  ExpectRefusedWith(flags(large_), uint64_t{kLinkable} << 32, "is said to have had none");
  ExpectRefusedWith(flags(dir_), uint64_t{kInlineData} << 32, "unknown inode flags");
  ExpectRefusedWith(pages_of_[file_ino_] + offsetof(pkram::format::ObjectHeader, allocated_end), 1,
                    "stand in two places");
  ExpectRefusedWith(Field(file_ino_, offsetof(InodeRecord, nanos)), 1000000000,
                    "a time is malformed");
  ExpectRefusedWith(pages_of_[file_ino_] + offsetof(pkram::format::ObjectHeader, client_bytes), 100,
                    "its header is not an inode's");
  ExpectRefusedWith(pages_of_[file_ino_] + offsetof(pkram::format::ObjectHeader, flags), 0,
                    "its header is not an inode's");
  ExpectRefusedWith(pages_of_[file_ino_] + offsetof(pkram::format::ObjectHeader, bytes_len), 14,
                    "extended attributes are malformed");
  // An attribute that nobody could ask for, as its namespace is none.
  const uint64_t link =
      file_.Peek(pages_of_[file_ino_] + offsetof(pkram::format::ObjectHeader, bytes));
  const uint64_t blob =
      pkram::format::EntryPfn(file_.Peek(pkram::format::EntryPfn(link).offset() + 16)).offset();
  ExpectRefusedWith(blob + sizeof(XattrHeader), file_.Peek(blob + sizeof(XattrHeader)) ^ 1,
                    "extended attributes are malformed");
}

// A short link stands in its own object's page, of a file, and nowhere else.
TEST_F(CheckTest, MisplacedShortLinks) {
  using pkram::format::MakeShort;
  const auto pages = [&](Ino ino) {
    return pages_of_[ino] + offsetof(pkram::format::ObjectHeader, pages);
  };
  ASSERT_EQ(file_.Peek(pages(large_)), MakeShort(pkram::Pfn(pages_of_[large_] / 4096)));
  const std::string message = "its pointer to a link is malformed";
  for (const Ino ino : {dir_, file_ino_, kRootIno}) {
    ExpectRefusedWith(pages(large_), MakeShort(pkram::Pfn(pages_of_[ino] / 4096)), message);
  }
  ExpectRefusedWith(pages(dir_), MakeShort(pkram::Pfn(pages_of_[dir_] / 4096)), message);
  ExpectRefusedWith(pages_of_[large_] + offsetof(pkram::format::ObjectHeader, bytes),
                    MakeShort(pkram::Pfn(pages_of_[large_] / 4096)), message);
  const uint64_t link = pkram::format::LinkOffset(file_.Peek(pages(large_)));
  ExpectRefusedWith(link, MakeShort(pkram::Pfn(pages_of_[large_] / 4096)), message);
  ExpectRefusedWith(link + 8, 1, "is not aligned");
  // To be made short is the first link of a file, too.
  const uint64_t to_shorten = pkram::format::MakeToShorten(file_.Peek(pages(whole_)));
  ExpectRefusedWith(link, to_shorten, message);
  ExpectRefusedWith(pages(dir_), to_shorten, message);
  ExpectRefusedWith(pages(large_), pkram::format::MakeToShorten(file_.Peek(pages(large_))),
                    message);
  ExpectRefusedWith(pages(whole_), to_shorten, "holds too much for that");
  // With three entries in use the first of those that follow is no page's.
  ExpectRefusedWith(link + 16, 0, "stands behind the link's end");
}

TEST_F(CheckTest, MalformedDirectories) {
  const uint64_t first = SlotAt(dir_, 0);
  const uint64_t live = file_.Peek(first);
  ExpectRefusedWith(pages_of_[dir_] + offsetof(pkram::format::ObjectHeader, allocated_end),
                    uint64_t{1} << 60, "allocated end is behind its links");
  ExpectRefusedWith(first, 62, "longer than its block");
  ExpectRefusedWith(first, MakeLive(file_ino_, 8, 0), "holds no name");
  ExpectRefusedWith(first, live | uint64_t{1} << 52, "is malformed");
  ExpectRefusedWith(first, MakeLive(99999, 8, 4), "leads to no inode");
  ExpectRefusedWith(first, MakeLive(file_ino_, 2, 4), "another type than its name says");
  const auto name = [](const char(&text)[9]) {
    uint64_t word;
    std::memcpy(&word, text, 8);
    return word;
  };
  ExpectRefusedWith(first + 8, name("fi/e\0\0\0\0"), "holds no name");
  ExpectRefusedWith(first + 8, name("fi\0e\0\0\0\0"), "holds no name");
  ExpectRefusedWith(first + 8, name("link\0\0\0\0"), "the same name as another");
  ExpectRefusedWith(Field(dir_, offsetof(InodeRecord, size)), 41, "does not fit its entries");
}

TEST_F(CheckTest, LinksAndNamesThatDisagree) {
  const auto mode = [&](Ino ino) { return Field(ino, offsetof(InodeRecord, mode_nlink)); };
  const auto parent = [&](Ino ino) { return Field(ino, offsetof(InodeRecord, parent)); };
  ExpectRefusedWith(mode(file_ino_), uint64_t{2} << 32 | S_IFREG | 0644, "wrong link count");
  ExpectRefusedWith(mode(dir_), uint64_t{2} << 32 | S_IFDIR | 0755, "wrong link count");
  ExpectRefusedWith(mode(file_ino_), uint64_t{0} << 32 | S_IFREG | 0644, "wrong link count");
  ExpectRefusedWith(parent(sub_), kRootIno, "wrong parent");
  ExpectRefusedWith(parent(kRootIno), dir_, "wrong parent");
  ExpectRefusedWith(root_entry_, pkram::format::MakeHole(1), "no root directory");
  ExpectRefusedWith(mode(dir_), uint64_t{0} << 32 | S_IFDIR, "wrong number of names");
  // The last slot in use of `dir` is that of `sub`: leading to `dir` itself, it makes
  // a circle that the root does not see.
  uint64_t slot = 0;
  while (file_.Peek(SlotAt(dir_, slot + 1)) != 0) ++slot;
  ExpectRefusedWith(SlotAt(dir_, slot), MakeLive(dir_, 4, 3), "inode");
}

TEST_F(CheckTest, ADirectoryInItself) {
  // `dir` is the only child of `sub`, and `sub` of `dir`; the root knows neither.
  uint64_t in_root = 0;
  while (SlotIno(file_.Peek(SlotAt(kRootIno, in_root))) != dir_) ++in_root;
  file_.Poke(SlotAt(kRootIno, in_root), 1);
  file_.Poke(Field(kRootIno, offsetof(InodeRecord, size)), DirectorySize(2));
  file_.Poke(Field(kRootIno, offsetof(InodeRecord, mode_nlink)),
             uint64_t{2} << 32 | S_IFDIR | 01777);
  file_.Poke(SlotAt(sub_, 0), MakeLive(dir_, 4, 3));
  file_.Poke(SlotAt(sub_, 0) + 8, "dir", 3);
  file_.Poke(Field(sub_, offsetof(InodeRecord, size)), DirectorySize(1));
  file_.Poke(Field(sub_, offsetof(InodeRecord, mode_nlink)), uint64_t{3} << 32 | S_IFDIR | 0755);
  file_.Poke(Field(dir_, offsetof(InodeRecord, parent)), sub_);
  FsCheck check;
  auto opened = pkram::OpenRegion(file_, 0, &check);
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("is a directory in itself"));
  // TearDown wants a sound region.
  pkram::FormatRegion(&(file_.SetContents(""), file_), 64);
}

TEST(XattrBlobTest, SoundBlobsOnly) {
  const auto entry = [](const std::string& name, const std::string& value) {
    const XattrHeader header{static_cast<uint32_t>(name.size()),
                             static_cast<uint32_t>(value.size())};
    return std::string(reinterpret_cast<const char*>(&header), 8) + name + value;
  };
  EXPECT_TRUE(Xattrs::Sound("", S_IFREG | 0740));
  EXPECT_TRUE(Xattrs::Sound(entry("user.a", "1") + entry("user.b", ""), S_IFREG | 0740));
  EXPECT_FALSE(Xattrs::Sound(entry("user.a", "1") + entry("user.a", "2"), S_IFREG | 0740));
  EXPECT_TRUE(Xattrs::Sound(entry("", "1") + entry("", "1"), S_IFREG | 0740));
  EXPECT_FALSE(Xattrs::Sound(entry(std::string("a\0b", 3), "1"), S_IFREG | 0740));
  EXPECT_FALSE(Xattrs::Sound(entry("user.a", "1").substr(0, 12), S_IFREG | 0740));
  EXPECT_FALSE(Xattrs::Sound("short", S_IFREG | 0740));
  // owner rwx, user 7 r, group rx, mask r, others none
  const std::string acl(
      "\2\0\0\0\1\0\7\0\xff\xff\xff\xff\2\0\4\0\7\0\0\0\4\0\5\0\xff\xff\xff\xff"
      "\x10\0\4\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff",
      44);
  EXPECT_TRUE(Xattrs::Sound(entry("system.posix_acl_access", acl), S_IFREG | 0740));
  EXPECT_TRUE(Xattrs::Sound(entry("system.posix_acl_default", acl), S_IFDIR | 0700));
  EXPECT_FALSE(Xattrs::Sound(entry("system.posix_acl_default", acl), S_IFREG | 0740));
  EXPECT_FALSE(Xattrs::Sound(entry("system.posix_acl_access", acl), S_IFREG | 0750));
  EXPECT_FALSE(Xattrs::Sound(entry("system.posix_acl_access", acl), S_IFLNK | 0740));
  EXPECT_FALSE(Xattrs::Sound(entry("system.posix_acl_access", acl.substr(0, 4)), S_IFREG | 0740));
  EXPECT_FALSE(Xattrs::Sound(entry("system.posix_acl_access", acl.substr(0, 36)), S_IFREG | 0740));
}

}  // namespace
}  // namespace pkramfs
