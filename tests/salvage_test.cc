// pkramctl check --salvage: intact files come out, whatever else is damaged.
#include <gmock/gmock.h>

#include <algorithm>
#include <random>

#include "fs/layout.h"
#include "pkram/region.h"
#include "tests/manifest.h"
#include "tests/metadata_pages.h"
#include "tests/mount_fixture.h"
#include "tests/odd_tree.h"

namespace pkramfs {
namespace {

using pkram::Pfn;
using pkram::format::Object;
using testing::HasSubstr;
using testing::Not;

class SalvageTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    out_ = region_ + ".out";  // on tmpfs, which takes all attributes
    Mount("size=64m");
    MakeOddTree(mount_ + "/odd", 60);
    ASSERT_EQ(mkdir((mount_ + "/d").c_str(), 0755), 0);
    for (const char* name : {"a", "b", "c"}) {
      Spill(mount_ + "/d/" + name, std::string(20000, *name));
    }
    ASSERT_EQ(mkdir((mount_ + "/d/below").c_str(), 0755), 0);
    Spill(mount_ + "/d/below/file", "below");
    for (const char* path : {"", "/d", "/d/a", "/d/b", "/d/below", "/d/below/file"}) {
      struct stat st;
      ASSERT_EQ(stat((mount_ + path).c_str(), &st), 0);
      inos_[path] = st.st_ino;
    }
    before_ = Files(mount_);
  }
  void TearDown() override {
    Shell("rm -rf " + region_ + ".out");
    MountTest::TearDown();
  }
  // What a copy keeps; and not the root, whose times differ by where it is.
  static Manifest Files(const std::string& root) {
    ManifestOptions options;
    options.inode_numbers = options.blocks = options.all_times = false;
    Manifest manifest = ManifestOf(root, options);
    manifest.erase("/");
    return manifest;
  }
  void Seal() { Unmount(); }
  void Open() {
    fd_ = open(region_.c_str(), O_RDWR);
    ASSERT_GE(fd_, 0);
    backing_ = pkram::OpenBacking(region_, pkram::OpenFor::kReading).value();
    pkram::Region::OpenOptions options;
    options.writable = false;
    opened_ = pkram::Region::Open(std::move(backing_), options).value();
  }
  // The page of an inode; the first link of its pages, and where that stands.
  Pfn PageOf(const std::string& path) {
    const Pfn node = opened_->FindNode("pkramfs");
    uint64_t word = opened_->mapping().At<pkram::format::Node>(node)->objects;
    for (uint64_t i = inos_.at(path) / pkram::format::kLinkEntries; i > 0; --i) {
      word = opened_->mapping().At<pkram::format::Link>(pkram::format::EntryPfn(word))->next;
    }
    const auto* const link =
        opened_->mapping().At<pkram::format::Link>(pkram::format::EntryPfn(word));
    return pkram::format::EntryPfn(link->entry[inos_.at(path) % pkram::format::kLinkEntries]);
  }
  uint64_t LinkOffset(const std::string& path) {
    const auto* const object = opened_->mapping().At<Object>(PageOf(path));
    return pkram::format::LinkOffset(object->header.pages);
  }
  const pkram::format::Link* LinkOf(const std::string& path) {
    return reinterpret_cast<const pkram::format::Link*>(opened_->mapping().base() +
                                                        LinkOffset(path));
  }
  // The second has the list of the first, then.
  void GiveLinks(const std::string& from, const std::string& to) {
    const uint64_t pages = offsetof(pkram::format::ObjectHeader, pages);
    Poke(PageOf(to).offset() + pages, Peek(PageOf(from).offset() + pages));
  }
  void Poke(uint64_t offset, uint64_t word) {
    ASSERT_EQ(pwrite(fd_, &word, sizeof(word), static_cast<off_t>(offset)), 8);
  }
  uint64_t Peek(uint64_t offset) {
    uint64_t word = 0;
    EXPECT_EQ(pread(fd_, &word, sizeof(word), static_cast<off_t>(offset)), 8);
    return word;
  }
  void Flip(uint64_t offset) { Poke(offset, Peek(offset) ^ 0x10); }
  Ran Salvage() {
    opened_.reset();
    close(std::exchange(fd_, -1));
    const std::string as_it_is = Slurp(region_);
    Shell("rm -rf " + out_);
    Ran ran = Shell(Pkramctl() + " check --salvage " + out_ + " " + region_);
    EXPECT_TRUE(Slurp(region_) == as_it_is);
    return ran;
  }
  // All files except `lost` are there, and `found` besides.
  void ExpectAllBut(const std::vector<std::string>& lost) {
    Manifest expected = before_;
    for (const std::string& path : lost) EXPECT_EQ(expected.erase(path), 1u) << path;
    EXPECT_EQ(FirstDifference(expected, Files(out_ + "/pkramfs")), "");
  }

  std::map<std::string, ino_t> inos_;
  std::string out_;
  Manifest before_;
  int fd_ = -1;
  std::unique_ptr<pkram::Backing> backing_;
  std::unique_ptr<pkram::Region> opened_;
};

TEST_F(SalvageTest, AllOfASoundRegion) {
  Seal();
  Open();
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("0 not intact"));
  ExpectAllBut({});
  // The copies are not readable for others yet.
  struct stat st;
  ASSERT_EQ(stat((out_).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  // A directory that holds something stays as it is.
  const Ran again = Shell(Pkramctl() + " check --salvage " + out_ + " " + region_);
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("not empty"));
}

TEST_F(SalvageTest, AKilledOne) {
  Kill();
  WaitUntilFree();
  Open();
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  ExpectAllBut({});
}

TEST_F(SalvageTest, AllButADamagedFile) {
  Seal();
  Open();
  Flip(PageOf("/d/a").offset() + sizeof(pkram::format::ObjectHeader) + 16);
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(TryMount().status, 0);
  EXPECT_THAT(ran.out, HasSubstr("not intact: pkramfs/d/a: "));
  EXPECT_THAT(ran.out, HasSubstr("1 not intact"));
  ExpectAllBut({"/d/a"});
}

TEST_F(SalvageTest, WhatIsInADamagedDirectory) {
  Seal();
  Open();
  Flip(PageOf("/d").offset() + sizeof(pkram::format::ObjectHeader) + 48);  // a time
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("not intact: pkramfs/d: "));
  Manifest found = Files(out_ + "/pkramfs");
  found["/d"] = before_["/d"];
  EXPECT_EQ(FirstDifference(before_, found), "");
}

TEST_F(SalvageTest, WhatNothingLeadsToAnyMore) {
  Seal();
  Open();
  // The directory's entry in the table of inodes is none.
  const Pfn page = PageOf("/d");
  const uint64_t table =
      opened_->mapping().At<pkram::format::Node>(opened_->FindNode("pkramfs"))->objects;
  const uint64_t entry = pkram::format::EntryPfn(table).offset() + 16 + 8 * inos_.at("/d");
  ASSERT_EQ(pkram::format::EntryPfn(Peek(entry)), page);
  Poke(entry, pkram::format::MakeEntry(Pfn(uint64_t{1} << 39)));
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("not intact: pkramfs/d: inode"));
  const std::string found = out_ + "/pkramfs.lost+found/inode-";
  EXPECT_EQ(Slurp(found + std::to_string(inos_.at("/d/a"))), std::string(20000, 'a'));
  EXPECT_EQ(Slurp(found + std::to_string(inos_.at("/d/below")) + "/file"), "below");
  ExpectAllBut({"/d", "/d/a", "/d/b", "/d/c", "/d/below", "/d/below/file"});
}

TEST_F(SalvageTest, WhatASealSaysIsItsOwn) {
  Seal();
  Open();
  Poke(LinkOffset("/d/a") + 16 + 8, LinkOf("/d/b")->entry[2]);
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("not intact: pkramfs/d/a: "));
  ExpectAllBut({"/d/a"});
}

TEST_F(SalvageTest, NeitherOfTwoWhereNothingSaysWhoseAPageIs) {
  Kill();
  WaitUntilFree();
  Open();
  Poke(LinkOffset("/d/a") + 16 + 8, LinkOf("/d/b")->entry[2]);
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  ExpectAllBut({"/d/a", "/d/b"});
}

TEST_F(SalvageTest, AShortLinkIsItsOwnInodes) {
  Kill();
  WaitUntilFree();
  Open();
  GiveLinks("/d/b", "/d/a");
  EXPECT_EQ(Salvage().status, 1);
  ExpectAllBut({"/d/a"});
}

TEST_F(SalvageTest, NeitherOfTwoWithTheSameLinks) {
  // So large that their first links are whole.
  for (const char* const name : {"/d/a", "/d/b"}) {
    ASSERT_EQ(truncate((mount_ + name).c_str(), 500 * 4096), 0);
    const int fd = open((mount_ + name).c_str(), O_WRONLY | O_APPEND);
    ASSERT_EQ(write(fd, "end", 3), 3);
    close(fd);
  }
  Kill();
  WaitUntilFree();
  Open();
  GiveLinks("/d/b", "/d/a");
  EXPECT_EQ(Salvage().status, 1);
  ExpectAllBut({"/d/a", "/d/b"});
}

TEST_F(SalvageTest, NeitherOfTwoThatAreOneInode) {
  Seal();
  Open();
  const uint64_t table =
      pkram::format::EntryPfn(
          opened_->mapping().At<pkram::format::Node>(opened_->FindNode("pkramfs"))->objects)
          .offset();
  Poke(table + 16 + 8 * inos_.at("/d/a"), pkram::format::MakeEntry(PageOf("/d/b")));
  EXPECT_EQ(Salvage().status, 1);
  ExpectAllBut({"/d/a", "/d/b"});
}

// The damaged page belongs to no file.
TEST_F(SalvageTest, AllBehindADamagedSuperBlockJournalOrNode) {
  Seal();
  Open();
  using pkram::format::SuperBlock;
  const uint64_t node = opened_->FindNode("pkramfs").offset();
  const std::string sound = Slurp(region_);
  for (const uint64_t offset :
       {offsetof(SuperBlock, uuid), offsetof(SuperBlock, page_count),
        offsetof(SuperBlock, checksum), offsetof(SuperBlock, mount_epoch),
        offsetof(SuperBlock, seal), uint64_t{3 * 4096}, node + offsetof(pkram::format::Node, state),
        node + offsetof(pkram::format::Node, client)}) {
    SCOPED_TRACE(offset);
    Spill(region_, sound);
    fd_ = open(region_.c_str(), O_RDWR);
    Flip(offset);
    const Ran ran = Salvage();
    EXPECT_EQ(ran.status, 1) << ran.out << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("0 not intact"));
    ExpectAllBut({});
    EXPECT_NE(TryMount().status, 0);
  }
}

// What leads to everything: what that led to is not guessed at, but said to be missing.
TEST_F(SalvageTest, NothingBehindADamagedPointerToAll) {
  Seal();
  Open();
  const Pfn node = opened_->FindNode("pkramfs");
  const std::string sound = Slurp(region_);
  for (const uint64_t offset : {offsetof(pkram::format::SuperBlock, nodes),
                                node.offset() + offsetof(pkram::format::Node, objects)}) {
    SCOPED_TRACE(offset);
    Spill(region_, sound);
    fd_ = open(region_.c_str(), O_RDWR);
    Poke(offset, pkram::format::MakeEntry(Pfn(uint64_t{1} << 39)));
    const Ran ran = Salvage();
    EXPECT_EQ(ran.status, 1) << ran.out << ran.err;
    EXPECT_THAT(ran.out, HasSubstr(": 0 files and "));
    EXPECT_THAT(ran.out, HasSubstr("points at page 549755813888, which is beyond the end"));
    EXPECT_NE(TryMount().status, 0);
  }
}

// An entry of the table of inodes that is none, and those behind it.
TEST_F(SalvageTest, AllThatADamagedTableStillLeadsTo) {
  Seal();
  Open();
  uint64_t word = opened_->mapping().At<pkram::format::Node>(opened_->FindNode("pkramfs"))->objects;
  uint64_t last = 0;
  for (; word != 0; word = Peek(last)) last = pkram::format::EntryPfn(word).offset();
  // Threads hand out numbers in no order.  One that is not the table's last is not its end.
  const std::string path = inos_["/d/a"] < inos_["/d/b"] ? "/d/a" : "/d/b";
  uint64_t entry = last + 16;
  while (Peek(entry) != pkram::format::MakeEntry(PageOf(path))) entry += 8;
  Poke(entry, 0);  // as a link ends
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("not intact: pkramfs" + path + ": inode"));
  EXPECT_THAT(ran.out, HasSubstr("1 not intact"));
  ExpectAllBut({path});
}

// A problem of the whole region is not reported as one of an object's seal.
TEST_F(SalvageTest, AWrongLinkCountIsNotSaidOfASeal) {
  Seal();
  Mount();  // which changes the seal of what it changes
  ASSERT_EQ(chmod((mount_ + "/d/a").c_str(), 0600), 0);
  before_ = Files(mount_);
  Kill();
  WaitUntilFree();
  Open();
  const uint64_t nlink = PageOf("/d/a").offset() + sizeof(pkram::format::ObjectHeader) +
                         offsetof(InodeRecord, mode_nlink) + 4;
  ASSERT_EQ(Peek(nlink) & 0xffffffff, 1u);
  Poke(nlink, Peek(nlink) + 1);
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("link count"));
  EXPECT_THAT(ran.out, Not(HasSubstr("sealed with")));
  ExpectAllBut({});
}

// The user who salvages may be another than the files' owner.
TEST_F(SalvageTest, SetUserIdBitsAreForTheOwnerOnly) {
  ASSERT_EQ(chmod((mount_ + "/d/a").c_str(), 06755), 0);
  Shell("rm " + mount_ + "/odd/chr " + mount_ + "/odd/blk");  // for which it takes root
  Seal();
  ASSERT_EQ(chmod(region_.c_str(), 0644), 0);
  Shell("rm -rf " + out_ + " && mkdir -m 0777 " + out_);
  const Ran ran = Shell("setpriv --reuid 65534 --regid 65534 --clear-groups " + Pkramctl() +
                        " check --salvage " + out_ + " " + region_);
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  struct stat st;
  ASSERT_EQ(stat((out_ + "/pkramfs/d/a").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 65534u);
  EXPECT_EQ(st.st_mode & 07777, 0755u);
}

TEST_F(SalvageTest, OneNameTwiceStopsNothing) {
  Seal();
  Open();
  // The second slot's name is "b", and becomes the first one's.
  const uint64_t name = PageOf("/d").offset() + sizeof(pkram::format::ObjectHeader) +
                        offsetof(InodeRecord, inline_area) + kSlotBytes + 8;
  ASSERT_EQ(Peek(name) & 0xff, uint64_t{'b'});
  Poke(name, Peek(name) - 1);
  const Ran ran = Salvage();
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("not intact: pkramfs/d/a: File exists"));
  EXPECT_EQ(Slurp(out_ + "/pkramfs.lost+found/inode-" + std::to_string(inos_.at("/d/b"))),
            std::string(20000, 'b'));
  Manifest found = Files(out_ + "/pkramfs");
  found["/d"] = before_["/d"];
  before_.erase("/d/b");
  EXPECT_EQ(FirstDifference(before_, found), "");
}

// Pages of metadata, of any kind: what comes out under its name is what it was, to the last
// byte, and what does not is listed, it or what leads to it.
TEST_F(SalvageTest, NothingWrongAfterScribbles) {
  Seal();
  Open();
  std::vector<Pfn> pages;
  for (const auto& [page, kind] : pkram::MetadataPagesOf(*opened_)) {
    // (A node has a page without which nothing is known of any file.)
    const bool is_node = kind.kind == pkram::MetadataPage::kNode;
    if (!is_node && kind.kind != pkram::MetadataPage::kSuper) pages.push_back(page);
  }
  const std::string sound = Slurp(region_);
  std::mt19937_64 random(6);
  uint64_t copied = 0;
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    std::string damaged = sound;
    for (uint64_t i = 0; i < 1 + random() % 4; ++i) {
      const size_t page = pages[random() % pages.size()].value();
      for (int k = 0; k < 8; ++k) {
        damaged[page * 4096 + random() % 4096] = static_cast<char>(random());
      }
    }
    Spill(region_, damaged);
    const Ran ran = Salvage();
    ASSERT_TRUE(ran.status == 0 || ran.status == 1) << ran.err;
    const Manifest found = Files(out_ + "/pkramfs");
    const auto is_listed = [&](std::string path) {
      for (; !path.empty(); path.resize(path.rfind('/'))) {
        if (ran.out.find("not intact: pkramfs" + path + ": ") != std::string::npos) return true;
      }
      return ran.out.find("not intact: pkramfs: ") != std::string::npos;
    };
    for (const auto& [path, text] : before_) {
      const auto it = found.find(path);
      const bool intact = it != found.end() && it->second == text;
      copied += intact;
      // (A name with a newline is listed in another way.)
      EXPECT_TRUE(intact || is_listed(path) || path.find('\n') != std::string::npos)
          << path << "\n"
          << text.substr(0, 200) << "\n"
          << (it == found.end() ? "" : it->second.substr(0, 200)) << "\n"
          << ran.out.substr(0, 1000);
    }
  }
  EXPECT_GT(copied, before_.size() * 20 * 3 / 4);
}

}  // namespace
}  // namespace pkramfs
