// A region of each released format is kept, and every later program opens it and sees in it what
// was put there.  docs/format.md explains the bytes of the first one.
//
//   v1            version 1
//   short_lists   with short lists
//
//   PKRAMFS_WRITE_GOLDEN=1 tests/core_tests --gtest_filter=*Golden*    makes short_lists.* anew;
//   never once it is released.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>

#include "pkram/stream.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

const std::string kDir = std::string(SOURCE_DIR) + "/tests/golden/";

std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string Gunzip(const std::string& path) {
  std::string bytes;
  FILE* const pipe = popen(("gzip -dc " + path).c_str(), "r");
  char buffer[4096];
  while (const size_t n = fread(buffer, 1, sizeof(buffer), pipe)) bytes.append(buffer, n);
  EXPECT_EQ(pclose(pipe), 0);
  return bytes;
}

std::string TextOfPicture(const Picture& picture) {
  std::string text;
  for (const auto& [path, line] : picture) {
    text += path + " ";
    for (size_t i = 0; i < line.size();) {
      const size_t end = std::min(line.find_first_not_of(line[i], i), line.size());
      char hex[8];
      std::snprintf(hex, sizeof(hex), "\\x%02x", static_cast<unsigned char>(line[i]));
      const bool plain = line[i] >= ' ' && line[i] <= '~';
      text += plain ? std::string(1, line[i]) : hex;
      // Runs of one byte are written once, with their length.
      if (end - i > 8) text += "{" + std::to_string(end - i) + "}";
      i = end - i > 8 ? end : i + 1;
    }
    text += "\n";
  }
  return text;
}

void MakeGolden(pkram::MemoryFile* file) {
  pkram::FormatRegion(file, 256);
  Mounted mounted(*file);
  Filesystem& fs = *mounted.fs();
  const Context ctx{.uid = 1000, .gid = 100, .now = {1700000000, 123456789}};
  const auto ino = [](const Result<Attr>& attr) { return (*attr).ino; };
  const Ino dir = ino(fs.MakeDirectory(ctx, kRootIno, "dir", 0755));
  const Ino file_ino = ino(fs.MakeNode(ctx, dir, "file", S_IFREG | 0644));
  ASSERT_TRUE(fs.Write(ctx, file_ino, 0, BytesOf("Hello, successor!\n")).ok());
  const Ino large = ino(fs.MakeNode(ctx, kRootIno, "large", S_IFREG | 0600));
  ASSERT_TRUE(fs.Write(ctx, large, 0, BytesOf(std::string(5000, 'a'))).ok());
  ASSERT_TRUE(fs.Write(ctx, large, 4096 * 5, BytesOf("b")).ok());
  const Ino grown = ino(fs.MakeNode(ctx, kRootIno, "grown", S_IFREG | 0600));
  ASSERT_TRUE(fs.Write(ctx, grown, 0, BytesOf("c")).ok());
  ASSERT_TRUE(fs.Write(ctx, grown, 4096 * 487, BytesOf("d")).ok());
  ASSERT_TRUE(fs.Write(ctx, grown, 4096 * 2000, BytesOf("e")).ok());
  const Ino whole = ino(fs.MakeNode(ctx, kRootIno, "whole", S_IFREG | 0600));
  ASSERT_TRUE(fs.Write(ctx, whole, 4096 * 487, BytesOf("f")).ok());
  ASSERT_TRUE(fs.Write(ctx, whole, 4096 * 488, BytesOf("g")).ok());
  ASSERT_TRUE(fs.MakeSymlink(ctx, kRootIno, "long symlink", std::string(4000, 's')).ok());
  ASSERT_TRUE(fs.Link(ctx, file_ino, kRootIno, "hard").ok());
  ASSERT_TRUE(fs.MakeSymlink(ctx, kRootIno, "symlink", "dir/file").ok());
  ASSERT_TRUE(fs.MakeNode(ctx, dir, std::string(100, 'n'), S_IFIFO | 0600).ok());
  ASSERT_TRUE(fs.SetXattr(ctx, file_ino, "user.key", "value", 0).ok());
  const Ino gone = ino(fs.MakeNode(ctx, kRootIno, "gone", S_IFREG | 0600));
  ASSERT_TRUE(fs.Unlink(ctx, kRootIno, "gone").ok());
  fs.Forget(gone, 1);
  auto save = pkram::SaveStream::Prepare(mounted.region(), "blob").value();
  auto* object = save->PrepareObject().value();
  ASSERT_TRUE(object->WriteBytes(BytesOf("some bytes")).ok());
  {
    pkram::SaveAccess access(object);
    const std::string pages(8192, 'p');
    ASSERT_TRUE(access.SavePage(7, BytesOf(pages), 1).ok());
  }
  ASSERT_TRUE(save->Finish().ok());
  save.reset();
  mounted.Close();
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, ARegionOpensAndShowsWhatWasPutThere) {
  pkram::MemoryFile file;
  if (GetParam() == "short_lists" && std::getenv("PKRAMFS_WRITE_GOLDEN") != nullptr) {
    MakeGolden(&file);
    FILE* const pipe = popen(("gzip -9nc > " + kDir + GetParam() + ".region.gz").c_str(), "w");
    const std::string bytes = file.Contents();
    fwrite(bytes.data(), 1, bytes.size(), pipe);
    ASSERT_EQ(pclose(pipe), 0);
    const Mounted mounted(file);
    std::ofstream(kDir + GetParam() + ".txt") << TextOfPicture(PictureOf(mounted.fs()));
  }
  file.SetContents(Gunzip(kDir + GetParam() + ".region.gz"));
  FsCheck check;
  const auto report = pkram::Region::Check(file.Reopen().get(), &check);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->sealed);
  EXPECT_TRUE(report->problems.empty());
  const Mounted mounted(file);
  EXPECT_EQ(TextOfPicture(PictureOf(mounted.fs())), Slurp(kDir + GetParam() + ".txt"));
  auto load = pkram::LoadStream::Prepare(mounted.region(), "blob").value();
  auto object = load->NextObject().value();
  std::string bytes(20, '\0');
  bytes.resize(
      object->ReadBytes(absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size())));
  EXPECT_EQ(bytes, "some bytes");
  pkram::LoadAccess access(object.get());
  const auto page = access.LoadFilePage();
  ASSERT_TRUE(page);
  EXPECT_EQ(page->index, 7u);
  EXPECT_EQ(page->page.order(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Of, GoldenTest, testing::Values("v1", "short_lists"),
                         [](const auto& param) { return param.param; });

// What an older program would refuse is said before any of it is there.
TEST(GoldenRegionTest, ARegionOfVersionOneGetsShortListsWhenItIsWrittenTo) {
  using pkram::format::kShortLists;
  pkram::MemoryFile file;
  file.SetContents(Gunzip(kDir + "v1.region.gz"));
  const uint64_t incompat = offsetof(pkram::format::SuperBlock, incompat);
  ASSERT_EQ(file.Peek(incompat), 0u);
  ASSERT_TRUE(pkram::Region::Check(file.Reopen().get(), nullptr).ok());
  EXPECT_EQ(file.Peek(incompat), 0u);
  Mounted mounted(file);
  EXPECT_EQ(file.Peek(incompat), kShortLists);
  const Attr large = *mounted.fs()->Lookup(kRootIno, "large");
  const auto resize = [&](uint64_t size) {
    return mounted.fs()->SetAttr({}, large.ino, {.what = AttrChange::kSetSize, .size = size});
  };
  const auto free = [&] { return mounted.region()->space().counts().free; };
  const uint64_t before = free();
  ASSERT_TRUE(resize(0).ok());
  EXPECT_EQ(free() - before, 4u);  // three pages and their link
  ASSERT_TRUE(mounted.fs()->Write({}, large.ino, 0, BytesOf(std::string(12288, 'a'))).ok());
  EXPECT_EQ(free() - before, 1u);
}

// An older program may have to go on with it.
TEST(GoldenRegionTest, WhoTakesOverLeavesItOfVersionOne) {
  pkram::MemoryFile file;
  file.SetContents(Gunzip(kDir + "v1.region.gz"));
  {
    const Mounted mounted = Mounted::TakeOver(file, {});
    Filesystem& fs = *mounted.fs();
    const Ino ino = (*fs.MakeNode({}, kRootIno, "new", S_IFREG | 0644)).ino;
    const auto free = [&] { return mounted.region()->space().counts().free; };
    const uint64_t before = free();
    for (const char* const piece : {"small", "large"}) {
      const std::string bytes(*piece == 's' ? 5 : 5000, *piece);
      ASSERT_TRUE(fs.Write({}, ino, 5 * (*piece == 'l'), BytesOf(bytes)).ok());
    }
    EXPECT_EQ(before - free(), 3u);
    EXPECT_EQ(TextOf(*fs.Read(ino, 0, 9000)), std::string(5, 's') + std::string(5000, 'l'));
  }
  EXPECT_EQ(file.Peek(offsetof(pkram::format::SuperBlock, incompat)), 0u);
  const Mounted mounted(file);
  const Ino ino = (*mounted.fs()->Lookup(kRootIno, "new")).ino;
  EXPECT_EQ(TextOf(*mounted.fs()->Read(ino, 0, 9000)),
            std::string(5, 's') + std::string(5000, 'l'));
}

TEST(GoldenRegionTest, WhereverAMountDiesThatChangesTheFormatTheRegionOpens) {
  pkram::MemoryFile file;
  file.SetContents(Gunzip(kDir + "v1.region.gz"));
  std::vector<std::string> images;
  {
    const Mounted mounted(file, 0, [&] { images.push_back(file.Contents()); });
  }
  EXPECT_GT(images.size(), 10u);
  for (const std::string& image : images) {
    pkram::MemoryFile found;
    found.SetContents(image);
    const Mounted mounted(found);
    EXPECT_EQ(TextOfPicture(PictureOf(mounted.fs())), Slurp(kDir + "v1.txt"));
  }
}

// Lines of the worked example, as "0x00012010  02 00 00 00  what it is".
TEST(GoldenRegionTest, TheWorkedExampleOfTheFormatIsWhatTheRegionHolds) {
  const std::string region = Gunzip(kDir + "v1.region.gz");
  std::istringstream docs(Slurp(std::string(SOURCE_DIR) + "/docs/format.md"));
  const std::regex line_of_bytes("^0x([0-9a-f]+)  ((?:[0-9a-f]{2} )+) ");
  int lines = 0;
  for (std::string line; std::getline(docs, line);) {
    std::smatch match;
    if (!std::regex_search(line, match, line_of_bytes)) continue;
    ++lines;
    const size_t offset = std::stoul(match[1], nullptr, 16);
    std::istringstream in(match[2]);
    size_t i = 0;
    for (std::string byte; in >> byte; ++i) {
      ASSERT_LT(offset + i, region.size()) << line;
      EXPECT_EQ(std::stoul(byte, nullptr, 16), static_cast<unsigned char>(region[offset + i]))
          << line;
    }
  }
  EXPECT_GT(lines, 40);
}

}  // namespace
}  // namespace pkramfs
