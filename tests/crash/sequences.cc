// Random sequences of operations, thousands deep, compared with a model that knows nothing
// of pages; and at some of their stores the process dies.  What a successor finds must be
// the model's state before the operation or the one after it, also when the successor dies
// in its recovery, and its successor too.  Now and then the sequence goes on from what one
// of them found.
//
//   crash_sequences [--seed N] [--sequences N] [--operations N] [--points N]
//                   [--pages N] [--inodes N] [--crowded]
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "mount/tools/command_line.h"
#include "tests/crash/operations.h"
#include "tests/crash/points.h"

namespace pkramfs {
namespace {

// A region on a filesystem that others fill up: while it is full, no page comes to be.
class CrowdedBacking : public pkram::ForwardingBacking {
 public:
  CrowdedBacking(std::unique_ptr<pkram::Backing> below, const bool* full)
      : ForwardingBacking(std::move(below)), full_(full) {}
  absl::Status Reserve(pkram::PageRun run) override {
    const absl::Status fits = Fits(run.first.offset(), run.count * kPageSize);
    return fits.ok() ? below().Reserve(run) : fits;
  }
  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    uint64_t size = 0;
    for (const iovec& v : bytes) size += v.iov_len;
    const absl::Status fits = Fits(offset, size);
    return fits.ok() ? below().Write(offset, bytes) : fits;
  }
  absl::Status FillZeros(pkram::PageRun run) override {
    const absl::Status fits = Fits(run.first.offset(), run.count * kPageSize);
    return fits.ok() ? below().FillZeros(run) : fits;
  }

 private:
  absl::Status Fits(uint64_t offset, uint64_t size) const {
    if (!*full_) return absl::OkStatus();
    const uint64_t from = offset / kPageSize * kPageSize;
    const auto end = static_cast<off_t>(offset + size);
    if (lseek(fd(), static_cast<off_t>(from), SEEK_DATA) == static_cast<off_t>(from) &&
        lseek(fd(), static_cast<off_t>(from), SEEK_HOLE) >= end) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError("full");
  }
  const bool* const full_;
};

// --- Sequences ------------------------------------------------------------------------------

struct Counts {
  uint64_t operations = 0, full = 0, points = 0, in_recovery = 0, gone_on = 0, remounts = 0;
};

struct Limits {
  uint64_t pages = 800, inodes = 0;
  bool crowded = false;
};

class Sequence {
 public:
  Sequence(uint64_t seed, const Limits& limits, Counts* counts)
      : root_(std::make_shared<Node>(Node{S_IFDIR | 01777, 0, 0, 0, 1, "", {}, {}})),
        maker_(seed, root_),
        limits_(limits),
        counts_(counts) {
    pkram::FormatRegion(&file_, limits.pages);
    file_.wrap = [this](std::unique_ptr<pkram::Backing> backing) {
      return std::make_unique<CrowdedBacking>(std::move(backing), &full_);
    };
    Mount();
  }

  // Returns what is wrong, or nothing.
  std::string Run(uint64_t operations, uint64_t points) {
    for (uint64_t i = 0; i < operations; ++i) {
      // As many as there are, in as many operations as there are.
      const bool dies = maker_.Below(operations) < points / kPointsOfOne;
      const std::string fault = One(dies);
      if (!fault.empty()) return "operation " + std::to_string(i) + ", " + text_ + ": " + fault;
    }
    return "";
  }

 private:
  static constexpr uint64_t kPointsOfOne = 4;

  void Mount() {
    mounted_ = std::make_unique<Mounted>(file_, limits_.inodes, recorder_.hook(),
                                         /*resizable=*/true);
  }

  // Of which nothing is seen; to less than is in use it says that there is no space.
  Operation Resize() {
    const uint64_t pages = limits_.pages * 3 / 4 + maker_.Below(limits_.pages / 2);
    return {"resize to " + std::to_string(pages),
            [=](Filesystem& fs, const Context&) {
              return fs.Resize(pages, std::nullopt).ok() ? 0 : -int64_t{ENOSPC};
            },
            [](int64_t) {}};
  }

  std::string One(bool dies) {
    if (maker_.OneIn(150)) return Remount(dies);
    if (limits_.crowded && maker_.OneIn(20)) full_ = !full_;
    const Operation operation = maker_.OneIn(100) ? Resize() : maker_.One();
    text_ = operation.text;
    ++counts_->operations;
    const Context context{.uid = 0, .gid = 0, .now = {static_cast<int64_t>(1000 + clock_++), 7}};
    View before;
    if (dies) before = ViewOf(root_);
    recorder_.Start(dies);
    const int64_t done = operation.run(*mounted_->fs(), context);
    recorder_.recording = false;
    if (done == -ENOSPC && !operation.makes_space) {
      ++counts_->full;
    } else if (done < 0) {
      return "failed with errno " + std::to_string(-done);
    } else {
      operation.apply(done);
    }
    if (!dies) return "";
    const View after = ViewOf(root_);
    if (std::string d = Differ(after, ViewOf(mounted_->fs()), {}); !d.empty()) return d;
    return Deaths(before, after, operation.mask);
  }

  // Each image that was taken shows one state or the other.
  std::string Deaths(const View& before, const View& after, const Mask& mask) {
    std::vector<Image> images = std::move(recorder_.images);
    for (Image& image : images) {
      std::string fault = OneDeath(image, before, after, mask);
      if (!fault.empty()) return fault;
      if (!maker_.OneIn(3)) continue;
      // The recovery dies, and so does the next one.
      for (int depth = 1; depth <= 2; ++depth) {
        std::vector<Image> deaths =
            DeathsInRecovery(image, 1, [this](uint64_t n) { return maker_.Below(n); });
        if (deaths.empty()) break;
        image = std::move(deaths.front());
        ++counts_->in_recovery;
        fault = OneDeath(image, before, after, mask);
        if (!fault.empty()) return "in recovery " + std::to_string(depth) + ": " + fault;
      }
    }
    return "";
  }

  std::string OneDeath(const Image& image, const View& before, const View& after,
                       const Mask& mask) {
    ++counts_->points;
    MemoryFile file;
    file.Restore(image);
    View found;
    {
      const Mounted mounted(file);
      if (mounted.fs() == nullptr) return "cannot be mounted any more";
      found = ViewOf(mounted.fs());
    }
    FsCheck check;
    if (pkram::UsedPages(file, &check) < 0) return "is not sound after the recovery";
    const std::string from_before = Differ(before, found, mask);
    if (from_before.empty()) return "";
    const std::string from_after = Differ(after, found, mask);
    if (from_after.empty()) return "";
    return "neither before (" + from_before + ") nor after (" + from_after + ")";
  }

  // An unmount, or a kill.  After both, and after a death within either, the files are the same.
  std::string Remount(bool dies) {
    ++counts_->remounts;
    full_ = false;
    const View view = ViewOf(root_);
    recorder_.Start(dies);
    text_ = "remount";
    if (maker_.OneIn(2)) {
      mounted_->Close();
    } else {
      // What is found goes on from a store of the past, when there is one.
      mounted_.reset();
    }
    Mount();
    recorder_.recording = false;
    if (mounted_->fs() == nullptr) return "cannot be mounted";
    if (std::string d = Differ(view, ViewOf(mounted_->fs()), {}); !d.empty()) return d;
    if (!recorder_.images.empty() && maker_.OneIn(2)) {
      ++counts_->gone_on;
      const Image image = recorder_.images[maker_.Below(recorder_.images.size())];
      mounted_.reset();
      file_.Restore(image);
      Mount();
      if (mounted_->fs() == nullptr) return "cannot be mounted from a death";
    }
    return Deaths(view, view, {});
  }

  const NodePtr root_;
  OperationMaker maker_;
  const Limits limits_;
  Counts* const counts_;
  MemoryFile file_;
  Recorder recorder_{&file_, kPointsOfOne, [this](uint64_t n) { return maker_.Below(n); }};
  bool full_ = false;  // what the region is on
  std::unique_ptr<Mounted> mounted_;
  std::string text_;
  uint64_t clock_ = 0;
};

int Main(int argc, char** argv) {
  CommandLine line("crash_sequences",
                   "Random operations that die at random stores, compared with a model.");
  uint64_t seed = 1, sequences = 1, operations = 3000, points = 3000;
  line.Option("--seed", &seed, "Of the first sequence");
  line.Option("--sequences", &sequences, "How many");
  line.Option("--operations", &operations, "Of each");
  line.Option("--points", &points, "Places to die, of each, about");
  Limits limits;
  line.Option("--pages", &limits.pages, "Of the region: few, and it is full most of the time");
  line.Option("--inodes", &limits.inodes, "As many as there may be; 0 for no limit");
  line.Flag("--crowded", &limits.crowded, "What the region is on is full now and then");
  if (const auto status = line.Parse(argc, argv)) return *status;
  Counts counts;
  for (uint64_t i = 0; i < sequences; ++i) {
    const std::string fault = Sequence(seed + i, limits, &counts).Run(operations, points);
    if (!fault.empty() || testing::Test::HasFailure()) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed + i), fault.c_str());
      return 1;
    }
  }
  const auto count = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf(
      "%llu sequences, %llu operations (%llu found it full), %llu remounts (%llu from a death), "
      "%llu crash points, %llu of them in a recovery: each as before or as after\n",
      count(sequences), count(counts.operations), count(counts.full), count(counts.remounts),
      count(counts.gone_on), count(counts.points), count(counts.in_recovery));
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  testing::InitGoogleTest();
  return pkramfs::Main(argc, argv);
}
