// Trees that were built in lent pages: proven, adopted, exchanged, merged, deleted.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fs/adoption.h"
#include "fs/tree_builder.h"
#include "fs/xattrs.h"
#include "pkram/lender.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::Pfn;

const Context kBy{.now = {7, 8}};

TreeBuilder::Attributes Attributes(uint32_t mode, int64_t time) {
  TreeBuilder::Attributes a;
  a.mode = mode;
  a.uid = 3;
  a.gid = 4;
  a.atime = {time, 1};
  a.mtime = {time, 2};
  a.ctime = {time, 3};
  a.btime = {time, 4};
  return a;
}

// Builds what `fill` makes, in a process of its own, as far as the region knows.
struct Builder {
  Builder(const pkram::MemoryFile& file, pkram::Region* lends)
      : lender(&lends->space()),
        region(pkram::Region::OpenToBuild(file.Reopen(), &lender).value()),
        tree(region.get()) {}

  TreeBuilder::Reader ReaderOf(const std::string& text) {
    return {[&text](uint64_t offset, absl::Span<char> bytes) {
              text.copy(bytes.data(), bytes.size(), offset);
              return absl::OkStatus();
            },
            [this, &text](uint64_t offset, uint64_t size, uint64_t at) {
              const iovec iov{const_cast<char*>(text.data()) + offset, size};
              return region->Fill(at, {&iov, 1});
            }};
  }
  Ino File(const std::string& text, uint32_t mode = 0640) {
    const Ino ino = tree.Reserve();
    const TreeBuilder::Extent all{0, text.size()};
    EXPECT_EQ(
        tree.MakeFile(ino, Attributes(S_IFREG | mode, 10), text.size(), {&all, 1}, ReaderOf(text)),
        absl::OkStatus());
    return ino;
  }
  Ino Directory(Ino parent, const std::vector<TreeBuilder::Name>& names, Ino ino = 0) {
    if (ino == 0) ino = tree.Reserve();
    EXPECT_EQ(tree.MakeDirectory(ino, parent, Attributes(S_IFDIR | 0750, 20), names),
              absl::OkStatus());
    return ino;
  }

  pkram::OwnLender lender;
  std::unique_ptr<pkram::Region> region;
  TreeBuilder tree;
};

std::string Text(size_t size, char seed) {
  std::string text(size, seed);
  for (size_t i = 0; i < size; i += 97) text[i] = static_cast<char>('a' + i % 23);
  return text;
}

// All kinds of inodes, in directories of all forms.
Filesystem::BuiltTree BuildAll(Builder* b) {
  std::vector<TreeBuilder::Name> names;
  const auto add = [&](const std::string& name, Ino ino, uint32_t mode) {
    names.push_back({name, ino, mode});
  };
  for (const size_t size : {0, 1, 3920, 3921, 4096, 20000}) {
    add("file" + std::to_string(size), b->File(Text(size, 'x')), S_IFREG);
  }
  const Ino twice = b->File("twice");
  b->tree.SetLinks(twice, 2);
  add("one", twice, S_IFREG);
  add("two", twice, S_IFREG);
  const Ino link = b->tree.Reserve();
  EXPECT_TRUE(b->tree.MakeSymlink(link, Attributes(S_IFLNK | 0777, 11), "one").ok());
  add("link", link, S_IFLNK);
  const Ino long_link = b->tree.Reserve();
  EXPECT_TRUE(
      b->tree.MakeSymlink(long_link, Attributes(S_IFLNK | 0777, 12), std::string(4000, 'l')).ok());
  add("long link", long_link, S_IFLNK);
  TreeBuilder::Attributes device = Attributes(S_IFCHR | 0600, 13);
  device.rdev = uint64_t{1} << 32 | 3;
  const Ino null = b->tree.Reserve();
  EXPECT_TRUE(b->tree.MakeNode(null, device).ok());
  add("null", null, S_IFCHR);
  // With holes in front, between and behind.
  const std::string page(kPageSize, 'h');
  const TreeBuilder::Extent extents[] = {{kPageSize, kPageSize}, {600 * kPageSize, kPageSize}};
  TreeBuilder::Attributes sparse = Attributes(S_IFREG | 0600, 14);
  Xattrs::Append(&sparse.xattrs, "user.color", "blue");
  const Ino holes = b->tree.Reserve();
  const TreeBuilder::Reader same = {nullptr, [&](uint64_t, uint64_t size, uint64_t at) {
                                      const iovec iov{const_cast<char*>(page.data()), size};
                                      return b->region->Fill(at, {&iov, 1});
                                    }};
  EXPECT_TRUE(b->tree.MakeFile(holes, sparse, 2000 * kPageSize + 5, extents, same).ok());
  add("holes", holes, S_IFREG);
  const Ino hole = b->tree.Reserve();
  EXPECT_TRUE(b->tree.MakeFile(hole, Attributes(S_IFREG, 15), 100000, {}, same).ok());
  add("one hole", hole, S_IFREG);
  // Of several blocks, with names of all lengths.
  const Ino top = b->tree.Reserve(), large = b->tree.Reserve();
  std::vector<TreeBuilder::Name> many;
  for (int i = 0; i < 300; ++i) {
    many.push_back(
        {std::string(1 + i % 255, static_cast<char>('A' + i / 255)) + ".", b->File(""), S_IFREG});
    if (many.back().name.size() > 255) many.back().name.resize(255);
  }
  b->Directory(top, many, large);
  add("large", large, S_IFDIR);
  add("empty", b->Directory(top, {}), S_IFDIR);
  b->Directory(TreeBuilder::root(), names, top);
  return b->tree.Finish(top, S_IFDIR).value();
}

class TreeTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 4096;
  void SetUp() override {
    pkram::FormatRegion(&file_, kPages);
    Open();
  }
  void Open() {
    mounted_.reset();
    mounted_.emplace(file_);
  }
  Filesystem* fs() { return mounted_->fs(); }
  pkram::Space& space() { return mounted_->region()->space(); }
  // What an owner's program does.
  absl::Status Import(const std::string& name, Filesystem::Placing placing,
                      const std::function<Filesystem::BuiltTree(Builder*)>& build,
                      Ino parent = kRootIno) {
    Builder builder(file_, mounted_->region());
    const Filesystem::BuiltTree tree = build(&builder);
    return fs()->AdoptTree(kBy, tree, parent, name, placing);
  }
  absl::Status ImportFile(const std::string& name, Filesystem::Placing placing,
                          const std::string& text) {
    return Import(name, placing,
                  [&](Builder* b) { return b->tree.Finish(b->File(text), S_IFREG).value(); });
  }
  std::string Read(const std::string& name) {
    const Result<Attr> attr = fs()->Lookup(kRootIno, name);
    if (!attr.ok()) return "";
    fs()->Forget(attr->ino, 1);
    return TextOf(*fs()->Read(attr->ino, 0, attr->size));
  }
  uint64_t FreePages() {
    space().RecheckLoans();
    return space().counts().free;
  }
  // Only reachable pages are in use, and all of them are sound.
  void ExpectSound() {
    pkram::MemoryFile copy;
    copy.Restore(file_.Save());
    FsCheck check;
    space().RecheckLoans();
    const uint64_t in_use = space().counts().InUse() - space().loans().counts().lent;
    EXPECT_EQ(pkram::UsedPages(copy, &check), static_cast<int64_t>(in_use));
  }

  pkram::MemoryFile file_;
  std::optional<Mounted> mounted_;
};

TEST_F(TreeTest, WhatWasBuiltIsThere) {
  ASSERT_EQ(Import("all", Filesystem::Placing::kNew, BuildAll), absl::OkStatus());
  Picture picture = PictureOf(fs());
  EXPECT_EQ(picture.size(), 1u + 1 + 6 + 2 + 3 + 2 + 1 + 300 + 1);
  for (const size_t size : {0, 1, 3920, 3921, 4096, 20000}) {
    const std::string& text = picture["/all/file" + std::to_string(size)];
    EXPECT_TRUE(text.ends_with(" data=" + Text(size, 'x'))) << size;
    EXPECT_NE(text.find("uid=3 gid=4"), std::string::npos);
    EXPECT_NE(text.find(" 10.1 10.2 10.3 10.4"), std::string::npos) << text.substr(0, 200);
  }
  EXPECT_TRUE(picture["/all/link"].ends_with("target=one"));
  EXPECT_TRUE(picture["/all/long link"].ends_with("target=" + std::string(4000, 'l')));
  EXPECT_NE(picture["/all/null"].find("rdev=4294967299"), std::string::npos);
  EXPECT_NE(picture["/all/one"].find("nlink=2"), std::string::npos);
  EXPECT_EQ(picture["/all/one"], picture["/all/two"]);
  EXPECT_NE(picture["/all/holes"].find("user.color=blue"), std::string::npos);
  EXPECT_NE(picture["/all"].find("nlink=4 "), std::string::npos);
  std::string holes(2000 * kPageSize + 5, '\0');
  holes.replace(kPageSize, kPageSize, kPageSize, 'h');
  holes.replace(600 * kPageSize, kPageSize, kPageSize, 'h');
  EXPECT_TRUE(picture["/all/holes"].ends_with(" data=" + holes));
  Open();  // as after a kill
  EXPECT_EQ(PictureOf(fs()), picture);
  mounted_->Close();
  Open();
  EXPECT_EQ(PictureOf(fs()), picture);
  ExpectSound();
  // They are inodes like others.
  const Ino all = fs()->Lookup(kRootIno, "all")->ino;
  EXPECT_TRUE(fs()->Unlink(kBy, all, "one").ok());
  EXPECT_TRUE(fs()->RemoveDirectory(kBy, all, "empty").ok());
  EXPECT_TRUE(fs()->MakeNode(kBy, all, "new", S_IFREG).ok());
  const Ino file = fs()->Lookup(all, "file20000")->ino;
  EXPECT_EQ(*fs()->Write(kBy, file, 5, BytesOf("zzz")), 3u);
  ExpectSound();
}

TEST_F(TreeTest, ANameThatExistsIsRefused) {
  ASSERT_TRUE(ImportFile("name", Filesystem::Placing::kNew, "first").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(ImportFile("name", Filesystem::Placing::kNew, "second")));
  const uint64_t free = FreePages();  // the table is larger by now
  EXPECT_TRUE(absl::IsAlreadyExists(ImportFile("name", Filesystem::Placing::kNew, "third")));
  EXPECT_EQ(Read("name"), "first");
  EXPECT_EQ(FreePages(), free);
  ExpectSound();
}

TEST_F(TreeTest, OneTreeIsExchangedForAnother) {
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(Import("v", Filesystem::Placing::kReplace, BuildAll).ok());
  }
  const uint64_t free = FreePages();
  const Picture picture = PictureOf(fs());
  // Inode numbers are used again.
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Import("v", Filesystem::Placing::kReplace, BuildAll).ok());
    EXPECT_EQ(FreePages(), free);
  }
  EXPECT_EQ(PictureOf(fs()).size(), picture.size());
  ExpectSound();
  // Another kind of thing may be in the way, or somebody have a file of it open.
  const Ino dir = fs()->Lookup(kRootIno, "v")->ino;
  const Ino file = fs()->Lookup(dir, "file20000")->ino;
  ASSERT_TRUE(ImportFile("v", Filesystem::Placing::kReplace, "a file").ok());
  EXPECT_EQ(Read("v"), "a file");
  EXPECT_EQ(TextOf(*fs()->Read(file, 0, 20000)), Text(20000, 'x'));
  EXPECT_EQ(fs()->MakeNode(kBy, dir, "new", S_IFREG).error(), ENOENT);
  fs()->Forget(file, 1);
  fs()->Forget(dir, 1);
  ExpectSound();
}

TEST_F(TreeTest, DirectoriesAreMergedFileByFile) {
  const Ino there = fs()->MakeDirectory(kBy, kRootIno, "all", 0700)->ino;
  ASSERT_TRUE(fs()->MakeNode(kBy, there, "file1", S_IFREG).ok());
  ASSERT_TRUE(fs()->MakeNode(kBy, there, "other", S_IFREG).ok());
  ASSERT_TRUE(fs()->MakeDirectory(kBy, there, "large", 0700).ok());
  ASSERT_EQ(Import("all", Filesystem::Placing::kMerge, BuildAll), absl::OkStatus());
  Picture picture = PictureOf(fs());
  EXPECT_EQ(picture.size(), 1u + 1 + 6 + 2 + 3 + 2 + 1 + 300 + 1 + 1);
  EXPECT_TRUE(picture["/all/file1"].ends_with(" data=" + Text(1, 'x')));
  EXPECT_NE(picture["/all"].find(" 20.1 20.2"), std::string::npos);
  EXPECT_NE(picture["/all/large"].find("uid=3"), std::string::npos);
  ExpectSound();
  // Into the root itself.
  ASSERT_EQ(Import("", Filesystem::Placing::kMerge, BuildAll), absl::OkStatus());
  EXPECT_EQ(PictureOf(fs()).size(), picture.size() + 6 + 2 + 3 + 2 + 1 + 300 + 1);
  ExpectSound();
}

TEST_F(TreeTest, WhatCannotBeMergedIsNamed) {
  const Ino there = fs()->MakeDirectory(kBy, kRootIno, "all", 0700)->ino;
  ASSERT_TRUE(fs()->MakeDirectory(kBy, there, "file1", 0700).ok());
  const absl::Status refused = Import("all", Filesystem::Placing::kMerge, BuildAll);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_NE(refused.message().find("all/file1: is a directory there"), std::string::npos)
      << refused;
  ExpectSound();
}

TEST_F(TreeTest, ATreeThatDoesNotFitLeavesNothing) {
  const uint64_t free = FreePages();
  {
    Builder builder(file_, mounted_->region());
    const std::string text(kPages * kPageSize, 'x');
    const TreeBuilder::Extent all{0, text.size()};
    EXPECT_TRUE(absl::IsResourceExhausted(
        builder.tree.MakeFile(builder.tree.Reserve(), Attributes(S_IFREG, 1), text.size(),
                              {&all, 1}, builder.ReaderOf(text))));
  }
  EXPECT_EQ(FreePages(), free);
  ExpectSound();
}

TEST_F(TreeTest, WithoutNumbersThereIsNoTree) {
  mounted_.reset();
  mounted_.emplace(file_, 100);
  const uint64_t free = FreePages();
  EXPECT_TRUE(absl::IsResourceExhausted(Import("all", Filesystem::Placing::kNew, BuildAll)));
  EXPECT_EQ(FreePages(), free);
  EXPECT_TRUE(ImportFile("one", Filesystem::Placing::kNew, "x").ok());
  ExpectSound();
}

TEST_F(TreeTest, ASuccessorAdoptsWhatWasBuiltBefore) {
  Builder builder(file_, mounted_->region());
  const Filesystem::BuiltTree tree = BuildAll(&builder);
  Open();
  ASSERT_EQ(fs()->AdoptTree(kBy, tree, kRootIno, "all", Filesystem::Placing::kNew),
            absl::OkStatus());
  EXPECT_GT(PictureOf(fs()).size(), 300u);
  ExpectSound();
}

TEST_F(TreeTest, WhoHasNoLocksHasNoTree) {
  Filesystem::BuiltTree tree;
  {
    Builder builder(file_, mounted_->region());
    tree = BuildAll(&builder);
  }
  space().RecheckLoans();
  EXPECT_FALSE(fs()->AdoptTree(kBy, tree, kRootIno, "all", Filesystem::Placing::kNew).ok());
  ExpectSound();
}

constexpr uint64_t kToken = 7;

TEST_F(TreeTest, AStagedTreeIsSeenByWhoKnowsItsName) {
  ASSERT_TRUE(ImportFile("v", Filesystem::Placing::kNew, "before").ok());
  const Picture before = PictureOf(fs());
  Builder builder(file_, mounted_->region());
  ASSERT_EQ(fs()->StageTree(BuildAll(&builder), kRootIno, kToken), absl::OkStatus());
  EXPECT_EQ(PictureOf(fs()), before);
  const Result<Attr> top = fs()->Lookup(kRootIno, Filesystem::StagedName(kToken));
  ASSERT_TRUE(top.ok());
  EXPECT_TRUE(S_ISDIR(top->mode));
  constexpr uint32_t kExchange = 2;
  ASSERT_TRUE(
      fs()->Rename(kBy, kRootIno, Filesystem::StagedName(kToken), kRootIno, "v", kExchange).ok());
  EXPECT_EQ(fs()->Lookup(kRootIno, "v")->ino, top->ino);
  const Result<Attr> old = fs()->Lookup(kRootIno, Filesystem::StagedName(kToken));
  ASSERT_TRUE(old.ok());
  EXPECT_TRUE(S_ISREG(old->mode));
  fs()->Forget(old->ino, 1);
  fs()->DiscardStaged(kRootIno, Filesystem::StagedName(kToken));
  EXPECT_EQ(fs()->Lookup(kRootIno, Filesystem::StagedName(kToken)).error(), ENOENT);
  fs()->Forget(top->ino, 2);
  EXPECT_EQ(PictureOf(fs()).size(), 1u + 1 + 6 + 2 + 3 + 2 + 1 + 300 + 1);
  ExpectSound();
}

TEST_F(TreeTest, WhatIsStagedGoesWithWhoHasStagedIt) {
  const uint64_t free = FreePages();
  {
    Builder builder(file_, mounted_->region());
    ASSERT_EQ(fs()->StageTree(BuildAll(&builder), kRootIno, kToken), absl::OkStatus());
    fs()->DiscardStaged(kRootIno, "");
    const Result<Attr> top = fs()->Lookup(kRootIno, Filesystem::StagedName(kToken));
    ASSERT_TRUE(top.ok());
    fs()->Forget(top->ino, 1);
  }
  fs()->DiscardStaged(kRootIno, "");
  EXPECT_EQ(FreePages(), free - 1);  // the table has grown
  ExpectSound();
}

TEST_F(TreeTest, WhatIsStagedIsStillStagedWhenAnotherProcessServes) {
  ASSERT_TRUE(ImportFile("v", Filesystem::Placing::kNew, "before").ok());
  const uint64_t free = FreePages();
  const std::string name = Filesystem::StagedName(kToken);
  {
    Builder builder(file_, mounted_->region());
    const Filesystem::BuiltTree tree = BuildAll(&builder);
    ASSERT_EQ(fs()->StageTree(tree, kRootIno, kToken), absl::OkStatus());
    Open();
    EXPECT_EQ(PictureOf(fs()).size(), 2u);
    // The same request again changes nothing.
    ASSERT_EQ(fs()->StageTree(tree, kRootIno, kToken), absl::OkStatus());
    constexpr uint32_t kExchange = 2;
    ASSERT_TRUE(fs()->Rename(kBy, kRootIno, name, kRootIno, "v", kExchange).ok());
    Open();
    const Result<Attr> old = fs()->Lookup(kRootIno, name);
    ASSERT_TRUE(old.ok());
    EXPECT_TRUE(S_ISREG(old->mode));
    fs()->Forget(old->ino, 1);
    EXPECT_EQ(fs()->Lookup(kRootIno, Filesystem::StagedName(kToken + 1)).error(), ENOENT);
  }
  // Whoever serves when its builder is gone deletes it.
  Open();
  EXPECT_EQ(fs()->Lookup(kRootIno, name).error(), ENOENT);
  ASSERT_TRUE(fs()->Lookup(kRootIno, "v").ok());
  EXPECT_LT(FreePages(), free);
  ExpectSound();
}

// Changes each word of the built tree in several ways.
TEST_F(TreeTest, NothingThatWasBuiltIsTrusted) {
  const auto build = [](Builder* b) {
    const Ino top = b->tree.Reserve();
    TreeBuilder::Attributes a = Attributes(S_IFREG | 0600, 14);
    Xattrs::Append(&a.xattrs, "user.color", "blue");
    const std::string text = Text(kPageSize * 2, 'f');
    const TreeBuilder::Extent all{0, text.size()};
    const Ino file = b->tree.Reserve();
    EXPECT_TRUE(b->tree.MakeFile(file, a, text.size(), {&all, 1}, b->ReaderOf(text)).ok());
    const Ino sub = b->Directory(top, {{"f", b->File("x"), S_IFREG}});
    b->Directory(TreeBuilder::root(), {{"file", file, S_IFREG}, {"sub", sub, S_IFDIR}}, top);
    return b->tree.Finish(top, S_IFDIR).value();
  };
  mounted_.reset();
  ASSERT_EQ(pkram::Region::Format(file_.Reopen().get(), 160, pkram::Region::Contents::kGiveUp),
            absl::OkStatus());
  Open();
  const Picture before = PictureOf(fs());
  const pkram::MemoryFile::Image image = file_.Save();
  int accepted = 0, refused = 0;
  for (uint64_t page = 0, word = 0;;) {
    file_.Restore(image);
    Open();
    Builder builder(file_, mounted_->region());
    const Filesystem::BuiltTree tree = build(&builder);
    // The pages that hold something.
    std::vector<uint64_t*> words;
    for (const pkram::PageRun& run : space().loans().Lent()) {
      const uint64_t exist = file_.size() / kPageSize;
      if (run.first.value() >= exist) continue;
      for (uint64_t i = 0; i < std::min(run.count, exist - run.first.value()) * kPageSize / 8;
           ++i) {
        auto* const at = builder.region->mapping().WritableAt<uint64_t>(run.first) + i;
        if (*at != 0) words.push_back(at);
      }
    }
    if (word >= words.size()) {
      if (++page == 5) break;
      word = 0;
    }
    const uint64_t values[] = {0, *words[word] + 1, *words[word] ^ uint64_t{1} << 40,
                               *words[word] + pkram::format::MakeEntry(Pfn(1)), ~uint64_t{0}};
    *words[word] = values[page];
    word += 3;
    const absl::Status status =
        fs()->AdoptTree(kBy, tree, kRootIno, "tree", Filesystem::Placing::kNew);
    status.ok() ? ++accepted : ++refused;
    ExpectSound();
    if (!status.ok()) {
      EXPECT_EQ(PictureOf(fs()), before);
    }
    if (HasFailure()) {
      ADD_FAILURE() << "word " << word << " value " << page << ": " << status;
      return;
    }
  }
  EXPECT_GT(refused, 50);
  EXPECT_GT(accepted, 10);
}

// The program that has built the tree goes on changing it.  The filesystem has what was proven.
TEST_F(TreeTest, WhatIsChangedWhileItIsProvenIsAsItWasProven) {
  Builder builder(file_, mounted_->region());
  std::vector<TreeBuilder::Name> names;
  for (int i = 0; i < 20; ++i) {
    names.push_back({"f" + std::to_string(i), builder.File("text"), S_IFREG});
  }
  const Ino top = builder.Directory(TreeBuilder::root(), names);
  const Filesystem::BuiltTree tree = builder.tree.Finish(top, S_IFDIR).value();
  auto* const objects = reinterpret_cast<pkram::format::Link*>(
      builder.region->mapping().WritableAt(pkram::format::EntryPfn(
          builder.region->mapping().At<pkram::format::Node>(tree.node)->objects)));
  std::vector<uint64_t> pages(objects->entry, objects->entry + 30);
  pkram::Loans& loans = space().loans();
  loans.BeginAdoption();
  const Ino base = 510 * 4;
  uint64_t calls = 0;
  const auto proven = ProveTree(
      mounted_->region(), tree.node, tree.links, tree.inodes, base, {}, [&](Ino ino) -> uint32_t {
        ++calls;
        if (calls <= 400) objects->next = ~uint64_t{0};
        const uint64_t i = ino - base;
        if (calls > 488 && i < pages.size() && pages[i] != pkram::format::MakeHole()) {
          std::memset(builder.region->mapping().WritableAt(pkram::format::EntryPfn(pages[i])), 0xff,
                      kPageSize);
        }
        return 0;
      });
  loans.EndAdoption();
  ASSERT_EQ(proven.status(), absl::OkStatus());
  EXPECT_EQ(objects->next, 0u);
  for (uint64_t i = 1; i < pages.size(); ++i) {
    if (!pkram::format::IsPage(pages[i])) continue;
    const auto* page =
        mounted_->region()->mapping().At<pkram::format::Object>(pkram::format::EntryPfn(pages[i]));
    EXPECT_EQ(page->header.client_bytes, pkram::format::kObjectClientBytes) << i;
  }
}

TEST_F(TreeTest, AtEveryStoreATreeIsThereOrNot) {
  ASSERT_TRUE(ImportFile("v", Filesystem::Placing::kNew, "before").ok());
  ASSERT_TRUE(fs()->MakeNode(kBy, kRootIno, "other", S_IFREG).ok());
  const Picture before = PictureOf(fs());
  mounted_->Close();
  bool enabled = false;
  std::vector<pkram::MemoryFile::Image> states;
  mounted_.reset();
  mounted_.emplace(file_, 0, [&] {
    if (enabled) states.push_back(file_.Save());
  });
  Picture after;
  {
    Builder builder(file_, mounted_->region());
    const Filesystem::BuiltTree tree = BuildAll(&builder);
    enabled = true;
    ASSERT_TRUE(fs()->AdoptTree(kBy, tree, kRootIno, "v", Filesystem::Placing::kReplace).ok());
    enabled = false;
  }
  after = PictureOf(fs());
  const auto without_times = [](Picture picture) {
    picture.erase("/");  // its mtime
    return picture;
  };
  ASSERT_GT(states.size(), 10u);
  int seen_before = 0, seen_after = 0;
  for (const pkram::MemoryFile::Image& state : states) {
    pkram::MemoryFile copy;
    copy.Restore(state);
    std::optional<Mounted> mounted(copy);
    ASSERT_NE(mounted->fs(), nullptr);
    const Picture now = PictureOf(mounted->fs());
    const auto in_use = static_cast<int64_t>(mounted->region()->space().counts().InUse());
    mounted.reset();
    const bool is_before = now == before;
    is_before ? ++seen_before : ++seen_after;
    if (!is_before) {
      ASSERT_EQ(without_times(now), without_times(after));
    }
    FsCheck check;
    EXPECT_EQ(pkram::UsedPages(copy, &check), in_use);
  }
  EXPECT_GT(seen_before, 3);
  EXPECT_GT(seen_after, 3);
}

TEST_F(TreeTest, AtEveryStoreOfAMergeEachFileIsTheOldOneOrTheNew) {
  const Ino there = fs()->MakeDirectory(kBy, kRootIno, "v", 0700)->ino;
  for (const char* name : {"a", "b", "mine"}) {
    const Ino ino = fs()->MakeNode(kBy, there, name, S_IFREG | 0600)->ino;
    ASSERT_EQ(*fs()->Write(kBy, ino, 0, BytesOf("old")), 3u);
  }
  mounted_->Close();
  bool enabled = false;
  std::vector<pkram::MemoryFile::Image> states;
  mounted_.reset();
  mounted_.emplace(file_, 0, [&] {
    if (enabled) states.push_back(file_.Save());
  });
  {
    Builder builder(file_, mounted_->region());
    const Ino top = builder.Directory(TreeBuilder::root(), {{"a", builder.File("new"), S_IFREG},
                                                            {"b", builder.File("new"), S_IFREG},
                                                            {"c", builder.File("new"), S_IFREG}});
    const Filesystem::BuiltTree tree = builder.tree.Finish(top, S_IFDIR).value();
    enabled = true;
    ASSERT_EQ(fs()->AdoptTree(kBy, tree, kRootIno, "v", Filesystem::Placing::kMerge),
              absl::OkStatus());
    enabled = false;
  }
  std::set<std::string> seen;
  for (const pkram::MemoryFile::Image& state : states) {
    pkram::MemoryFile copy;
    copy.Restore(state);
    std::optional<Mounted> mounted(copy);
    ASSERT_NE(mounted->fs(), nullptr);
    Picture picture = PictureOf(mounted->fs());
    std::string now;
    for (const char* name : {"/v/a", "/v/b", "/v/c", "/v/mine"}) {
      const std::string& text = picture[name];
      EXPECT_TRUE(text.empty() || text.ends_with("=old") || text.ends_with("=new")) << text;
      now += text.empty() ? "-" : text.ends_with("=old") ? "o" : "n";
    }
    EXPECT_EQ(now.substr(3), "o");
    seen.insert(now);
    const auto in_use = static_cast<int64_t>(mounted->region()->space().counts().InUse());
    mounted.reset();
    FsCheck check;
    EXPECT_EQ(pkram::UsedPages(copy, &check), in_use);
  }
  EXPECT_EQ(seen.size(), 4u);  // one more file each time
  EXPECT_TRUE(seen.contains("oo-o"));
  EXPECT_TRUE(seen.contains("nnno"));
}

}  // namespace
}  // namespace pkramfs
