// How long it takes until a region can be used: a page at a time, a link at a time, and as
// the filesystem does it, which adopts links as they stand.
//   loading --benchmark_format=json
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "pkram/snapshots.h"
#include "pkram/stream.h"
#include "tests/benchmark/images.h"

namespace pkramfs {
namespace {

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
  const auto threads = static_cast<int>(state.range(2));
  const uint64_t pages = gigabytes * kPagesOfAGigabyte;
  const std::string name = "file" + std::to_string(gigabytes) + "." + std::to_string(stride);
  const Image* const image = TheImage(name, [&] { return FileImage(pages, stride); });
  for (auto _ : state) {
    const Stopwatch stopwatch(&state);
    const Opened opened(*image, nullptr, threads);
    const Attr attr = *opened.fs->Lookup(kRootIno, "large");
    if (attr.size != pages * kPageSize) state.SkipWithError("the file is not there");
    benchmark::DoNotOptimize(opened.fs->Read(attr.ino, attr.size - 1, 1));
    stopwatch.Stop();
  }
  CountPages(state, pages);
}
BENCHMARK(Adoption)
    ->ArgNames({"GB", "stride", "threads"})
    ->ArgsProduct({{1, 10, 100, 1000}, {1}, {1, 2}})
    ->ArgsProduct({{100}, {2}, {1, 2}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// For how long a checkpoint stops all changes.
void Moment(benchmark::State& state) {
  const uint64_t pages = static_cast<uint64_t>(state.range(0)) * kPagesOfAGigabyte;
  const Image* const image =
      TheImage("file" + std::to_string(state.range(0)) + ".1", [&] { return FileImage(pages, 1); });
  pkram::Snapshots snapshots;
  const Opened opened(*image, &snapshots);
  for (auto _ : state) {
    const Stopwatch stopwatch(&state);
    opened.fs->AtRest([&] {
      const pkram::Bitmap in_use = opened.region->space().InUse();
      snapshots.Begin(opened.region->mapping(), in_use, pkram::Snapshots::Take::kAll);
    });
    stopwatch.Stop();
    snapshots.Cancel();
  }
  CountPages(state, pages);
}
BENCHMARK(Moment)->ArgName("GB")->Arg(1)->Arg(10)->Arg(100)->Arg(1000)->UseManualTime()->Unit(
    benchmark::kMillisecond);

void MillionFiles(benchmark::State& state) {
  const auto pages = static_cast<uint64_t>(state.range(0));
  const bool sealed = state.range(1) != 0;
  const auto threads = static_cast<int>(state.range(2));
  const Image* const image =
      TheImage("files" + std::to_string(pages), [&] { return ManyFilesImage(1000000, pages); });
  for (auto _ : state) {
    if (sealed) {
      Opened opened(*image);
      opened.fs.reset();
      Must(opened.region->Close(&opened.check));
    }
    const Stopwatch stopwatch(&state);
    const Opened opened(*image, nullptr, threads);
    benchmark::DoNotOptimize(opened.fs->Lookup(kRootIno, "0").ok());
    stopwatch.Stop();
  }
}
BENCHMARK(MillionFiles)
    ->ArgNames({"pages", "sealed", "threads"})
    ->ArgsProduct({{0, 2}, {0, 1}, {1, 2}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// What a clean unmount of as many files takes.
void Sealing(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    // One that has no seal yet.
    const std::unique_ptr<Image> image = ManyFilesImage(1000000);
    Opened opened(*image, nullptr, threads);
    opened.fs.reset();
    const Stopwatch stopwatch(&state);
    Must(opened.region->Close(&opened.check));
    stopwatch.Stop();
  }
}
BENCHMARK(Sealing)->ArgName("threads")->Arg(1)->Arg(2)->UseManualTime()->Unit(
    benchmark::kMillisecond);

}  // namespace
}  // namespace pkramfs

BENCHMARK_MAIN();
