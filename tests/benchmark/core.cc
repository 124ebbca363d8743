// The filesystem without the kernel: calls of one thread and of many, on files of their own and on
// the same one.
//   core --benchmark_format=json
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fs/filesystem.h"
#include "pkram/backing.h"
#include "pkram/mutex.h"
#include "pkram/region.h"

namespace pkramfs {
namespace {

constexpr uint64_t kFilePages = 256;  // of the files that are read and written

// A filesystem with a file and a directory for each thread, and one of each for all.
class Place {
 public:
  static constexpr int kThreads = 16;

  Place() {
    const int fd = memfd_create("core", MFD_CLOEXEC);
    auto backing = pkram::OpenFdBacking(fd).value();
    (void)pkram::Region::Format(backing.get(), 1 << 19);
    region_ = pkram::Region::Open(std::move(backing), {}).value();
    fs_ = Filesystem::Open(region_.get(), {}, {1, 0}).value();
    for (int i = 0; i <= kThreads; ++i) {
      const std::string n = std::to_string(i);
      dirs_.push_back((*fs_->MakeDirectory({}, kRootIno, "d" + n, 0755)).ino);
      files_.push_back((*fs_->MakeNode({}, kRootIno, "f" + n, S_IFREG | 0644)).ino);
      const std::vector<std::byte> bytes(kFilePages * pkram::kPageSize, std::byte{1});
      (void)fs_->Write({}, files_.back(), 0, bytes);
    }
  }
  Filesystem* operator->() const { return fs_.get(); }
  uint64_t depot_visits() const { return region_->space().depot().visits(); }
  // Of this thread, or of all.
  Ino file(const benchmark::State& state) const { return files_[Number(state)]; }
  Ino dir(const benchmark::State& state) const { return dirs_[Number(state)]; }
  std::string file_name(const benchmark::State& state) const {
    return "f" + std::to_string(Number(state));
  }

 private:
  static size_t Number(const benchmark::State& state) {
    return state.range(0) != 0 ? kThreads : static_cast<size_t>(state.thread_index());
  }
  std::unique_ptr<pkram::Region> region_;
  std::unique_ptr<Filesystem> fs_;
  std::vector<Ino> dirs_, files_;
};

const Place& ThePlace() {
  static const Place place;
  return place;
}

// While there is one: the locks at which calls had to wait, in a thousand, and the visits to the
// lock of the free pages.
class Meetings {
 public:
  explicit Meetings(benchmark::State* state) : state_(state) {}
  ~Meetings() {
    const auto per_thousand = [&](uint64_t n) {
      const auto calls = std::max<int64_t>(1, state_->iterations() * state_->threads());
      return benchmark::Counter(1000.0 * static_cast<double>(n) / static_cast<double>(calls),
                                benchmark::Counter::kAvgThreads);
    };
    state_->counters["waits"] = per_thousand(pkram::lock_waits - waits_);
    state_->counters["visits"] = per_thousand(ThePlace().depot_visits() - visits_);
  }

 private:
  benchmark::State* const state_;
  const uint64_t waits_ = pkram::lock_waits, visits_ = ThePlace().depot_visits();
};

// Where in a file the n-th piece of `size` bytes goes.
uint64_t At(uint64_t n, size_t size) { return n * size % (kFilePages * pkram::kPageSize); }

void Lookup(benchmark::State& state) {
  const Place& fs = ThePlace();
  const std::string name = fs.file_name(state);
  const Meetings meetings(&state);
  for (auto _ : state) {
    const Result<Attr> attr = fs->Lookup(kRootIno, name);
    benchmark::DoNotOptimize(attr.ok());
    fs->Forget((*attr).ino, 1);
  }
}

void GetAttr(benchmark::State& state) {
  const Place& fs = ThePlace();
  const Meetings meetings(&state);
  for (auto _ : state) benchmark::DoNotOptimize(fs->GetAttr(fs.file(state)).ok());
}

// (What is done with the bytes is the kernel's.)
template <size_t kSize>
void Read(benchmark::State& state) {
  const Place& fs = ThePlace();
  uint64_t n = 0;
  const Meetings meetings(&state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(fs->Read(fs.file(state), At(n++, kSize), kSize).ok());
  }
}

template <size_t kSize>
void Write(benchmark::State& state) {
  const Place& fs = ThePlace();
  const std::vector<std::byte> bytes(kSize, std::byte{2});
  uint64_t n = 0;
  const Meetings meetings(&state);
  for (auto _ : state) {
    benchmark::DoNotOptimize(fs->Write({}, fs.file(state), At(n++, kSize), bytes).ok());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kSize));
}

// And writes to it, and deletes it.
template <size_t kSize>
void Create(benchmark::State& state) {
  const Place& fs = ThePlace();
  const Ino dir = fs.dir(state);
  const std::string name = "new" + std::to_string(state.thread_index());
  const std::vector<std::byte> bytes(kSize, std::byte{3});
  const Meetings meetings(&state);
  for (auto _ : state) {
    const Ino ino = (*fs->MakeNode({}, dir, name, S_IFREG | 0644)).ino;
    (void)fs->Write({}, ino, 0, bytes);
    (void)fs->Unlink({}, dir, name);
    fs->Forget(ino, 1);
  }
}

// A page of a memory file, one after the other: what Region::Overwrite chooses from.
enum class By { kCall, kFirstTouch, kSecondTouch };
template <By kBy>
void Page(benchmark::State& state) {
  constexpr size_t kSize = 64 << 20;
  const std::vector<std::byte> bytes(kSize, std::byte{4});
  const int fd = memfd_create("page", MFD_CLOEXEC);
  (void)!pwrite(fd, bytes.data(), kSize, 0);
  for (auto _ : state) {
    void* const at = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const auto write = [&](size_t offset) {
      if (kBy == By::kCall) {
        (void)!pwrite(fd, bytes.data(), pkram::kPageSize, static_cast<off_t>(offset));
      } else {
        std::memcpy(static_cast<std::byte*>(at) + offset, bytes.data(), pkram::kPageSize);
      }
    };
    const auto write_all = [&] {
      for (size_t offset = 0; offset < kSize; offset += pkram::kPageSize) write(offset);
    };
    if (kBy == By::kSecondTouch) write_all();
    const auto from = std::chrono::steady_clock::now();
    write_all();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - from;
    state.SetIterationTime(took.count() / (kSize / pkram::kPageSize));
    munmap(at, kSize);
  }
  close(fd);
}
BENCHMARK(Page<By::kCall>)->UseManualTime()->Iterations(5);
BENCHMARK(Page<By::kFirstTouch>)->UseManualTime()->Iterations(5);
BENCHMARK(Page<By::kSecondTouch>)->UseManualTime()->Iterations(5);

// "same": 1 when all use one file or directory.
#define ON_FILES(function)              \
  BENCHMARK(function)                   \
      ->ArgName("same")                 \
      ->Arg(0)                          \
      ->Arg(1)                          \
      ->ThreadRange(1, Place::kThreads) \
      ->UseRealTime()
ON_FILES(Lookup);
ON_FILES(GetAttr);
ON_FILES(Read<4096>);
ON_FILES(Read<131072>);
ON_FILES(Write<4096>);
ON_FILES(Write<131072>);
ON_FILES(Create<1024>);
ON_FILES(Create<4096>);
ON_FILES(Create<131072>);

}  // namespace
}  // namespace pkramfs

BENCHMARK_MAIN();
