#include "tests/crash/steps.h"

#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/layout.h"
#include "fs/tree_builder.h"
#include "pkram/lender.h"

namespace pkramfs {
namespace {

constexpr uint32_t kNoReplace = 1, kExchange = 2, kWhiteout = 4;
constexpr int kKeepSize = FALLOC_FL_KEEP_SIZE;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZero = FALLOC_FL_ZERO_RANGE;

// u::rw-,u:7:r--,g::r--,m::rw-,o::---
const std::string kAcl(
    "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\2\0\4\0\7\0\0\0\4\0\4\0\xff\xff\xff\xff"
    "\x10\0\6\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff",
    44);

// The flags that are set, as the name of a step has them.
std::string Flags(int flags, std::initializer_list<std::pair<int, const char*>> names) {
  std::string text;
  for (const auto& [flag, name] : names) {
    if ((flags & flag) != 0) text += std::string(" ") + name;
  }
  return text;
}

Image StartImage() {
  MemoryFile file;
  pkram::FormatRegion(&file, kStartPages);
  Mounted mounted(file);
  Filesystem& fs = *mounted.fs();
  const Context ctx{.uid = 0, .gid = 0, .now = {2000, 1}};
  const auto put = [&](const std::string& path, uint64_t offset, const std::string& bytes) {
    ASSERT_TRUE(fs.Write(ctx, Walk(fs, path), offset, BytesOf(bytes)).ok());
  };
  const auto make = [&](Ino parent, const std::string& name) {
    ASSERT_TRUE(fs.MakeNode(ctx, parent, name, S_IFREG | 0644).ok());
  };
  EXPECT_TRUE(fs.MakeDirectory(ctx, kRootIno, "d", 0755).ok());
  const Ino d = Walk(fs, "d");
  EXPECT_TRUE(fs.MakeDirectory(ctx, d, "sub", 0755).ok());
  EXPECT_TRUE(fs.MakeDirectory(ctx, kRootIno, "empty", 0755).ok());
  EXPECT_TRUE(fs.MakeDirectory(ctx, kRootIno, "hole", 0755).ok());
  for (const char* name : {"inline", "large", "other", "attr", "cap", "twin"}) make(kRootIno, name);
  for (const char* name : {"a", "b"}) make(d, name);
  put("inline", 0, "short contents");
  put("large", 0, std::string(10 * kPageSize + 100, 'L'));
  put("large", 530 * kPageSize, std::string(kPageSize, 'F'));
  put("other", 0, std::string(6000, 'O'));
  // Shares pages with another one, the one that it ends in included.
  EXPECT_TRUE(fs.CopyRange(ctx, Walk(fs, "large"), 0, Walk(fs, "twin"), 0, 531 * kPageSize).ok());
  EXPECT_TRUE(
      fs.SetAttr(ctx, Walk(fs, "twin"), {.what = AttrChange::kSetSize, .size = 9 * kPageSize + 100})
          .ok());
  put("cap", 0, std::string(6000, 'C'));
  EXPECT_TRUE(fs.Link(ctx, Walk(fs, "large"), d, "hard").ok());
  EXPECT_TRUE(fs.MakeSymlink(ctx, kRootIno, "sym", "inline").ok());
  EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "attr"), "user.x", std::string(5000, 'x'), 0).ok());
  EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "cap"), "security.capability", "c", 0).ok());
  // A directory whose inline slots are full, and one whose second block holds one name.
  EXPECT_TRUE(fs.MakeDirectory(ctx, kRootIno, "full", 0755).ok());
  EXPECT_TRUE(fs.MakeDirectory(ctx, kRootIno, "over", 0755).ok());
  for (uint64_t i = 0; i < kInlineSlots; ++i) make(Walk(fs, "full"), "n" + std::to_string(i));
  for (uint64_t i = 0; i <= kInlineSlots; ++i) make(Walk(fs, "over"), "n" + std::to_string(i));
  // Files with a user's ACLs, and files that inherit them.
  EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "empty"), kDefaultAcl, kAcl, 0).ok());
  EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "attr"), kAccessAcl, kAcl, 0).ok());
  // A free slot of the inode table that was used before.
  make(kRootIno, "gone");
  const Ino gone = Walk(fs, "gone");
  EXPECT_TRUE(fs.Unlink(ctx, kRootIno, "gone").ok());
  fs.Forget(gone, 1);
  mounted.Close();
  return file.Save();
}

}  // namespace

const Image& Start() {
  static const Image image = StartImage();
  return image;
}

Step Unlink(const std::string& parent, const std::string& name) {
  return {"Unlink " + parent + "/" + name,
          [=](Filesystem& fs, const Context& ctx) {
            const Ino dir = Walk(fs, parent);
            EXPECT_TRUE(fs.Unlink(ctx, dir, name).ok());
          },
          {}};
}

Step Rename(const std::string& from, const std::string& name, const std::string& to,
            const std::string& new_name, uint32_t flags) {
  return {"Rename " + from + "/" + name + " " + to + "/" + new_name +
              Flags(static_cast<int>(flags), {{kNoReplace, "RENAME_NOREPLACE"},
                                              {kExchange, "RENAME_EXCHANGE"},
                                              {kWhiteout, "RENAME_WHITEOUT"}}),
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_EQ(fs.Rename(ctx, Walk(fs, from), name, Walk(fs, to), new_name, flags).error(),
                      0);
          },
          {}};
}

Step Write(const std::string& path, uint64_t offset, size_t size) {
  return {"Write " + path + " at " + std::to_string(offset) + " " + std::to_string(size),
          [=](Filesystem& fs, const Context& ctx) {
            const std::string bytes(size, 'w');
            const auto written = fs.Write(ctx, Walk(fs, path), offset, BytesOf(bytes));
            EXPECT_TRUE(written.ok() && *written == size);
          },
          {"/" + path, offset, offset + size}};
}

Step Truncate(const std::string& path, uint64_t size) {
  return {"SetAttr kSetSize " + path + " to " + std::to_string(size),
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_TRUE(
                fs.SetAttr(ctx, Walk(fs, path), {.what = AttrChange::kSetSize, .size = size}).ok());
          },
          {}};
}

Step MakeFile(const std::string& parent, const std::string& name, uint32_t mode) {
  return {std::string(S_ISDIR(mode) ? "MakeDirectory " : "MakeNode ") + parent + "/" + name,
          [=](Filesystem& fs, const Context& ctx) {
            const Ino dir = Walk(fs, parent);
            const auto made = S_ISDIR(mode) ? fs.MakeDirectory(ctx, dir, name, mode)
                                            : fs.MakeNode(ctx, dir, name, mode, 7);
            ASSERT_TRUE(made.ok());
            EXPECT_EQ((*made).ino, Walk(fs, parent.empty() ? name : parent + "/" + name));
          },
          {}};
}

static Step Symlink(const std::string& name, size_t length) {
  return {"MakeSymlink " + name,
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_TRUE(fs.MakeSymlink(ctx, kRootIno, name, std::string(length, 't')).ok());
          },
          {}};
}

static Step Fallocate(const std::string& path, uint64_t offset, uint64_t length, int mode,
                      Mask mask = {}) {
  return {"Fallocate " + path + " at " + std::to_string(offset) + " " + std::to_string(length) +
              Flags(mode, {{FALLOC_FL_KEEP_SIZE, "FALLOC_FL_KEEP_SIZE"},
                           {FALLOC_FL_PUNCH_HOLE, "FALLOC_FL_PUNCH_HOLE"},
                           {FALLOC_FL_ZERO_RANGE, "FALLOC_FL_ZERO_RANGE"}}),
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_EQ(fs.Fallocate(ctx, Walk(fs, path), offset, length, mode).error(), 0);
          },
          mask};
}

Step CopyRange(const std::string& from, uint64_t from_offset, const std::string& to,
               uint64_t to_offset, size_t size, Mask mask) {
  return {"CopyRange " + from + " at " + std::to_string(from_offset) + " " + to + " at " +
              std::to_string(to_offset) + " " + std::to_string(size),
          [=](Filesystem& fs, const Context& ctx) {
            const auto copied =
                fs.CopyRange(ctx, Walk(fs, from), from_offset, Walk(fs, to), to_offset, size);
            EXPECT_TRUE(copied.ok() && *copied == size);
          },
          mask};
}

// A tree that another process has built.
Step AdoptTree(const std::string& parent, const std::string& name, Filesystem::Placing placing) {
  using Placing = Filesystem::Placing;
  return {
      "AdoptTree " + parent + " " + name +
          (placing == Placing::kReplace ? " in place of what is there"
           : placing == Placing::kMerge ? " merged into what is there"
                                        : ""),
      [=](Filesystem& fs, const Context& ctx) {
        pkram::OwnLender lender(&fs.region().space());
        const auto region = pkram::Region::OpenToBuild(
                                pkram::OpenFdBacking(fs.region().backing().fd()).value(), &lender)
                                .value();
        TreeBuilder builder(region.get());
        const std::string text(3 * kPageSize, 'T');
        const TreeBuilder::Extent all{0, text.size()};
        const TreeBuilder::Reader reader = {nullptr, [&](uint64_t, uint64_t size, uint64_t at) {
                                              const iovec iov{const_cast<char*>(text.data()), size};
                                              return region->Fill(at, {&iov, 1});
                                            }};
        TreeBuilder::Attributes file, directory;
        file.mode = S_IFREG | 0644;
        directory.mode = S_IFDIR | 0755;
        const Ino top = builder.Reserve(), sub = builder.Reserve(), leaf = builder.Reserve();
        EXPECT_TRUE(builder.MakeFile(leaf, file, text.size(), {&all, 1}, reader).ok());
        const TreeBuilder::Name in_sub{"leaf", leaf, file.mode};
        EXPECT_TRUE(builder.MakeDirectory(sub, top, directory, {&in_sub, 1}).ok());
        std::vector<TreeBuilder::Name> in_top = {{"sub", sub, directory.mode}};
        if (placing == Placing::kMerge) {
          // One that takes a file's place, and a new one.
          for (const char* const other : {"a", "one more"}) {
            in_top.push_back({other, builder.Reserve(), file.mode});
            EXPECT_TRUE(
                builder.MakeFile(in_top.back().ino, file, text.size(), {&all, 1}, reader).ok());
          }
        }
        EXPECT_TRUE(builder.MakeDirectory(top, TreeBuilder::root(), directory, in_top).ok());
        const absl::Status adopted = fs.AdoptTree(ctx, builder.Finish(top, directory.mode).value(),
                                                  Walk(fs, parent), name, placing);
        EXPECT_TRUE(adopted.ok()) << adopted;
      },
      {},
      true,
      false};
}

Step SetXattr(const std::string& path, const std::string& name, size_t size) {
  return {"SetXattr " + path + " " + name,
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, path), name, std::string(size, 'y'), 0).ok());
          },
          {}};
}

std::vector<Step> AllSteps() {
  std::vector<Step> steps = {
      MakeFile("", "new"),
      MakeFile("d", std::string(255, 'n')),
      MakeFile("full", "one more"),
      MakeFile("", "fifo", S_IFIFO | 0600),
      MakeFile("", "null", S_IFCHR | 0666),
      MakeFile("d", "newdir", S_IFDIR | 0755),
      Symlink("short", 10),
      Symlink("long", 4000),
      Unlink("", "inline"),
      Unlink("", "large"),
      Unlink("d", "hard"),
      Unlink("", "other"),
      Unlink("over", "n61"),
      Rename("", "inline", "", "renamed"),
      Rename("d", "a", "", std::string(200, 'r')),
      Rename("d", "a", "d", "b"),
      Rename("", "other", "d", "hard"),
      Rename("d", "sub", "", "moved"),
      Rename("d", "sub", "", "empty"),
      Rename("d", "a", "", "empty", kExchange),
      Rename("", "inline", "", "other", kExchange),
      Rename("d", "a", "d", "white", kWhiteout),
      Rename("", "inline", "d", "b", kWhiteout),
      Rename("over", "n61", "full", "into the page"),
      Rename("d", "sub", "empty", "sub", kNoReplace),
      Rename("", "empty", "d", "sub"),
      Rename("", "attr", "", "sym"),
      Write("inline", 5, 4),
      Write("inline", 14, 10),
      Write("inline", 200, 10),
      Write("inline", 14, 5000),
      Write("inline", 3 * kPageSize, 10),
      Write("d/a", 0, 3 * kPageSize),
      Write("large", 100, 2 * kPageSize),
      Write("large", 10 * kPageSize + 50, 3 * kPageSize),
      Write("large", 20 * kPageSize + 7, 100),
      Write("large", 531 * kPageSize, 100),
      Write("large", 1100 * kPageSize, 5),
      Write("cap", 10, 10),
      Truncate("inline", 3),
      Truncate("inline", 3000),
      Truncate("inline", 100000),
      Truncate("large", 531 * kPageSize - 1),
      Truncate("large", 3 * kPageSize + 1),
      Truncate("large", 0),
      Truncate("large", 10000 * kPageSize),
      Truncate("other", 6001),
      Fallocate("inline", 0, 100, 0),
      Fallocate("inline", 2, 600 * kPageSize, 0),
      Fallocate("large", 5 * kPageSize, 2 * kPageSize, kKeepSize),
      Fallocate("large", 9 * kPageSize, 20 * kPageSize, 0),
      Fallocate("large", 100 * kPageSize + 1, 1200 * kPageSize, 0),
      Fallocate("large", 2000 * kPageSize, 10, kKeepSize),
      Fallocate("large", 2 * kPageSize, 3 * kPageSize, kPunch),
      Fallocate("large", 5 * kPageSize, 526 * kPageSize, kPunch),
      Fallocate("large", 0, 2000 * kPageSize, kPunch),
      Fallocate("large", 10, 3 * kPageSize, kPunch, {"/large", 10, 10 + 3 * kPageSize}),
      Fallocate("inline", 3, 5, kPunch, {"/inline", 3, 8}),
      Fallocate("inline", 0, kPageSize, kPunch, {"/inline", 0, kPageSize}),
      Fallocate("large", 10, 30 * kPageSize, kZero, {"/large", 10, 10 + 30 * kPageSize}),
      AdoptTree("", "tree", Filesystem::Placing::kNew),
      AdoptTree("d", "tree", Filesystem::Placing::kReplace),
      AdoptTree("", "d", Filesystem::Placing::kReplace),
      AdoptTree("d", "a", Filesystem::Placing::kReplace),
      CopyRange("large", 50, "other", 5000, 9 * kPageSize, {"/other", 5000, 5000 + 9 * kPageSize}),
      CopyRange("large", 0, "d/a", 0, 531 * kPageSize),
      CopyRange("large", 0, "inline", 3 * kPageSize, 3 * kPageSize),
      CopyRange("large", 5 * kPageSize, "other", 0, 526 * kPageSize),
      CopyRange("large", 0, "large", 508 * kPageSize, 11 * kPageSize),
      CopyRange("other", 0, "twin", 9 * kPageSize, 6000),
      CopyRange("twin", 0, "cap", 0, 9 * kPageSize + 100),
      Write("twin", 100, 2 * kPageSize),
      Write("twin", 9 * kPageSize + 100, 10),
      Write("twin", 9 * kPageSize + 200, 10),
      Write("twin", 8 * kPageSize, 5 * kPageSize),
      Truncate("twin", 3 * kPageSize + 1),
      Truncate("twin", 9 * kPageSize + 101),
      Fallocate("twin", 10, 3 * kPageSize, kPunch, {"/twin", 10, 10 + 3 * kPageSize}),
      Fallocate("twin", 9 * kPageSize, 20 * kPageSize, 0),
      Fallocate("twin", 10, 30 * kPageSize, kZero, {"/twin", 10, 10 + 30 * kPageSize}),
      Unlink("", "twin"),
      {"SetXattr of an ACL",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "inline"), kAccessAcl, kAcl, 0).ok());
       },
       {}},
      {"SetAttr kSetMode of a file with an ACL",
       [](Filesystem& fs, const Context& ctx) {
         AttrChange change{.what = AttrChange::kSetMode, .mode = 0751};
         EXPECT_TRUE(fs.SetAttr(ctx, Walk(fs, "attr"), change).ok());
       },
       {}},
      MakeFile("empty", "with an inherited ACL"),
      MakeFile("empty", "a directory with two", S_IFDIR | 0777),
      {"MakeTemporary, then Link",
       [](Filesystem& fs, const Context& ctx) {
         const auto made = fs.MakeTemporary(ctx, kRootIno, 0600);
         ASSERT_TRUE(made.ok());
         EXPECT_TRUE(fs.Link(ctx, (*made).ino, kRootIno, "linked").ok());
       },
       {},
       true,
       false},
      {"MakeTemporary",
       [](Filesystem& fs, const Context& ctx) {
         const auto made = fs.MakeTemporary(ctx, kRootIno, 0600);
         ASSERT_TRUE(made.ok());
         EXPECT_EQ((*fs.GetAttr((*made).ino)).nlink, 0u);
       },
       {},
       false},
      {"MakeTemporary, then Forget",
       [](Filesystem& fs, const Context& ctx) {
         const auto made = fs.MakeTemporary(ctx, kRootIno, 0600);
         ASSERT_TRUE(made.ok());
         ASSERT_TRUE(fs.Write(ctx, (*made).ino, 0, BytesOf(std::string(9000, 't'))).ok());
         fs.Forget((*made).ino, 1);
       },
       {},
       false,
       false},
      {"Write of what the kernel had cached",
       [](Filesystem& fs, const Context& ctx) {
         const std::string bytes(3 * kPageSize, 'w');
         Context context = ctx;
         for (const bool sets_times : {true, false}) {
           context.sets_times = sets_times;
           EXPECT_TRUE(fs.Write(context, Walk(fs, "cap"), 4 * kPageSize, BytesOf(bytes),
                                Filesystem::Sent::kLater)
                           .ok());
         }
       },
       {"/cap", 4 * kPageSize, 7 * kPageSize},
       true,
       false},
      Fallocate("large", 0, 700 * kPageSize, kZero | kKeepSize, {"/large", 0, 700 * kPageSize}),
      {"SetXattr of a default ACL XATTR_CREATE",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "d"), kDefaultAcl, kAcl, XATTR_CREATE).ok());
       },
       {}},
      {"SetXattr XATTR_REPLACE",
       [](Filesystem& fs, const Context& ctx) {
         const std::string value(100, 'z');
         EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "attr"), "user.x", value, XATTR_REPLACE).ok());
       },
       {}},
      {"RemoveXattr of an ACL",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.RemoveXattr(ctx, Walk(fs, "attr"), kAccessAcl).ok());
       },
       {}},
      SetXattr("inline", "user.new", 100),
      SetXattr("attr", "user.x", 9000),
      SetXattr("attr", "user.y", 10),
      {"RemoveDirectory",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.RemoveDirectory(ctx, kRootIno, "empty").ok());
       },
       {}},
      {"Link",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.Link(ctx, Walk(fs, "inline"), Walk(fs, "d"), "hard2").ok());
       },
       {}},
      {"RemoveXattr",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.RemoveXattr(ctx, Walk(fs, "attr"), "user.x").ok());
       },
       {}},
      {"SetAttr kSetMode kSetUid kSetGid kSetAtime kSetMtime kSetCtime",
       [](Filesystem& fs, const Context& ctx) {
         AttrChange change{.what = AttrChange::kSetMode | AttrChange::kSetUid |
                                   AttrChange::kSetGid | AttrChange::kSetAtime |
                                   AttrChange::kSetMtime | AttrChange::kSetCtime};
         change.mode = 0700;
         change.uid = change.gid = 9;
         change.atime = change.mtime = {1, 2};
         change.ctime = {8000, 3};
         EXPECT_TRUE(fs.SetAttr(ctx, Walk(fs, "other"), change).ok());
       },
       {}},
      {"Unlink, then Forget",
       [](Filesystem& fs, const Context& ctx) {
         const Ino ino = (*fs.Lookup(kRootIno, "other")).ino;
         EXPECT_TRUE(fs.Unlink(ctx, kRootIno, "other").ok());
         fs.Forget(ino, 1);
       },
       {},
       true,
       false},
      {"Thaw, of what was forgotten meanwhile",
       [](Filesystem& fs, const Context& ctx) {
         const Ino ino = (*fs.Lookup(kRootIno, "other")).ino;
         EXPECT_TRUE(fs.Unlink(ctx, kRootIno, "other").ok());
         EXPECT_TRUE(fs.Freeze());
         fs.Forget(ino, 1);
         EXPECT_TRUE(fs.Thaw());
       },
       {},
       true,
       false},
  };
  return steps;
}

}  // namespace pkramfs
