// How long it takes until a region can be used: a page at a time, a link at a time, and as
// the filesystem does it, which adopts links as they stand.  Contents are holes of a sparse
// file, so that they cost no memory; links and inodes are real.
//   loading --benchmark_format=json
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fs/check.h"
#include "fs/filesystem.h"
#include "fs/layout.h"
#include "pkram/region.h"
#include "pkram/stream.h"

namespace pkramfs {
namespace {

using pkram::kPageSize;
using pkram::Pfn;
namespace format = pkram::format;

constexpr uint64_t kPagesOfAGigabyte = uint64_t{1000000000} / kPageSize;

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "loading: %s\n", status.ToString().c_str());
  std::exit(1);
}

class Image {
 public:
  explicit Image(uint64_t pages) : fd_(memfd_create("loading", 0)) {
    Must(pkram::Region::Format(Backing().get(), pages));
  }
  ~Image() { close(fd_); }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

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

constexpr Pfn kBehindTheRest(2048);

uint64_t RegionPagesFor(uint64_t pages, uint64_t stride) {
  return kBehindTheRest.value() + pages / format::kLinkEntries + 1 + pages * stride;
}

// Saved streams of one object each, "0", "1" and so on, which share the pages between them.
std::unique_ptr<Image> StreamImage(uint64_t pages, uint64_t streams) {
  const uint64_t each = pages / streams;
  const uint64_t apart = each + each / format::kLinkEntries + 1;
  auto image = std::make_unique<Image>(kBehindTheRest.value() + streams * apart);
  uint64_t next = 0;
  for (uint64_t i = 0; i < streams; ++i) {
    const Pfn node_at(600 + 3 * i), table_at = node_at + 1, object_at = node_at + 2;
    format::Object object{};
    object.header.pages = image->PutList(kBehindTheRest + i * apart, each, 1);
    image->Put(object_at, object);
    format::Link table{};
    table.entry[0] = format::MakeEntry(object_at);
    image->Put(table_at, table);
    format::Node node{};
    node.next = next;
    node.state = format::kSaved;
    node.objects = format::MakeEntry(table_at);
    std::strcpy(node.name, std::to_string(i).c_str());
    image->Put(node_at, node);
    next = format::MakeEntry(node_at);
  }
  auto super = image->Get<format::SuperBlock>(Pfn(0));
  super.nodes = next;
  image->Put(Pfn(0), super);
  return image;
}

// A region in use, with its filesystem.
struct Opened {
  explicit Opened(const Image& image) {
    pkram::Region::OpenOptions options;
    options.resizable = true;
    options.client = &check;
    region = pkram::Region::Open(image.Backing(), options).value();
    fs = Filesystem::Open(region.get(), {}, {}).value();
  }
  FsCheck check;
  std::unique_ptr<pkram::Region> region;
  std::unique_ptr<Filesystem> fs;
};

Context Root() {
  return {.uid = 0, .gid = 0, .now = {}, .umask = 0};
}

// A filesystem with one large file.
std::unique_ptr<Image> FileImage(uint64_t pages, uint64_t stride) {
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

std::unique_ptr<Image> ManyFilesImage(uint64_t files) {
  auto image = std::make_unique<Image>(files + files / 8 + 10000);
  Opened opened(*image);
  const std::string bytes(1024, 'x');
  Ino dir = kRootIno;
  for (uint64_t i = 0; i < files; ++i) {
    if (i % 1000 == 0) {
      dir = (*opened.fs->MakeDirectory(Root(), kRootIno, std::to_string(i), 0755)).ino;
    }
    const Ino ino = (*opened.fs->MakeNode(Root(), dir, std::to_string(i), S_IFREG | 0644)).ino;
    if (!opened.fs
             ->Write(Root(), ino, 0,
                     {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()})
             .ok()) {
      std::abort();
    }
    opened.fs->Forget(ino, 1);
  }
  return image;
}

// Images are large: one at a time, until one of another name is asked for.
template <typename Make>
const Image* TheImage(const std::string& name, Make make) {
  static std::string current;
  static std::unique_ptr<Image> image;
  if (current != name) {
    image.reset();
    image = make();
    current = name;
  }
  return image.get();
}

// Times an iteration without its end, which unmaps.
class Stopwatch {
 public:
  explicit Stopwatch(benchmark::State* state) : state_(state) {}
  void Stop() const {
    state_->SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count());
  }

 private:
  benchmark::State* const state_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void CountPages(benchmark::State& state, uint64_t pages) {
  state.SetItemsProcessed(static_cast<int64_t>(pages) * state.iterations());
  state.counters["GB"] = static_cast<double>(pages) / static_cast<double>(kPagesOfAGigabyte);
}

// A region of as many streams as there are threads, each of which loads one.  The first
// thread opens and closes it, while the others wait to begin and to end.
class Streams {
 public:
  explicit Streams(benchmark::State* state) : state_(state) {
    if (state->thread_index() != 0) return;
    const auto gigabytes = static_cast<uint64_t>(state->range(0));
    const auto threads = static_cast<uint64_t>(state->threads());
    const Image* const image =
        TheImage("stream" + std::to_string(gigabytes) + "." + std::to_string(threads),
                 [&] { return StreamImage(gigabytes * kPagesOfAGigabyte, threads); });
    region_ = pkram::Region::Open(image->Backing(), {}).value();
  }
  ~Streams() {
    if (state_->thread_index() == 0) region_.reset();
  }
  // Calls load(access) on what this thread loads.
  template <typename Load>
  void Each(Load load) const {
    const std::string name = std::to_string(state_->thread_index());
    const auto stream = pkram::LoadStream::Prepare(region_.get(), name).value();
    const auto object = stream->NextObject().value();
    pkram::LoadAccess access(object.get());
    load(&access);
  }

 private:
  benchmark::State* const state_;
  static std::unique_ptr<pkram::Region> region_;
};
std::unique_ptr<pkram::Region> Streams::region_;

void PageAtATime(benchmark::State& state) {
  const Streams streams(&state);
  uint64_t pages = 0;
  for (auto _ : state) {
    pages = 0;
    streams.Each([&](pkram::LoadAccess* access) {
      while (const auto page = access->LoadFilePage()) {
        benchmark::DoNotOptimize(page->page.data());
        ++pages;
      }
    });
  }
  CountPages(state, pages);
}
BENCHMARK(PageAtATime)
    ->Arg(1)
    ->Arg(10)
    ->Arg(100)
    ->ThreadRange(1, 2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void InBulk(benchmark::State& state) {
  const Streams streams(&state);
  uint64_t pages = 0;
  for (auto _ : state) {
    pages = 0;
    streams.Each([&](pkram::LoadAccess* access) {
      pkram::PageBuffer buffer;
      while (const auto batch = access->LoadFilePages(&buffer)) {
        benchmark::DoNotOptimize(buffer.data());
        pages += batch->count;
      }
    });
  }
  CountPages(state, pages);
}
BENCHMARK(InBulk)->Arg(1)->Arg(10)->Arg(100)->ThreadRange(1, 2)->UseRealTime()->Unit(
    benchmark::kMillisecond);

// Until the filesystem can serve: every link read, proven and adopted.
void Adoption(benchmark::State& state) {
  const auto gigabytes = static_cast<uint64_t>(state.range(0));
  const auto stride = static_cast<uint64_t>(state.range(1));
  const uint64_t pages = gigabytes * kPagesOfAGigabyte;
  const std::string name = "file" + std::to_string(gigabytes) + "." + std::to_string(stride);
  const Image* const image = TheImage(name, [&] { return FileImage(pages, stride); });
  for (auto _ : state) {
    const Stopwatch stopwatch(&state);
    const Opened opened(*image);
    const Attr attr = *opened.fs->Lookup(kRootIno, "large");
    if (attr.size != pages * kPageSize) state.SkipWithError("the file is not there");
    benchmark::DoNotOptimize(opened.fs->Read(attr.ino, attr.size - 1, 1));
    stopwatch.Stop();
  }
  CountPages(state, pages);
}
BENCHMARK(Adoption)
    ->ArgNames({"GB", "stride"})
    ->Args({1, 1})
    ->Args({10, 1})
    ->Args({100, 1})
    ->Args({1000, 1})
    ->Args({100, 2})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

void MillionFiles(benchmark::State& state) {
  const bool sealed = state.range(0) != 0;
  const Image* const image = TheImage("files", [] { return ManyFilesImage(1000000); });
  for (auto _ : state) {
    if (sealed) {
      Opened opened(*image);
      opened.fs.reset();
      Must(opened.region->Close(&opened.check));
    }
    const Stopwatch stopwatch(&state);
    const Opened opened(*image);
    benchmark::DoNotOptimize(opened.fs->Lookup(kRootIno, "0").ok());
    stopwatch.Stop();
  }
}
BENCHMARK(MillionFiles)
    ->ArgName("sealed")
    ->Arg(0)
    ->Arg(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pkramfs

BENCHMARK_MAIN();
