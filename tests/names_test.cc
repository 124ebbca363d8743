// The rules of names: making, linking, removing, renaming, listing.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <random>
#include <set>

#include "fs/layout.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

constexpr uint32_t kNoReplace = 1, kExchange = 2, kWhiteout = 4;

class NamesTest : public FsTest {
 protected:
  int Rename(std::string_view from, std::string_view to, uint32_t flags = 0,
             Ino from_dir = kRootIno, Ino to_dir = kRootIno) {
    return fs().Rename(ctx(), from_dir, from, to_dir, to, flags).error();
  }
  int Unlink(std::string_view name, Ino dir = kRootIno) {
    return fs().Unlink(ctx(), dir, name).error();
  }
  int Rmdir(std::string_view name, Ino dir = kRootIno) {
    return fs().RemoveDirectory(ctx(), dir, name).error();
  }
};

TEST_F(NamesTest, TheRootOfANewFilesystem) {
  const Attr root = AttrOf(kRootIno);
  EXPECT_EQ(root.mode, S_IFDIR | 01777u);
  EXPECT_EQ(root.nlink, 2u);
  EXPECT_EQ(root.size, 40u);
  EXPECT_EQ(root.mtime, (Timestamp{1000, 1}));
}

TEST_F(NamesTest, EverythingComesBackAfterAKillAndAfterAnUnmount) {
  const Ino dir = Make("dir", S_IFDIR | 0751);
  const Ino file = Make("file\n\x01", S_IFREG | 04640, dir);
  Put(file, 0, "inline");
  Put(Make("large", S_IFREG, dir), 12345, std::string(1 << 20, 'l'));
  ASSERT_TRUE(fs().Link(ctx(), file, kRootIno, "hard").ok());
  ASSERT_TRUE(fs().MakeSymlink(ctx(), kRootIno, "sym", "dir/file").ok());
  ASSERT_TRUE(fs().MakeSymlink(ctx(), kRootIno, "long", std::string(4095, 's')).ok());
  ASSERT_TRUE(fs().MakeNode(ctx(), dir, "null", S_IFCHR | 0666, 0x100000003).ok());
  ASSERT_TRUE(fs().MakeNode(ctx(), dir, "fifo", S_IFIFO | 0600).ok());
  ASSERT_TRUE(fs().MakeNode(ctx(), dir, "socket", S_IFSOCK | 0600).ok());
  Make(std::string(255, 'n'), S_IFREG, dir);
  ASSERT_TRUE(fs().SetXattr(ctx(), file, "user.k", std::string(9000, 'v'), 0).ok());
  ASSERT_TRUE(fs().SetXattr(ctx(), dir, "trusted.t", "", 0).ok());
  for (int i = 0; i < 500; ++i) Make("many" + std::to_string(i), S_IFREG, dir);
  const Picture before = PictureOf(&fs());
  Remount();
  EXPECT_EQ(PictureOf(&fs()), before);
  mounted_->Close();
  mounted_ = std::make_unique<Mounted>(file_);
  EXPECT_EQ(PictureOf(&fs()), before);
}

// Linux sends no more than 16 bits.  A region with more in a mode could not be opened again.
TEST_F(NamesTest, BitsOfAModeThatMeanNothingAreNotKept) {
  const Attr made = *fs().MakeNode(ctx(), kRootIno, "made", S_IFREG | 0xffff0000 | 0644);
  EXPECT_EQ(made.mode, S_IFREG | 0644u);
  EXPECT_EQ((*fs().MakeDirectory(ctx(), kRootIno, "dir", 0xffff0000 | 0755)).mode, S_IFDIR | 0755u);
  Remount();
}

TEST_F(NamesTest, MakingFailsAsOnTmpfs) {
  const Ino file = Make("file");
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, "file", S_IFREG).error(), EEXIST);
  EXPECT_EQ(fs().MakeDirectory(ctx(), kRootIno, "file", 0755).error(), EEXIST);
  EXPECT_EQ(fs().MakeNode(ctx(), file, "x", S_IFREG).error(), ENOTDIR);
  EXPECT_EQ(fs().MakeNode(ctx(), 99, "x", S_IFREG).error(), ESTALE);
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, std::string(256, 'x'), S_IFREG).error(), ENAMETOOLONG);
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, "..", S_IFREG).error(), EEXIST);
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, "x", S_IFDIR).error(), EINVAL);
  EXPECT_EQ(fs().MakeSymlink(ctx(), kRootIno, "x", "").error(), ENOENT);
  EXPECT_EQ(fs().MakeSymlink(ctx(), kRootIno, "x", std::string(4096, 'x')).error(), ENAMETOOLONG);
  EXPECT_EQ(fs().Link(ctx(), file, kRootIno, "file").error(), EEXIST);
  EXPECT_EQ(fs().Link(ctx(), Make("d", S_IFDIR), kRootIno, "x").error(), EPERM);
  EXPECT_EQ(fs().Lookup(kRootIno, "none").error(), ENOENT);
  EXPECT_EQ(fs().Lookup(kRootIno, std::string(256, 'x')).error(), ENAMETOOLONG);
  EXPECT_EQ(fs().Lookup(file, "x").error(), ENOTDIR);
  EXPECT_THAT(Names(), UnorderedElementsAre("file", "d"));
}

TEST_F(NamesTest, ADirectoryCountsItsSubdirectoriesAndEntries) {
  const Ino dir = Make("dir", S_IFDIR | 0755);
  Make("sub", S_IFDIR, dir);
  Make("file", S_IFREG, dir);
  EXPECT_EQ(AttrOf(dir).nlink, 3u);
  EXPECT_EQ(AttrOf(dir).size, 80u);
  EXPECT_EQ(Rmdir("sub", dir), 0);
  EXPECT_EQ(AttrOf(dir).nlink, 2u);
  EXPECT_EQ(AttrOf(dir).size, 60u);
}

TEST_F(NamesTest, SetgidDirectoriesHandDownTheirGroup) {
  const Ino dir = Make("dir", S_IFDIR | 02775);
  ASSERT_TRUE(fs().SetAttr(ctx(), dir, {.what = AttrChange::kSetGid, .gid = 77}).ok());
  const Ino file = Make("f", S_IFREG | 0644, dir);
  const Ino sub = Make("d", S_IFDIR | 0755, dir);
  EXPECT_EQ(AttrOf(file).gid, 77u);
  EXPECT_EQ(AttrOf(sub).gid, 77u);
  EXPECT_EQ(AttrOf(sub).mode, S_IFDIR | 02755u);
}

TEST_F(NamesTest, WhatIsForgottenWhileFrozenIsReclaimedAfterwards) {
  const Ino file = Make("f");
  Put(file, 0, std::string(1 << 20, 'x'));
  const uint64_t free = FreePages();
  EXPECT_EQ(Unlink("f"), 0);
  ASSERT_TRUE(fs().Freeze());
  EXPECT_FALSE(fs().Freeze());
  fs().Forget(file, 1);
  EXPECT_EQ(FreePages(), free);
  EXPECT_EQ(fs().GetAttr(file).error(), ESTALE);
  ASSERT_TRUE(fs().Thaw());
  EXPECT_FALSE(fs().Thaw());
  EXPECT_GE(FreePages(), free + 256);
  EXPECT_EQ(Unlink("f"), ENOENT);
}

// More than the reserve could hold a copy of.
TEST_F(NamesTest, AttributesAreTakenAwayOnAFullFilesystem) {
  const Ino file = Make("f");
  for (int i = 0; i < 4; ++i) {
    const std::string name = "user." + std::to_string(i);
    // 59 pages in all, to the byte.
    const size_t size = i == 0 ? 61574 : 60000 + static_cast<size_t>(i);
    ASSERT_TRUE(fs().SetXattr(ctx(), file, name, std::string(size, 'v'), 0).ok());
  }
  ASSERT_TRUE(fs().SetXattr(ctx(), file, "security.capability", "c", 0).ok());
  const Ino large = Make("large");
  const std::string piece(1 << 16, 'x');
  uint64_t size = 0;
  for (;;) {
    const auto written = fs().Write(ctx(), large, size, BytesOf(piece));
    if (!written.ok()) break;
    size += *written;
  }
  while (fs().MakeNode(ctx(), kRootIno, "n" + std::to_string(size), S_IFREG).ok()) ++size;
  EXPECT_EQ(fs().SetXattr(ctx(), file, "user.4", "new", 0).error(), ENOSPC);
  EXPECT_TRUE(fs().RemoveXattr(ctx(), file, "system.posix_acl_access").ok());  // there is none
  EXPECT_TRUE(fs().RemoveXattr(ctx(), file, "user.1").ok());
  // So does what drops a capability.
  EXPECT_EQ(Resize(file, 0), 0);
  Remount();
  EXPECT_EQ(*fs().ListXattrs({}, file), std::string("user.0\0user.2\0user.3\0", 21));
  EXPECT_EQ(fs().GetXattr(file, "user.1").error(), ENODATA);
  EXPECT_EQ(*fs().GetXattr(file, "user.3"), std::string(60003, 'v'));
  EXPECT_EQ(Unlink("large"), 0);
  EXPECT_TRUE(fs().SetXattr(ctx(), file, "user.1", "back", 0).ok());
  EXPECT_EQ(*fs().GetXattr(file, "user.1"), "back");
}

TEST_F(NamesTest, ChangeTimesStayWhenTheClockIsSetBack) {
  const Ino file = Make("f");
  const Timestamp made = AttrOf(file).ctime;
  const Context past{.uid = 0, .gid = 0, .now = {1, 1}};
  const AttrChange change{.what = AttrChange::kSetMode, .mode = 0600};
  ASSERT_TRUE(fs().SetAttr(past, file, change).ok());
  EXPECT_EQ(AttrOf(file).ctime, made);
  ASSERT_TRUE(fs().Write(past, file, 0, BytesOf("x")).ok());
  EXPECT_EQ(AttrOf(file).ctime, made);
  EXPECT_EQ(AttrOf(file).mtime, past.now);
}

TEST_F(NamesTest, AFileWithoutANameIsLinkedOnce) {
  const auto made = fs().MakeTemporary(ctx(), kRootIno, 0640);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made).nlink, 0u);
  EXPECT_THAT(Names(), ElementsAre());
  Put((*made).ino, 0, "nameless");
  ASSERT_TRUE(fs().Link(ctx(), (*made).ino, kRootIno, "f").ok());
  EXPECT_EQ(Text(Find("f")), "nameless");
  EXPECT_EQ(AttrOf((*made).ino).nlink, 1u);
  // From now on it is as any other: without a name it gets none.
  EXPECT_EQ(Unlink("f"), 0);
  EXPECT_EQ(fs().Link(ctx(), (*made).ino, kRootIno, "g").error(), ENOENT);
  // One that never gets a name is gone when nobody uses it, or after a kill.
  const uint64_t free = FreePages();
  const auto other = fs().MakeTemporary(ctx(), kRootIno, 0640);
  fs().Forget((*other).ino, 1);
  EXPECT_EQ(FreePages(), free);
  ASSERT_TRUE(fs().MakeTemporary(ctx(), kRootIno, 0640).ok());
  Remount();
  EXPECT_THAT(Names(), ElementsAre());
  EXPECT_EQ(fs().StatFs().used_inodes, 1u);
}

TEST_F(NamesTest, AnInodeIsFoundAsItsOwnDot) {
  const Ino file = Make("f");
  const auto found = fs().Lookup(file, ".");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ((*found).ino, file);
  EXPECT_EQ((*fs().Lookup(file, "/")).ino, file);
  EXPECT_EQ(fs().Lookup(99, ".").error(), ESTALE);
}

TEST_F(NamesTest, ANumberWhoseGenerationsAreUsedUpIsNotUsedAgain) {
  const Ino ino = Make("a");
  mounted_.reset();
  // Its inode and its name know the last generation.
  std::string image = file_.Contents();
  const auto* node = reinterpret_cast<const pkram::format::Node*>(
      image.data() +
      pkram::format::EntryPfn(file_.Peek(offsetof(pkram::format::SuperBlock, nodes))).offset());
  const uint64_t table = pkram::format::EntryPfn(node->objects).offset();
  const uint64_t page = pkram::format::EntryPfn(file_.Peek(table + 16 + 8 * ino)).offset();
  file_.Poke(page + 64 + offsetof(InodeRecord, generation_flags),
             kMaxGeneration | uint64_t{kInlineData} << 32);
  mounted_ = std::make_unique<Mounted>(file_);
  EXPECT_EQ(Unlink("a"), 0);
  EXPECT_NE(Make("b"), ino);
  Remount();
  EXPECT_NE(Make("c"), ino);
}

TEST_F(NamesTest, RemovingFailsAsOnTmpfs) {
  const Ino dir = Make("dir", S_IFDIR);
  Make("in", S_IFREG, dir);
  Make("file");
  EXPECT_EQ(Unlink("dir"), EISDIR);
  EXPECT_EQ(Rmdir("file"), ENOTDIR);
  EXPECT_EQ(Rmdir("dir"), ENOTEMPTY);
  EXPECT_EQ(Rmdir("."), EINVAL);
  EXPECT_EQ(Rmdir(".."), ENOTEMPTY);
  EXPECT_EQ(Unlink("none"), ENOENT);
  EXPECT_EQ(Unlink("in", dir), 0);
  EXPECT_EQ(Rmdir("dir"), 0);
  EXPECT_EQ(Unlink("file"), 0);
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_F(NamesTest, AnUnlinkedFileLivesAsLongAsTheKernelKnowsIt) {
  const Ino ino = Make("open");  // its reply counts as one lookup
  Put(ino, 0, std::string(100000, 'x'));
  const uint64_t before = FreePages();
  EXPECT_EQ(Unlink("open"), 0);
  EXPECT_EQ(AttrOf(ino).nlink, 0u);
  EXPECT_EQ(Text(ino), std::string(100000, 'x'));
  Put(ino, 0, "still");
  EXPECT_EQ(FreePages(), before);
  fs().Forget(ino, 1);
  EXPECT_EQ(fs().GetAttr(ino).error(), ESTALE);
  EXPECT_GT(FreePages(), before + 24);
}

TEST_F(NamesTest, AnUnlinkedFileIsGoneAtTheNextMount) {
  const uint64_t empty = FreePages();
  const Ino ino = Make("open");
  Put(ino, 0, std::string(100000, 'x'));
  EXPECT_EQ(Unlink("open"), 0);
  Remount();
  EXPECT_EQ(fs().GetAttr(ino).error(), ESTALE);
  EXPECT_EQ(FreePages(), empty);
}

TEST_F(NamesTest, AReusedInodeNumberHasAnotherGeneration) {
  const Ino first = Make("a");
  const uint32_t generation = AttrOf(first).generation;
  EXPECT_EQ(Unlink("a"), 0);
  fs().Forget(first, 1);
  Remount();
  const Ino second = Make("b");
  EXPECT_EQ(second, first);
  EXPECT_EQ(AttrOf(second).generation, generation + 1);
}

TEST_F(NamesTest, NothingCanBeMadeInARemovedDirectory) {
  const Ino dir = Make("dir", S_IFDIR);
  const Ino file = Make("file");
  EXPECT_EQ(Rmdir("dir"), 0);
  EXPECT_EQ(fs().MakeNode(ctx(), dir, "x", S_IFREG).error(), ENOENT);
  EXPECT_EQ(fs().Link(ctx(), file, dir, "x").error(), ENOENT);
  EXPECT_EQ(Rename("file", "x", 0, kRootIno, dir), ENOENT);
  EXPECT_EQ(AttrOf(dir).nlink, 0u);
}

TEST_F(NamesTest, RenameReplacesWhatItMay) {
  const Ino a = Make("a");
  const Ino b = Make("b");
  const Ino d = Make("d", S_IFDIR);
  const Ino e = Make("e", S_IFDIR);
  Make("x", S_IFREG, e);
  EXPECT_EQ(Rename("none", "a"), ENOENT);
  EXPECT_EQ(Rename("a", "d"), EISDIR);
  EXPECT_EQ(Rename("d", "a"), ENOTDIR);
  EXPECT_EQ(Rename("d", "e"), ENOTEMPTY);
  EXPECT_EQ(Rename("a", "b", kNoReplace), EEXIST);
  EXPECT_EQ(Rename("a", "b"), 0);
  EXPECT_EQ(Find("b"), a);
  EXPECT_EQ(AttrOf(b).nlink, 0u);
  EXPECT_EQ(Rename("e", "d"), 0);
  EXPECT_EQ(Find("d"), e);
  EXPECT_EQ(AttrOf(d).nlink, 0u);
  EXPECT_EQ(AttrOf(kRootIno).nlink, 3u);
  EXPECT_EQ(Rename("b", "b"), 0);
  EXPECT_EQ(Rename("b", std::string(256, 'x')), ENAMETOOLONG);
  EXPECT_EQ(Rename("b", "c", 8), EINVAL);
  EXPECT_EQ(Rename("b", "c", kNoReplace | kExchange), EINVAL);
  EXPECT_EQ(Rename("b", ".."), EBUSY);
}

TEST_F(NamesTest, RenameOfTwoNamesOfOneFileDoesNothing) {
  const Ino a = Make("a");
  ASSERT_TRUE(fs().Link(ctx(), a, kRootIno, "b").ok());
  EXPECT_EQ(Rename("a", "b"), 0);
  EXPECT_THAT(Names(), UnorderedElementsAre("a", "b"));
  EXPECT_EQ(AttrOf(a).nlink, 2u);
}

TEST_F(NamesTest, ADirectoryMovesWithItsParentLink) {
  const Ino from = Make("from", S_IFDIR);
  const Ino to = Make("to", S_IFDIR);
  const Ino moved = Make("moved", S_IFDIR, from);
  const Ino below = Make("below", S_IFDIR, moved);
  EXPECT_EQ(Rename("moved", "here", 0, from, to), 0);
  EXPECT_EQ(Find("..", moved), to);
  EXPECT_EQ(AttrOf(from).nlink, 2u);
  EXPECT_EQ(AttrOf(to).nlink, 3u);
  EXPECT_EQ(Rename("to", "loop", 0, kRootIno, below), EINVAL);
  EXPECT_EQ(Rename("to", "self", 0, kRootIno, to), EINVAL);
  EXPECT_EQ(Rename("below", "to", 0, moved, kRootIno), ENOTEMPTY);
}

TEST_F(NamesTest, ExchangeSwapsAnythingWithAnything) {
  const Ino dir = Make("dir", S_IFDIR);
  const Ino sub = Make("sub", S_IFDIR, dir);
  const Ino file = Make("file");
  EXPECT_EQ(Rename("file", "none", kExchange), ENOENT);
  EXPECT_EQ(Rename("sub", "file", kExchange, dir, kRootIno), 0);
  EXPECT_EQ(Find("file"), sub);
  EXPECT_EQ(Find("sub", dir), file);
  EXPECT_EQ(Find("..", sub), kRootIno);
  EXPECT_EQ(AttrOf(dir).nlink, 2u);
  EXPECT_EQ(AttrOf(kRootIno).nlink, 4u);
  EXPECT_EQ(Rename("dir", "file", kExchange), 0);
  EXPECT_EQ(Find("file"), dir);
  EXPECT_EQ(Rename("sub", "file", kExchange, dir, kRootIno), EINVAL);
}

TEST_F(NamesTest, WhiteoutLeavesACharacterDeviceBehind) {
  const Ino a = Make("a");
  EXPECT_EQ(Rename("a", "b", kWhiteout), 0);
  EXPECT_EQ(Find("b"), a);
  const Attr white = AttrOf(Find("a"));
  EXPECT_EQ(white.mode, static_cast<uint32_t>(S_IFCHR));
  EXPECT_EQ(white.rdev, 0u);
}

TEST_F(NamesTest, TimesFollowTheRules) {
  const Ino dir = Make("dir", S_IFDIR);
  const Ino file = Make("f", S_IFREG, dir);
  const int64_t made = clock_;
  EXPECT_EQ(AttrOf(dir).mtime.seconds, made);
  EXPECT_EQ(AttrOf(dir).ctime.seconds, made);
  EXPECT_EQ(AttrOf(file).btime.seconds, made);
  Put(file, 0, "x");
  EXPECT_EQ(AttrOf(file).mtime.seconds, made + 1);
  EXPECT_EQ(AttrOf(file).ctime.seconds, made + 1);
  EXPECT_EQ(AttrOf(file).atime.seconds, made);
  EXPECT_EQ(AttrOf(dir).mtime.seconds, made);
  ASSERT_TRUE(fs().SetAttr(ctx(), file, {.what = AttrChange::kSetMode, .mode = 0600}).ok());
  EXPECT_EQ(AttrOf(file).mtime.seconds, made + 1);
  EXPECT_EQ(AttrOf(file).ctime.seconds, made + 2);
  AttrChange past{.what = AttrChange::kSetMtime | AttrChange::kSetAtime};
  past.atime = {-5, 999999999};
  past.mtime = {int64_t{1} << 40, 1};
  ASSERT_TRUE(fs().SetAttr(ctx(), file, past).ok());
  Remount();
  EXPECT_EQ(AttrOf(file).atime, past.atime);
  EXPECT_EQ(AttrOf(file).mtime, past.mtime);
  EXPECT_EQ(AttrOf(file).ctime.seconds, made + 3);
  EXPECT_EQ(Unlink("f", dir), 0);
  EXPECT_EQ(AttrOf(dir).mtime.seconds, made + 4);
}

TEST_F(NamesTest, SetIdBitsGoWhenContentsOrOwnerChange) {
  const Context user{.uid = 1000, .gid = 1000, .now = {9000, 0}};
  const Ino ino = Make("suid", S_IFREG | 06755);
  Put(ino, 0, "by root");
  EXPECT_EQ(AttrOf(ino).mode & 07000, 06000u);
  ASSERT_TRUE(fs().Write(user, ino, 0, BytesOf("by user")).ok());
  EXPECT_EQ(AttrOf(ino).mode & 07000, 0u);
  const Ino locked = Make("mandatory", S_IFREG | 06745);  // sgid without group execution
  ASSERT_TRUE(fs().SetAttr(ctx(), locked, {.what = AttrChange::kSetUid, .uid = 5}).ok());
  EXPECT_EQ(AttrOf(locked).mode & 07000, 02000u);
  ASSERT_TRUE(fs().SetXattr(ctx(), ino, "security.capability", "cap", 0).ok());
  Put(ino, 0, "root");
  EXPECT_EQ(fs().GetXattr(ino, "security.capability").error(), ENODATA);
}

TEST_F(NamesTest, ExtendedAttributesFollowTheirFlags) {
  const Ino ino = Make("x");
  constexpr int kCreate = 1, kReplace = 2;
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.a", "1", kReplace).error(), ENODATA);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.a", "1", kCreate).error(), 0);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.a", "2", kCreate).error(), EEXIST);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.a", "22", kReplace).error(), 0);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.b", std::string(65536, 'b'), 0).error(), 0);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.b", std::string(65537, 'b'), 0).error(), E2BIG);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "system.x", "1", 0).error(), EOPNOTSUPP);
  EXPECT_EQ(fs().SetXattr(ctx(), ino, "user.", "1", 0).error(), EINVAL);
  EXPECT_EQ(*fs().GetXattr(ino, "user.a"), "22");
  EXPECT_EQ(*fs().ListXattrs(ctx(), ino), std::string("user.a\0user.b\0", 14));
  EXPECT_EQ(fs().RemoveXattr(ctx(), ino, "user.b").error(), 0);
  EXPECT_EQ(fs().RemoveXattr(ctx(), ino, "user.b").error(), ENODATA);
  EXPECT_EQ(fs().GetXattr(ino, "user.b").error(), ENODATA);
}

// --- Directories of all sizes -----------------------------------------------------------

TEST_F(NamesTest, RandomNamesComeAndGo) {
  std::mt19937_64 random(2);
  const Ino dir = Make("dir", S_IFDIR);
  std::map<std::string, Ino> model;
  const uint64_t before = FreePages();
  for (int step = 0; step < 6000; ++step) {
    // Grows for a while, then shrinks to nothing.
    const bool add = model.empty() || (step < 4000 && random() % 3 != 0);
    if (add) {
      std::string name = std::to_string(random());
      name.resize(1 + random() % 255, static_cast<char>('a' + random() % 26));
      if (!model.contains(name)) model[name] = Make(name, S_IFREG, dir);
    } else {
      auto it = model.lower_bound(std::to_string(random()));
      if (it == model.end()) it = model.begin();
      ASSERT_EQ(Unlink(it->first, dir), 0);
      fs().Forget(it->second, 1);
      model.erase(it);
    }
    if (step % 1500 == 1499) {
      Remount();
      for (const auto& [name, ino] : model) ASSERT_EQ(Find(name, dir), ino);
    }
  }
  while (!model.empty()) {
    ASSERT_EQ(Unlink(model.begin()->first, dir), 0);
    model.erase(model.begin());
  }
  Remount();
  EXPECT_THAT(Names(dir), ElementsAre());
  // No pages and no links of it are left (except links of the inode table).
  EXPECT_LE(before - FreePages(), 10u);
}

TEST_F(NamesTest, CookiesStayTrueWhileNamesComeAndGo) {
  std::set<std::string> stay;
  for (int i = 0; i < 1000; ++i) {
    Make("stay" + std::to_string(i));
    stay.insert("stay" + std::to_string(i));
    Make("go" + std::to_string(i));
  }
  std::multiset<std::string> seen;
  uint64_t cookie = 0;
  for (int batch = 0;; ++batch) {
    int n = 0;
    ASSERT_TRUE(fs().ReadDirectory(kRootIno, cookie,
                                   [&](const DirEntry& e) {
                                     if (n == 7) return false;
                                     ++n;
                                     cookie = e.cookie;
                                     if (e.name.substr(0, 4) == "stay") seen.emplace(e.name);
                                     return true;
                                   })
                    .ok());
    if (n == 0) break;
    if (batch < 200) {
      EXPECT_EQ(Unlink("go" + std::to_string(batch * 5)), 0);
      Make("new" + std::to_string(batch) + std::string(100, 'n'));
    }
    if (batch == 50) Remount();
  }
  EXPECT_EQ(seen, std::multiset<std::string>(stay.begin(), stay.end()));
}

TEST_F(NamesTest, ListingBeginsWithDotAndDotDot) {
  const Ino dir = Make("dir", S_IFDIR);
  std::vector<std::pair<std::string, Ino>> entries;
  ASSERT_TRUE(fs().ReadDirectory(dir, 0,
                                 [&](const DirEntry& e) {
                                   entries.emplace_back(std::string(e.name), e.ino);
                                   return true;
                                 })
                  .ok());
  EXPECT_THAT(entries, ElementsAre(testing::Pair(".", dir), testing::Pair("..", kRootIno)));
}

class FewInodesTest : public NamesTest {
 protected:
  FewInodesTest() { max_inodes_ = 3; }
};

TEST_F(FewInodesTest, TheInodeLimitIsENOSPC) {
  Make("a");
  const Ino b = Make("b");
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, "c", S_IFREG).error(), ENOSPC);
  EXPECT_EQ(fs().StatFs().inodes, 3u);
  EXPECT_EQ(fs().StatFs().free_inodes, 0u);
  EXPECT_EQ(Unlink("b"), 0);
  fs().Forget(b, 1);
  Make("c");
  Remount();
  EXPECT_EQ(fs().MakeNode(ctx(), kRootIno, "d", S_IFREG).error(), ENOSPC);
}

}  // namespace
}  // namespace pkramfs
