// Hostile trees: an input is a list of edits of a tree that an owner's program has built in lent
// pages, before it is proven or while it is.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fs/adoption.h"
#include "fs/tree_builder.h"
#include "fs/xattrs.h"
#include "pkram/lender.h"
#include "tests/fs_fixture.h"
#include "tests/fuzz/targets.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::MemoryFile;
using pkram::Pfn;

constexpr uint64_t kTreePages = 160;

void MustHold(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// A file in pages, with an attribute; one in its inode; a directory in a directory.
Filesystem::BuiltTree BuildSmall(pkram::Region* region) {
  TreeBuilder builder(region);
  const std::string text(2 * kPageSize, 'f');
  const TreeBuilder::Extent all{0, text.size()};
  const TreeBuilder::Reader reader = {[&](uint64_t, absl::Span<char> bytes) {
                                        std::memset(bytes.data(), 'x', bytes.size());
                                        return absl::OkStatus();
                                      },
                                      [&](uint64_t, uint64_t size, uint64_t at) {
                                        const iovec iov{const_cast<char*>(text.data()), size};
                                        return region->Fill(at, {&iov, 1});
                                      }};
  TreeBuilder::Attributes file, directory;
  file.mode = S_IFREG | 0644;
  directory.mode = S_IFDIR | 0755;
  Xattrs::Append(&file.xattrs, "user.color", "blue");
  const Ino top = builder.Reserve(), sub = builder.Reserve(), large = builder.Reserve(),
            small = builder.Reserve();
  const std::vector<TreeBuilder::Name> in_top = {{"large", large, file.mode},
                                                 {"sub", sub, directory.mode}};
  const std::vector<TreeBuilder::Name> in_sub = {{"small", small, file.mode}};
  MustHold(builder.MakeFile(large, file, text.size(), {&all, 1}, reader).ok() &&
               builder.MakeFile(small, file, 5, {&all, 1}, reader).ok() &&
               builder.MakeDirectory(sub, top, directory, in_sub).ok() &&
               builder.MakeDirectory(top, TreeBuilder::root(), directory, in_top).ok(),
           "the sound tree cannot be made");
  return builder.Finish(top, directory.mode).value();
}

const MemoryFile::Image& EmptyRegion() {
  static const MemoryFile::Image* const image = [] {
    MemoryFile file;
    pkram::FormatRegion(&file, kTreePages);
    Mounted(file).Close();
    return new MemoryFile::Image(file.Save());
  }();
  return *image;
}

// The words of lent pages that hold something, and edits of them.
class Edits {
 public:
  Edits(const MemoryFile& file, pkram::Region* lends, pkram::Region* builds, const uint8_t* data,
        size_t size)
      : data_(data), size_(size) {
    const uint64_t exist = file.size() / kPageSize;
    for (const pkram::PageRun& run : lends->space().loans().Lent()) {
      for (uint64_t i = 0; i < run.count && run.first.value() + i < exist; ++i) {
        auto* const page = builds->mapping().WritableAt<uint64_t>(run.first + i);
        for (uint64_t k = 0; k < kPageSize / sizeof(uint64_t); ++k) {
          if (page[k] != 0 && page[k] != 0x6666666666666666) words_.push_back(page + k);
        }
      }
    }
  }
  // False when there is none left.
  bool Next() {
    if (at_ + 5 > size_ || words_.empty()) return false;
    const uint8_t* const d = data_ + at_;
    at_ += 5;
    uint64_t& word = *words_[(d[0] | d[1] << 8) % words_.size()];
    const uint64_t n = d[3] | uint64_t{d[4]} << 8;
    switch (d[2] % 8) {
      case 0:
        word = 0;
        break;
      case 1:
        word += n + 1;
        break;
      case 2:
        word ^= uint64_t{1} << n % 64;
        break;
      case 3:
        word = *words_[n % words_.size()];
        break;
      case 4:
        word = pkram::format::MakeEntry(Pfn(n % kTreePages), d[4] % 16, d[4] / 64);
        break;
      case 5:
        word = n;
        break;
      case 6:
        word = ~n;
        break;
      default:
        word = (word & 0xffffffff) | n << 32;
    }
    return true;
  }

 private:
  const uint8_t* const data_;
  const size_t size_;
  size_t at_ = 0;
  std::vector<uint64_t*> words_;
};

}  // namespace

void FuzzTrees(const uint8_t* data, size_t size) {
  if (size < 1) return;
  MemoryFile file;
  file.Restore(EmptyRegion());
  Mounted mounted(file);
  const Picture before = PictureOf(mounted.fs());
  pkram::OwnLender lender(&mounted.region()->space());
  const auto region = pkram::Region::OpenToBuild(file.Reopen(), &lender).value();
  const Filesystem::BuiltTree tree = BuildSmall(region.get());
  Edits edits(file, mounted.region(), region.get(), data + 1, size - 1);
  if (data[0] % 4 == 0) {
    // While it is proven; which is all that is looked at.
    pkram::Loans& loans = mounted.region()->space().loans();
    loans.BeginAdoption();
    (void)ProveTree(mounted.region(), tree.node, tree.links, tree.inodes, 1020, {}, [&](Ino) {
      edits.Next();
      return uint32_t{0};
    });
    loans.EndAdoption();
    MustHold(PictureOf(mounted.fs()) == before, "a proof has changed what is there");
    return;
  }
  while (edits.Next()) {
  }
  const Context context{.now = {1, 2}};
  const bool adopted =
      mounted.fs()->AdoptTree(context, tree, kRootIno, "tree", Filesystem::Placing::kNew).ok();
  // (A file that was adopted may say that it is of any size.)
  MustHold(adopted || PictureOf(mounted.fs()) == before, "a refused tree has left something");
  mounted.Close();
  FsCheck check;
  const auto report = pkram::Region::Check(file.Reopen().get(), &check);
  MustHold(report.ok() && report->problems.empty(), "the region is not sound any more");
}

}  // namespace pkramfs
