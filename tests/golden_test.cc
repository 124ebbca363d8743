// A region of each released format version is kept, and every later program opens
// it and sees in it what was put there.  docs/format.md explains the same bytes.
//
//   PKRAMFS_WRITE_GOLDEN=1 tests/golden_test    makes tests/golden/v1.* anew; never
//   once the version is released.
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

TEST(GoldenTest, ARegionOfVersionOneOpensAndShowsWhatWasPutThere) {
  pkram::MemoryFile file;
  if (std::getenv("PKRAMFS_WRITE_GOLDEN") != nullptr) {
    MakeGolden(&file);
    FILE* const pipe = popen(("gzip -9nc > " + kDir + "v1.region.gz").c_str(), "w");
    const std::string bytes = file.Contents();
    fwrite(bytes.data(), 1, bytes.size(), pipe);
    ASSERT_EQ(pclose(pipe), 0);
    const Mounted mounted(file);
    std::ofstream(kDir + "v1.txt") << TextOfPicture(PictureOf(mounted.fs()));
  }
  file.SetContents(Gunzip(kDir + "v1.region.gz"));
  FsCheck check;
  const auto report = pkram::Region::Check(file.Reopen().get(), &check);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->sealed);
  EXPECT_TRUE(report->problems.empty());
  const Mounted mounted(file);
  EXPECT_EQ(TextOfPicture(PictureOf(mounted.fs())), Slurp(kDir + "v1.txt"));
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

// Lines of the worked example, as "0x00012010  02 00 00 00  what it is".
TEST(GoldenTest, TheWorkedExampleOfTheFormatIsWhatTheRegionHolds) {
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
