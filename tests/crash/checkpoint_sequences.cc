// Random sequences of operations, compared with a model that knows nothing of pages; at some of
// their stores a checkpoint begins, and the sequence goes on while its pages are written.  The
// image, restored elsewhere, must be the model's state behind the operation that the store was of.
// Some checkpoints fail: then the image is the last one, or the new one, as a whole.
//
//   checkpoint_sequences [--seed N] [--sequences N] [--operations N]
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <thread>

#include "mount/tools/command_line.h"
#include "pkram/checkpoints.h"
#include "tests/crash/operations.h"
#include "tests/image_fixture.h"

namespace pkramfs {
namespace {

struct Counts {
  uint64_t operations = 0, meanwhile = 0, checkpoints = 0, changes = 0, failed = 0, aside = 0;
};

constexpr uint64_t kRegionPages = 800;

class Sequence {
 public:
  Sequence(uint64_t seed, Counts* counts)
      : root_(std::make_shared<Node>(Node{S_IFDIR | 01777, 0, 0, 0, 1, "", {}, {}})),
        maker_(seed, root_),
        counts_(counts) {
    char name[] = "/tmp/pkramfs-sequence-XXXXXX";
    dir_ = mkdtemp(name);
    image_ = dir_ + "/image";
    pkram::FormatRegion(&file_, kRegionPages);
    Mount();
  }
  ~Sequence() {
    mounted_.reset();
    std::filesystem::remove_all(dir_);
  }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Returns what is wrong, or nothing.
  std::string Run(uint64_t operations) {
    for (uint64_t i = 0; i < operations && fault_.empty(); ++i) {
      if (maker_.OneIn(100)) Mount();
      if (maker_.OneIn(15)) store_ = 1 + maker_.Below(10);
      const bool begins = store_.has_value();
      One();
      if (!begins) continue;
      // The operation had fewer stores.
      if (!making_.joinable()) Begin();
      applied_.set_value();
      making_.join();
      if (fault_.empty()) fault_ = Judge();
    }
    return fault_.empty() ? "" : text_ + ": " + fault_;
  }

 private:
  void Mount() {
    mounted_.reset();
    checkpoints_ = std::make_unique<pkram::Checkpoints>();
    mounted_ = std::make_unique<Mounted>(
        Mounted::WithWatch(file_, checkpoints_->watch(), [this] { AtAStore(); }));
  }

  void AtAStore() {
    if (!store_ || !one_call_ || --*store_ != 0) return;
    Begin();
  }

  // In a thread of its own, as the operation that is under way has to end first.  What is done
  // meanwhile is done by that thread: this one waits for it.
  void Begin() {
    store_.reset();
    applied_ = {};
    good_ = maker_.OneIn(4) ? static_cast<int>(maker_.Below(60)) : 1 << 30;
    making_ = std::thread([this] {
      const auto disk = pkram::OpenDisk(image_);
      pkram::FailingDisk failing(disk->get(), good_);
      made_ = checkpoints_->Make(
          mounted_->region(),
          [this](const std::function<void()>& fn) {
            mounted_->fs()->AtRest(fn);
            applied_.get_future().wait();
            moment_ = ViewOf(root_);
          },
          image_, &failing,
          [this](uint64_t, uint64_t) {
            for (uint64_t i = maker_.Below(3); i > 0 && fault_.empty(); --i) {
              ++counts_->meanwhile;
              One();
            }
            return true;
          });
    });
  }

  // Of which nothing is seen; to less than is in use it says that there is no space.
  Operation Resize() {
    const uint64_t pages = kRegionPages * 3 / 4 + maker_.Below(kRegionPages / 2);
    return {"resize to " + std::to_string(pages),
            [=](Filesystem& fs, const Context&) {
              return fs.Resize(pages, std::nullopt).ok() ? 0 : -int64_t{ENOSPC};
            },
            [](int64_t) {}};
  }

  void One() {
    const Operation operation = maker_.OneIn(60) ? Resize() : maker_.One();
    text_ = operation.text;
    one_call_ = operation.one_call;
    ++counts_->operations;
    const Context context{.uid = 0, .gid = 0, .now = {static_cast<int64_t>(1000 + clock_++), 7}};
    const int64_t done = operation.run(*mounted_->fs(), context);
    if (done >= 0) {
      operation.apply(done);
    } else if (done != -ENOSPC || operation.makes_space) {
      fault_ = "failed with errno " + std::to_string(-done);
    }
  }

  std::string Judge() {
    if (const std::string d = Differ(ViewOf(root_), ViewOf(mounted_->fs()), {}); !d.empty()) {
      return "the filesystem that goes on: " + d;
    }
    std::optional<View> found;
    if (std::filesystem::exists(image_)) {
      found = Restored();
      if (!found) return "the image cannot be restored";
    }
    const std::string difference = found ? Differ(moment_, *found, {}) : "there is none";
    if (made_.ok()) {
      ++counts_->checkpoints;
      if (made_->written < made_->pages) ++counts_->changes;
      counts_->aside += made_->aside;
      if (!difference.empty()) return "the image is not of its moment: " + difference;
    } else {
      ++counts_->failed;
      if (!absl::IsResourceExhausted(made_.status())) return made_.status().ToString();
      const bool is_last = found ? last_ && Differ(*last_, *found, {}).empty() : !last_;
      if (!is_last && !difference.empty()) {
        return "the image is neither the last one nor the new one: " + difference;
      }
    }
    last_ = found;
    return "";
  }

  std::optional<View> Restored() const {
    const auto image = pkram::Image::Open(image_);
    if (!image.ok()) return std::nullopt;
    MemoryFile file;
    const auto backing = file.Reopen();
    if (!pkram::Restore(**image, backing.get(), [](uint64_t, uint64_t) { return true; }).ok()) {
      return std::nullopt;
    }
    FsCheck check;
    if (pkram::UsedPages(file, &check) < 0) return std::nullopt;
    const Mounted mounted(file);
    return mounted.fs() == nullptr ? std::nullopt : std::optional(ViewOf(mounted.fs()));
  }

  const NodePtr root_;
  OperationMaker maker_;
  Counts* const counts_;
  MemoryFile file_;
  std::string dir_, image_;
  std::unique_ptr<pkram::Checkpoints> checkpoints_;
  std::unique_ptr<Mounted> mounted_;
  std::string text_, fault_;
  uint64_t clock_ = 0;
  // How many stores there are until a checkpoint begins, of operations that it cannot cut in two.
  std::optional<uint64_t> store_;
  bool one_call_ = true;
  int good_ = 0;  // as many calls to the disk do not fail
  std::thread making_;
  std::promise<void> applied_;  // the model has the operation, too
  absl::StatusOr<pkram::Checkpoints::Made> made_ = absl::UnknownError("");
  View moment_;
  std::optional<View> last_;
};

int Main(int argc, char** argv) {
  CommandLine line("checkpoint_sequences",
                   "Random operations while checkpoints are made, compared with a model.");
  uint64_t seed = 1, sequences = 1, operations = 1000;
  line.Option("--seed", &seed, "Of the first sequence");
  line.Option("--sequences", &sequences, "How many");
  line.Option("--operations", &operations, "Of each");
  if (const auto status = line.Parse(argc, argv)) return *status;
  Counts counts;
  for (uint64_t i = 0; i < sequences; ++i) {
    const std::string fault = Sequence(seed + i, &counts).Run(operations);
    if (!fault.empty() || testing::Test::HasFailure()) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed + i), fault.c_str());
      return 1;
    }
  }
  const auto count = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf(
      "%llu operations, %llu of them while a checkpoint was made; %llu checkpoints, %llu of them "
      "changes of the last one, %llu pages copied aside; %llu failed\n",
      count(counts.operations), count(counts.meanwhile), count(counts.checkpoints),
      count(counts.changes), count(counts.aside), count(counts.failed));
  return counts.changes > 0 && counts.failed > 0 && counts.aside > 0 ? 0 : 1;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  testing::InitGoogleTest();
  return pkramfs::Main(argc, argv);
}
