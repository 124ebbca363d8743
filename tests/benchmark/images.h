// Large regions for benchmarks, made at once: contents are holes of a sparse file, so that they
// cost no memory; links and inodes are real.
#ifndef TESTS_BENCHMARK_IMAGES_H_
#define TESTS_BENCHMARK_IMAGES_H_

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "fs/check.h"
#include "fs/filesystem.h"
#include "fs/layout.h"
#include "pkram/region.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::Pfn;
namespace format = pkram::format;

inline constexpr uint64_t kPagesOfAGigabyte = uint64_t{1000000000} / kPageSize;

inline void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// A region in a memfd.
class Image {
 public:
  explicit Image(uint64_t pages) : fd_(memfd_create("region", MFD_CLOEXEC)) {
    Must(pkram::Region::Format(Backing().get(), pages));
  }
  ~Image() { close(fd_); }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  int fd() const { return fd_; }
  std::unique_ptr<pkram::Backing> Backing() const { return pkram::OpenFdBacking(fd_).value(); }

  template <typename T>
  T Get(Pfn pfn) const {
    T page;
    if (pread(fd_, &page, sizeof(page), static_cast<off_t>(pfn.offset())) != sizeof(page))
      std::abort();
    return page;
  }
  template <typename T>
  void Put(Pfn pfn, const T& page) const {
    if (pwrite(fd_, &page, sizeof(page), static_cast<off_t>(pfn.offset())) != sizeof(page))
      std::abort();
  }
  // Pages of nothing up to there.
  void Extend(uint64_t pages) const {
    if (ftruncate(fd_, static_cast<off_t>(pages * kPageSize)) != 0) std::abort();
  }

  // A list of `pages` pages, whose links begin at page `at` and whose pages `stride` apart
  // behind them.  Returns its head.
  uint64_t PutList(Pfn at, uint64_t pages, uint64_t stride) const {
    const uint64_t links = (pages + format::kLinkEntries - 1) / format::kLinkEntries;
    const Pfn data = at + links;
    for (uint64_t i = 0; i < links; ++i) {
      format::Link link{};
      link.index = i * format::kLinkEntries;
      link.next = i + 1 < links ? format::MakeEntry(at + (i + 1)) : 0;
      for (uint64_t k = 0; k < format::kLinkEntries && link.index + k < pages; ++k) {
        link.entry[k] = format::MakeEntry(data + (link.index + k) * stride);
      }
      Put(at + i, link);
    }
    Extend(data.value() + pages * stride);
    return format::MakeEntry(at);
  }

 private:
  const int fd_;
};

inline constexpr Pfn kBehindTheRest(2048);

inline uint64_t RegionPagesFor(uint64_t pages, uint64_t stride) {
  return kBehindTheRest.value() + pages / format::kLinkEntries + 1 + pages * stride;
}

// A region in use, with its filesystem.
struct Opened {
  // With as many threads, or one for each processor.
  explicit Opened(const Image& image, pkram::Watch* watch = nullptr, int threads = 0) {
    pkram::Region::OpenOptions options;
    options.walk.threads = threads;
    options.watch = watch;
    options.resizable = true;
    options.client = &check;
    region = pkram::Region::Open(image.Backing(), options).value();
    fs = Filesystem::Open(region.get(), {}, {}).value();
  }
  FsCheck check;
  std::unique_ptr<pkram::Region> region;
  std::unique_ptr<Filesystem> fs;
};

inline Context Root() { return {.uid = 0, .gid = 0, .now = {}, .umask = 0}; }

// A filesystem with one large file.
inline std::unique_ptr<Image> FileImage(uint64_t pages, uint64_t stride) {
  auto image = std::make_unique<Image>(RegionPagesFor(pages, stride));
  Ino ino;
  {
    Opened opened(*image);
    ino = (*opened.fs->MakeNode(Root(), kRootIno, "large", S_IFREG | 0644)).ino;
    opened.fs->Forget(ino, 1);
  }
  const auto super = image->Get<format::SuperBlock>(Pfn(0));
  const auto node = image->Get<format::Node>(format::EntryPfn(super.nodes));
  const auto table = image->Get<format::Link>(format::EntryPfn(node.objects));
  const Pfn at = format::EntryPfn(table.entry[ino]);
  auto object = image->Get<format::Object>(at);
  object.header.pages = image->PutList(kBehindTheRest, pages, stride);
  object.header.allocated_end = pages;
  auto* const record = reinterpret_cast<InodeRecord*>(object.client);
  record->size = pages * kPageSize;
  record->generation_flags &= 0xffffffff;
  image->Put(at, object);
  return image;
}

// Of 1 KiB each, in their inodes, or of `pages` pages that are holes of the image.
inline std::unique_ptr<Image> ManyFilesImage(uint64_t files, uint64_t pages = 0) {
  auto image = std::make_unique<Image>(files * (pages == 0 ? 1 : 2 + pages) + files / 8 + 10000);
  Opened opened(*image);
  const std::string bytes(1024, 'x');
  Ino dir = kRootIno;
  for (uint64_t i = 0; i < files; ++i) {
    if (i % 1000 == 0) {
      dir = (*opened.fs->MakeDirectory(Root(), kRootIno, std::to_string(i), 0755)).ino;
    }
    const Ino ino = (*opened.fs->MakeNode(Root(), dir, std::to_string(i), S_IFREG | 0644)).ino;
    const absl::Span<const std::byte> inlined(reinterpret_cast<const std::byte*>(bytes.data()),
                                              bytes.size());
    if (pages == 0 ? !opened.fs->Write(Root(), ino, 0, inlined).ok()
                   : !opened.fs->Fallocate(Root(), ino, 0, pages * kPageSize, 0).ok()) {
      std::abort();
    }
    opened.fs->Forget(ino, 1);
  }
  return image;
}

}  // namespace pkramfs

#endif  // TESTS_BENCHMARK_IMAGES_H_
