// A filesystem in a memory file, and a picture of everything a user can see of it.
#ifndef TESTS_FS_FIXTURE_H_
#define TESTS_FS_FIXTURE_H_

#include <sys/stat.h>

#include <map>
#include <memory>
#include <string>

#include "fs/check.h"
#include "fs/filesystem.h"
#include "tests/region_fixture.h"

namespace pkramfs {

inline absl::Span<const std::byte> BytesOf(std::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

inline void AppendTo(std::string* text, const ReadAnswer& answer) {
  for (const iovec& v : answer.iov) text->append(static_cast<const char*>(v.iov_base), v.iov_len);
}

inline std::string TextOf(const ReadAnswer& answer) {
  std::string text;
  AppendTo(&text, answer);
  return text;
}

// For each path, everything that can be seen of the file.  Hard links are seen by their inode
// number.
using Picture = std::map<std::string, std::string>;

inline void AddToPicture(Filesystem* fs, Ino ino, const std::string& path, Picture* picture) {
  const Attr a = *fs->GetAttr(ino);
  std::string text = "ino=" + std::to_string(a.ino) + " mode=" + std::to_string(a.mode) +
                     " nlink=" + std::to_string(a.nlink) + " uid=" + std::to_string(a.uid) +
                     " gid=" + std::to_string(a.gid) + " rdev=" + std::to_string(a.rdev) +
                     " size=" + std::to_string(a.size) + " blocks=" + std::to_string(a.blocks);
  for (const Timestamp& t : {a.atime, a.mtime, a.ctime, a.btime}) {
    text += " " + std::to_string(t.seconds) + "." + std::to_string(t.nanos);
  }
  const std::string names = *fs->ListXattrs({}, ino);
  std::map<std::string, std::string> xattrs;
  for (size_t at = 0; at < names.size(); at = names.find('\0', at) + 1) {
    const std::string name = names.c_str() + at;
    xattrs[name] = *fs->GetXattr(ino, name);
  }
  for (const auto& [name, value] : xattrs) text += " " + name + "=" + value;
  if (S_ISREG(a.mode)) {
    constexpr std::string_view kData = " data=";
    text.reserve(text.size() + kData.size() + a.size);
    AppendTo(&(text += kData), *fs->Read(ino, 0, a.size));
  }
  if (S_ISLNK(a.mode)) text += " target=" + *fs->ReadLink(ino);
  (*picture)[path.empty() ? "/" : path] = std::move(text);
  if (!S_ISDIR(a.mode)) return;
  std::vector<std::pair<std::string, Ino>> children;
  EXPECT_TRUE(fs->ReadDirectory(ino, 0, [&](const DirEntry& e) {
                  if (e.name != "." && e.name != "..") {
                    children.emplace_back(std::string(e.name), e.ino);
                  }
                  return true;
                }).ok());
  for (const auto& [name, child] : children) {
    AddToPicture(fs, child, path + "/" + name, picture);
  }
}

inline Picture PictureOf(Filesystem* fs) {
  Picture picture;
  AddToPicture(fs, kRootIno, "", &picture);
  return picture;
}

// A region and the filesystem in it.
class Mounted {
 public:
  explicit Mounted(const pkram::MemoryFile& file, uint64_t max_inodes = 0,
                   std::function<void()> store_hook = nullptr, bool resizable = false) {
    pkram::Region::OpenOptions options;
    options.resizable = resizable;
    options.store_hook = std::move(store_hook);
    Open(file, max_inodes, std::move(options));
  }
  // Opens it in the place of a server that has died, with that server's receipts.
  static Mounted TakeOver(const pkram::MemoryFile& file, std::vector<pkram::Receipt*> receipts,
                          std::function<void()> store_hook = nullptr) {
    pkram::Region::OpenOptions options;
    options.takes_over = true;
    options.receipts = std::move(receipts);
    options.store_hook = std::move(store_hook);
    Mounted mounted;
    mounted.Open(file, 0, std::move(options));
    return mounted;
  }
  // `watch` hears of each page that changes.
  static Mounted WithWatch(const pkram::MemoryFile& file, pkram::Watch* watch,
                           std::function<void()> store_hook = nullptr) {
    pkram::Region::OpenOptions options;
    options.watch = watch;
    options.store_hook = std::move(store_hook);
    options.resizable = true;
    Mounted mounted;
    mounted.Open(file, 0, std::move(options));
    return mounted;
  }
  Filesystem* fs() const { return fs_.get(); }
  pkram::Region* region() const { return region_.get(); }
  // A clean unmount.
  void Close() {
    fs_.reset();
    FsCheck check;
    EXPECT_EQ(region_->Close(&check), absl::OkStatus());
    region_.reset();
  }

 private:
  Mounted() = default;
  void Open(const pkram::MemoryFile& file, uint64_t max_inodes,
            pkram::Region::OpenOptions options) {
    FsCheck check;
    options.guarded = true;
    options.client = &check;
    auto region = pkram::Region::Open(file.Reopen(), options);
    EXPECT_EQ(region.status(), absl::OkStatus());
    if (!region.ok()) return;
    region_ = *std::move(region);
    Filesystem::Options fs_options;
    fs_options.max_inodes = max_inodes;
    auto fs = Filesystem::Open(region_.get(), fs_options, Timestamp{1000, 1});
    EXPECT_EQ(fs.status(), absl::OkStatus());
    if (fs.ok()) fs_ = *std::move(fs);
  }

  std::unique_ptr<pkram::Region> region_;
  std::unique_ptr<Filesystem> fs_;
};

class FsTest : public testing::Test {
 protected:
  explicit FsTest(uint64_t pages = 8192) : pages_(pages) {}
  void SetUp() override {
    pkram::FormatRegion(&file_, pages_);
    mounted_ = std::make_unique<Mounted>(file_, max_inodes_);
  }
  void TearDown() override {
    mounted_.reset();
    FsCheck check;
    EXPECT_GT(pkram::UsedPages(file_, &check), 0);
  }
  Filesystem& fs() { return *mounted_->fs(); }
  pkram::Region& region() { return *mounted_->region(); }
  // Opens it anew, as after a kill and a new mount.
  void Remount() {
    mounted_.reset();
    mounted_ = std::make_unique<Mounted>(file_, max_inodes_);
  }
  Context ctx() { return Context{.uid = 0, .gid = 0, .now = {++clock_, 5}}; }

  Ino Make(std::string_view name, uint32_t mode = S_IFREG | 0644, Ino parent = kRootIno) {
    const auto r = S_ISDIR(mode) ? fs().MakeDirectory(ctx(), parent, name, mode)
                                 : fs().MakeNode(ctx(), parent, name, mode);
    EXPECT_TRUE(r.ok()) << name << " " << r.error();
    return r.ok() ? (*r).ino : 0;
  }
  Ino Find(std::string_view name, Ino parent = kRootIno) {
    const auto r = fs().Lookup(parent, name);
    if (!r.ok()) return 0;
    fs().Forget((*r).ino, 1);
    return (*r).ino;
  }
  void Put(Ino ino, uint64_t offset, std::string_view bytes) {
    const auto r = fs().Write(ctx(), ino, offset, BytesOf(bytes));
    ASSERT_TRUE(r.ok()) << r.error();
    ASSERT_EQ(*r, bytes.size());
  }
  std::string Text(Ino ino) {
    const auto r = fs().Read(ino, 0, 1 << 30);
    EXPECT_TRUE(r.ok()) << r.error();
    return r.ok() ? TextOf(*r) : "";
  }
  Attr AttrOf(Ino ino) { return *fs().GetAttr(ino); }
  int Resize(Ino ino, uint64_t size) {
    return fs().SetAttr(ctx(), ino, {.what = AttrChange::kSetSize, .size = size}).error();
  }
  std::vector<std::string> Names(Ino ino = kRootIno) {
    std::vector<std::string> names;
    EXPECT_TRUE(fs().ReadDirectory(ino, 2,
                                   [&](const DirEntry& e) {
                                     names.emplace_back(e.name);
                                     return true;
                                   })
                    .ok());
    return names;
  }
  uint64_t FreePages() { return region().space().counts().free; }

  const uint64_t pages_;
  uint64_t max_inodes_ = 0;
  int64_t clock_ = 2000;
  pkram::MemoryFile file_;
  std::unique_ptr<Mounted> mounted_;
};

}  // namespace pkramfs

#endif  // TESTS_FS_FIXTURE_H_
