// The crash enumerator.  Each operation runs with a hook before and after every store
// that Publish and Transaction make; a copy of the region as it is then is what a
// successor would find after a kill at that store.  Each copy is opened and must
// show the state before the operation or the one after it, soundly.
//
// Bytes that a write in flight touches may be torn, so they are masked; st_blocks
// of that file follows them.
#include <fcntl.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "fs/acl.h"
#include "fs/layout.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::MemoryFile;
using Image = MemoryFile::Image;

constexpr uint64_t kPages = 4096;
constexpr uint32_t kExchange = 2, kWhiteout = 4;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

// u::rw-,u:7:r--,g::r--,m::rw-,o::---
const std::string kAcl(
    "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\2\0\4\0\7\0\0\0\4\0\4\0\xff\xff\xff\xff"
    "\x10\0\6\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff",
    44);

struct Mask {
  std::string path;
  size_t from = 0;
  size_t to = 0;
};

struct Step {
  std::string name;
  // Both run with lookups counted as the kernel's would be.
  std::function<void(Filesystem&, const Context&)> run;
  Mask mask;
};

Ino Walk(Filesystem& fs, const std::string& path) {
  Ino ino = kRootIno;
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const auto found = fs.Lookup(ino, path.substr(at, slash - at));
    if (!found.ok()) return 0;
    ino = (*found).ino;
    fs.Forget(ino, 1);
    at = slash + 1;
  }
  return ino;
}

// The picture of a region image, as a new mount shows it.  Numbers of inodes are
// left out when two operations race for them.
Picture PictureOfImage(const Image& image, const Mask& mask, bool numbers, int64_t* used) {
  MemoryFile file;
  file.Restore(image);
  Picture picture;
  {
    const Mounted mounted(file);
    if (mounted.fs() == nullptr) return picture;
    picture = PictureOf(mounted.fs());
  }
  // The mask is of the file, whatever name it is seen by.
  const auto masked = picture.find(mask.path);
  const auto number = [](const std::string& text) { return text.substr(0, text.find(" mode=")); };
  const std::string masked_ino = masked == picture.end() ? "" : number(masked->second);
  for (auto& [path, text] : picture) {
    const bool mask_this = number(text) == masked_ino;
    if (!numbers) text.erase(0, text.find(" mode="));
    if (!mask_this) continue;
    const size_t blocks = text.find(" blocks=");
    text.erase(blocks, text.find(' ', blocks + 1) - blocks);
    const size_t data = text.find(" data=") + 6;
    for (size_t i = data + mask.from; i < data + mask.to && i < text.size(); ++i) text[i] = '*';
  }
  FsCheck check;
  const int64_t pages = pkram::UsedPages(file, &check);
  if (used != nullptr) *used = pages;
  return picture;
}

std::string Difference(const Picture& a, const Picture& b) {
  std::string out;
  const auto brief = [](const std::string& s) { return s.substr(0, 300); };
  for (const auto& [path, text] : a) {
    const auto it = b.find(path);
    if (it == b.end())
      out += "only here: " + path + "\n";
    else if (it->second != text)
      out += path + "\n  " + brief(text) + "\n  " + brief(it->second) + "\n";
  }
  for (const auto& [path, text] : b) {
    if (!a.contains(path)) out += "only there: " + path + "\n";
  }
  return out;
}

const Context kNow{.uid = 0, .gid = 0, .now = {5000, 1}};
const Context kOtherNow{.uid = 0, .gid = 0, .now = {6000, 1}};

// The state that every operation starts from: of everything something.
Image StartImage() {
  MemoryFile file;
  pkram::FormatRegion(&file, kPages);
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
  // What a user's ACLs are on, and what is handed down.
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

const Image& Start() {
  static const Image image = StartImage();
  return image;
}

Step Unlink(const std::string& parent, const std::string& name) {
  return {"unlink " + parent + "/" + name,
          [=](Filesystem& fs, const Context& ctx) {
            const Ino dir = Walk(fs, parent);
            EXPECT_TRUE(fs.Unlink(ctx, dir, name).ok());
          },
          {}};
}

Step Rename(const std::string& from, const std::string& name, const std::string& to,
            const std::string& new_name, uint32_t flags = 0) {
  return {"rename " + from + "/" + name + " " + to + "/" + new_name + " " + std::to_string(flags),
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_EQ(fs.Rename(ctx, Walk(fs, from), name, Walk(fs, to), new_name, flags).error(),
                      0);
          },
          {}};
}

Step Write(const std::string& path, uint64_t offset, size_t size) {
  return {"write " + path + " at " + std::to_string(offset) + " " + std::to_string(size),
          [=](Filesystem& fs, const Context& ctx) {
            const std::string bytes(size, 'w');
            const auto written = fs.Write(ctx, Walk(fs, path), offset, BytesOf(bytes));
            EXPECT_TRUE(written.ok() && *written == size);
          },
          {"/" + path, offset, offset + size}};
}

Step Truncate(const std::string& path, uint64_t size) {
  return {"truncate " + path + " to " + std::to_string(size),
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_TRUE(
                fs.SetAttr(ctx, Walk(fs, path), {.what = AttrChange::kSetSize, .size = size}).ok());
          },
          {}};
}

Step MakeFile(const std::string& parent, const std::string& name, uint32_t mode = S_IFREG | 0644) {
  return {"make " + parent + "/" + name,
          [=](Filesystem& fs, const Context& ctx) {
            const Ino dir = Walk(fs, parent);
            const auto made = S_ISDIR(mode) ? fs.MakeDirectory(ctx, dir, name, mode)
                                            : fs.MakeNode(ctx, dir, name, mode, 7);
            EXPECT_TRUE(made.ok());
          },
          {}};
}

Step Symlink(const std::string& name, size_t length) {
  return {"symlink " + name,
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_TRUE(fs.MakeSymlink(ctx, kRootIno, name, std::string(length, 't')).ok());
          },
          {}};
}

Step Fallocate(const std::string& path, uint64_t offset, uint64_t length, int mode,
               Mask mask = {}) {
  return {"fallocate " + path + " at " + std::to_string(offset) + " " + std::to_string(length) +
              " mode " + std::to_string(mode),
          [=](Filesystem& fs, const Context& ctx) {
            EXPECT_EQ(fs.Fallocate(ctx, Walk(fs, path), offset, length, mode).error(), 0);
          },
          mask};
}

Step CopyRange(const std::string& from, uint64_t from_offset, const std::string& to,
               uint64_t to_offset, size_t size, Mask mask = {}) {
  return {"copy_file_range " + from + " at " + std::to_string(from_offset) + " " + to + " at " +
              std::to_string(to_offset) + " " + std::to_string(size),
          [=](Filesystem& fs, const Context& ctx) {
            const auto copied =
                fs.CopyRange(ctx, Walk(fs, from), from_offset, Walk(fs, to), to_offset, size);
            EXPECT_TRUE(copied.ok() && *copied == size);
          },
          mask};
}

Step SetXattr(const std::string& path, const std::string& name, size_t size) {
  return {"setxattr " + path + " " + name,
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
      Fallocate("large", 5 * kPageSize, 2 * kPageSize, FALLOC_FL_KEEP_SIZE),
      Fallocate("large", 9 * kPageSize, 20 * kPageSize, 0),
      Fallocate("large", 100 * kPageSize + 1, 1200 * kPageSize, 0),
      Fallocate("large", 2000 * kPageSize, 10, FALLOC_FL_KEEP_SIZE),
      Fallocate("large", 2 * kPageSize, 3 * kPageSize, kPunch),
      Fallocate("large", 5 * kPageSize, 526 * kPageSize, kPunch),
      Fallocate("large", 0, 2000 * kPageSize, kPunch),
      Fallocate("large", 10, 3 * kPageSize, kPunch, {"/large", 10, 10 + 3 * kPageSize}),
      Fallocate("inline", 3, 5, kPunch, {"/inline", 3, 8}),
      Fallocate("inline", 0, kPageSize, kPunch, {"/inline", 0, kPageSize}),
      Fallocate("large", 10, 30 * kPageSize, FALLOC_FL_ZERO_RANGE,
                {"/large", 10, 10 + 30 * kPageSize}),
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
      Fallocate("twin", 10, 30 * kPageSize, FALLOC_FL_ZERO_RANGE,
                {"/twin", 10, 10 + 30 * kPageSize}),
      Unlink("", "twin"),
      {"setfacl",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.SetXattr(ctx, Walk(fs, "inline"), kAccessAcl, kAcl, 0).ok());
       },
       {}},
      {"chmod of a file with an ACL",
       [](Filesystem& fs, const Context& ctx) {
         AttrChange change{.what = AttrChange::kSetMode, .mode = 0751};
         EXPECT_TRUE(fs.SetAttr(ctx, Walk(fs, "attr"), change).ok());
       },
       {}},
      MakeFile("empty", "with an inherited ACL"),
      MakeFile("empty", "a directory with two", S_IFDIR | 0777),
      {"O_TMPFILE and linkat",
       [](Filesystem& fs, const Context& ctx) {
         const auto made = fs.MakeTemporary(ctx, kRootIno, 0600);
         ASSERT_TRUE(made.ok());
         EXPECT_TRUE(fs.Link(ctx, (*made).ino, kRootIno, "linked").ok());
       },
       {}},
      SetXattr("inline", "user.new", 100),
      SetXattr("attr", "user.x", 9000),
      SetXattr("attr", "user.y", 10),
      {"rmdir",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.RemoveDirectory(ctx, kRootIno, "empty").ok());
       },
       {}},
      {"link",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.Link(ctx, Walk(fs, "inline"), Walk(fs, "d"), "hard2").ok());
       },
       {}},
      {"removexattr",
       [](Filesystem& fs, const Context& ctx) {
         EXPECT_TRUE(fs.RemoveXattr(ctx, Walk(fs, "attr"), "user.x").ok());
       },
       {}},
      {"setattr",
       [](Filesystem& fs, const Context& ctx) {
         AttrChange change{.what = AttrChange::kSetMode | AttrChange::kSetUid |
                                   AttrChange::kSetGid | AttrChange::kSetAtime |
                                   AttrChange::kSetMtime};
         change.mode = 0700;
         change.uid = change.gid = 9;
         change.atime = change.mtime = {1, 2};
         EXPECT_TRUE(fs.SetAttr(ctx, Walk(fs, "other"), change).ok());
       },
       {}},
      {"unlink and forget",
       [](Filesystem& fs, const Context& ctx) {
         const Ino ino = (*fs.Lookup(kRootIno, "other")).ino;
         EXPECT_TRUE(fs.Unlink(ctx, kRootIno, "other").ok());
         fs.Forget(ino, 1);
       },
       {}},
  };
  return steps;
}

// Nothing but bytes that no one reaches may have changed between two stores, and often
// nothing has.
void Add(Image image, std::vector<Image>* images) {
  if (images->empty() || images->back() != image) images->push_back(std::move(image));
}

class CrashTest : public testing::TestWithParam<size_t> {};

TEST_P(CrashTest, EveryStoreLeavesTheStateBeforeOrAfter) {
  const Step step = AllSteps()[GetParam()];
  SCOPED_TRACE(step.name);
  std::vector<Image> images = {Start()};
  Image after_image;
  {
    MemoryFile file;
    file.Restore(Start());
    std::atomic<bool> recording = false;
    Mounted mounted(file, 0, [&] {
      if (recording) Add(file.Save(), &images);
    });
    recording = true;
    step.run(*mounted.fs(), kNow);
    recording = false;
    after_image = file.Save();
  }
  images.push_back(after_image);
  int64_t used_before, used_after;
  const Picture before = PictureOfImage(Start(), step.mask, true, &used_before);
  const Picture after = PictureOfImage(after_image, step.mask, true, &used_after);
  EXPECT_NE(before, after);
  EXPECT_GE(images.size(), 4u);
  bool seen_after = false;
  for (size_t i = 0; i < images.size(); ++i) {
    SCOPED_TRACE("store " + std::to_string(i) + " of " + std::to_string(images.size() - 2));
    int64_t used;
    const Picture picture = PictureOfImage(images[i], step.mask, true, &used);
    if (picture == after) seen_after = true;
    ASSERT_TRUE(picture == before || picture == after)
        << "from before:\n"
        << Difference(before, picture) << "from after:\n"
        << Difference(after, picture);
    // It never goes back.
    ASSERT_FALSE(seen_after && picture == before);
    // Beside what the state needs, at most a link and a page stay reachable.
    ASSERT_GE(used, std::min(used_before, used_after));
    ASSERT_LE(used, std::max(used_before, used_after) + 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, CrashTest, testing::Range(size_t{0}, AllSteps().size()));

// What a write has left where the file has pages but no size yet is never seen.
TEST(CrashInAWriteBehindTheEnd, WhatWasNotAcknowledgedReadsAsZeros) {
  constexpr size_t kSize = 8 * kPageSize;
  const std::string written(100, 'S');
  std::vector<Image> images;
  MemoryFile file;
  file.Restore(Start());
  bool recording = false;
  Mounted mounted(file, 0, [&] {
    if (recording) Add(file.Save(), &images);
  });
  Filesystem& fs = *mounted.fs();
  const Ino ino = Walk(fs, "d/a");
  ASSERT_EQ(fs.Fallocate(kNow, ino, 0, kSize, FALLOC_FL_KEEP_SIZE).error(), 0);
  recording = true;
  ASSERT_TRUE(fs.Write(kNow, ino, 2 * kPageSize, BytesOf(written)).ok());
  recording = false;
  for (const Image& image : images) {
    MemoryFile copy;
    copy.Restore(image);
    const Mounted reopened(copy);
    const Ino again = Walk(*reopened.fs(), "d/a");
    const uint64_t size = (*reopened.fs()->GetAttr(again)).size;
    ASSERT_TRUE(
        reopened.fs()->SetAttr(kNow, again, {.what = AttrChange::kSetSize, .size = kSize}).ok());
    std::string expected(kSize, 0);
    if (size > 0) expected.replace(2 * kPageSize, written.size(), written);
    EXPECT_TRUE(TextOf(*reopened.fs()->Read(again, 0, kSize)) == expected) << size;
  }
}

// A region of another size, at each store, is one of the old or of the new.
TEST(CrashInResizeTest, EveryStoreLeavesOneSizeOrTheOther) {
  for (const uint64_t pages : {2000, 200}) {  // behind the last page in use, and before it
    std::vector<Image> images;
    MemoryFile file;
    file.Restore(Start());
    bool recording = false;
    Mounted mounted(file, 0, [&] {
      if (recording) Add(file.Save(), &images);
    });
    recording = true;
    ASSERT_EQ(mounted.fs()->Resize(pages, std::nullopt), absl::OkStatus());
    recording = false;
    EXPECT_EQ(mounted.region()->space().counts().total, pages);
    EXPECT_GE(images.size(), 3u);
    images.push_back(file.Save());
    const Picture expected = PictureOfImage(Start(), {}, true, nullptr);
    bool seen_new = false;
    for (const Image& image : images) {
      EXPECT_EQ(PictureOfImage(image, {}, true, nullptr), expected);
      MemoryFile copy;
      copy.Restore(image);
      const Mounted reopened(copy);
      const uint64_t total = reopened.region()->space().counts().total;
      EXPECT_TRUE(total == pages || (total == kPages && !seen_new)) << total;
      seen_new |= total == pages;
    }
    EXPECT_TRUE(seen_new);
  }
}

// Recovery is an operation too: each of its stores is a place to die, and what the
// next mount shows is the same.
TEST(CrashInRecoveryTest, EveryStoreOfARecoveryLeavesTheSameState) {
  for (const Step& step : {Unlink("", "other"), Truncate("large", 3), Rename("d", "a", "d", "b"),
                           Write("inline", 14, 5000), Write("twin", 100, 2 * kPageSize),
                           CopyRange("large", 0, "d/a", 0, 531 * kPageSize)}) {
    SCOPED_TRACE(step.name);
    std::vector<Image> images;
    {
      MemoryFile file;
      file.Restore(Start());
      bool recording = false;
      Mounted mounted(file, 0, [&] {
        if (recording) Add(file.Save(), &images);
      });
      recording = true;
      step.run(*mounted.fs(), kNow);
      recording = false;
    }
    for (const Image& image : images) {
      const Picture expected = PictureOfImage(image, step.mask, true, nullptr);
      std::vector<Image> deaths;
      {
        MemoryFile file;
        file.Restore(image);
        const Mounted recovered(file, 0, [&] { Add(file.Save(), &deaths); });
      }
      EXPECT_GE(deaths.size(), 1u);
      for (const Image& death : deaths) {
        const Picture picture = PictureOfImage(death, step.mask, true, nullptr);
        ASSERT_TRUE(picture == expected) << Difference(expected, picture);
      }
    }
  }
}

// --- Pairs ------------------------------------------------------------------------------

// Runs `first` up to its store number `pause`, then `second` as far as the locks let
// it, taking an image at each store of either; then lets both finish.
class Pair {
 public:
  Pair(const Step& first, const Step& second, size_t pause) : pause_(pause) {
    file_.Restore(Start());
    Mounted mounted(file_, 0, [this] { OnStore(); });
    recording_ = true;
    std::thread a([&] {
      first_ = true;
      first.run(*mounted.fs(), kNow);
      std::lock_guard lock(mu_);
      paused_ = true;  // it is past the place to pause, or never came to it
      first_done_ = true;
      changed_.notify_all();
    });
    {
      std::unique_lock lock(mu_);
      changed_.wait(lock, [this] { return paused_; });
      reached_ = !first_done_;
    }
    if (reached_) {
      std::thread b([&] {
        second.run(*mounted.fs(), kOtherNow);
        std::lock_guard lock(mu_);
        second_done_ = true;
        changed_.notify_all();
      });
      {
        // A second that waits for a lock of the first makes no more stores; how long
        // we wait for it decides only how much is seen, never the verdict.
        std::unique_lock lock(mu_);
        changed_.wait_for(lock, std::chrono::milliseconds(20), [this] { return second_done_; });
        overlapped_ = second_done_;
        go_ = true;
        changed_.notify_all();
      }
      b.join();
    }
    {
      std::lock_guard lock(mu_);
      go_ = true;
      changed_.notify_all();
    }
    a.join();
    recording_ = false;
    images_.push_back(file_.Save());
  }

  bool reached() const { return reached_; }
  bool overlapped() const { return overlapped_; }
  const std::vector<Image>& images() const { return images_; }

 private:
  void OnStore() {
    if (!recording_) return;
    std::unique_lock lock(mu_);
    Add(file_.Save(), &images_);
    if (!first_) return;
    if (stores_++ != pause_) return;
    paused_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return go_; });
  }

  static thread_local bool first_;
  const size_t pause_;
  MemoryFile file_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::atomic<bool> recording_ = false;
  bool paused_ = false, go_ = false, first_done_ = false, second_done_ = false;
  bool reached_ = false, overlapped_ = false;
  size_t stores_ = 0;
  std::vector<Image> images_;
};
thread_local bool Pair::first_ = false;

Image ImageAfter(const std::vector<std::pair<Step, Context>>& steps) {
  MemoryFile file;
  file.Restore(Start());
  const Mounted mounted(file);
  for (const auto& [step, context] : steps) step.run(*mounted.fs(), context);
  return file.Save();
}

class CrashPairTest : public testing::TestWithParam<size_t> {};

std::vector<std::pair<Step, Step>> AllPairs() {
  return {
      // The same directory.
      {MakeFile("", "x"), MakeFile("", "y")},
      {MakeFile("d", "x"), Unlink("d", "hard")},
      {Rename("d", "a", "", "ra"), Rename("d", "b", "", "rb")},
      {MakeFile("full", "x"), Rename("full", "n3", "d", "n3")},
      {Unlink("over", "n61"), MakeFile("over", "x")},
      // The same inode.
      {Unlink("", "large"), Unlink("d", "hard")},
      {Rename("", "inline", "", "moved"),
       {"link",
        [](Filesystem& fs, const Context& ctx) {
          const auto found = fs.Lookup(Walk(fs, "d"), "hard");
          EXPECT_TRUE(fs.Link(ctx, (*found).ino, kRootIno, "linked").ok());
        },
        {}}},
      {SetXattr("attr", "user.x", 9000), SetXattr("attr", "user.z", 50)},
      // Pages that the first one frees are what the second one takes.
      {Truncate("large", 0), Write("d/a", 0, 12 * kPageSize)},
      {Unlink("", "other"), Write("d/a", 0, 4 * kPageSize)},
      {Rename("", "other", "", "inline"), Write("d/b", 0, 5000)},
      // The same pages, in several files.
      {Unlink("", "twin"), CopyRange("large", 0, "d/a", 0, 531 * kPageSize)},
      {CopyRange("large", 0, "d/a", 0, 531 * kPageSize), Unlink("", "twin")},
      {Truncate("twin", 0), Write("large", 100, 2 * kPageSize)},
      {Write("twin", 100, 2 * kPageSize), Truncate("large", kPageSize)},
      {Write("twin", 100, 2 * kPageSize), CopyRange("large", 0, "d/a", 0, 5 * kPageSize)},
      // Nothing in common but the region.
      {Write("inline", 0, 5000), MakeFile("d", "sub2", S_IFDIR | 0755)},
      {Rename("d", "sub", "", "empty"), Truncate("other", 10)},
  };
}

TEST_P(CrashPairTest, EveryMomentOfTwoOperationsIsAStateBetweenThem) {
  const auto [first, second] = AllPairs()[GetParam()];
  SCOPED_TRACE(first.name + " while " + second.name);
  const Mask mask = second.mask.path.empty() ? first.mask : second.mask;
  const auto picture_after = [&](const std::vector<std::pair<Step, Context>>& steps) {
    return PictureOfImage(ImageAfter(steps), mask, false, nullptr);
  };
  const std::vector<Picture> states = {picture_after({}), picture_after({{first, kNow}}),
                                       picture_after({{second, kOtherNow}}),
                                       picture_after({{first, kNow}, {second, kOtherNow}}),
                                       picture_after({{second, kOtherNow}, {first, kNow}})};
  std::set<Image> seen;
  size_t pause = 0;
  for (;; ++pause) {
    SCOPED_TRACE("paused at store " + std::to_string(pause));
    const Pair pair(first, second, pause);
    for (size_t i = 0; i < pair.images().size(); ++i) {
      const bool last = i + 1 == pair.images().size();
      if (!last && !seen.insert(pair.images()[i]).second) continue;
      SCOPED_TRACE("image " + std::to_string(i));
      const Picture picture = PictureOfImage(pair.images()[i], mask, false, nullptr);
      bool known = false;
      const size_t from = last && pair.reached() ? 3 : 0;
      for (size_t s = from; s < states.size(); ++s) known = known || picture == states[s];
      ASSERT_TRUE(known) << "from both:\n" << Difference(states[3], picture);
    }
    if (!pair.reached()) break;
  }
  EXPECT_GE(pause, 4u);
}

INSTANTIATE_TEST_SUITE_P(Pairs, CrashPairTest, testing::Range(size_t{0}, AllPairs().size()));

}  // namespace
}  // namespace pkramfs
