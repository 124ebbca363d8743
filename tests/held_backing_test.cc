// Regions whose file the kernel holds for a kexec: its size stays, and all its pages exist.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>

#include "pkram/backing_kinds.h"
#include "pkram/descriptor.h"
#include "tests/region_fixture.h"

namespace pkram {
namespace {

// Does what Linux does to a memfd that is preserved.
class HeldBacking : public ForwardingBacking {
 public:
  HeldBacking(std::unique_ptr<Backing> below, const bool* is_held)
      : ForwardingBacking(std::move(below)), is_held_(*is_held) {}

  std::optional<uint64_t> held_pages() const override {
    return is_held_ ? std::optional(PagesFor(Size().value())) : std::nullopt;
  }
  absl::Status Reserve(PageRun run) override {
    return Fits(run) ? below().Reserve(run) : IoStatus(name(), "fallocate", EPERM);
  }
  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    uint64_t end = offset;
    for (const iovec& v : bytes) end += v.iov_len;
    return is_held_ && end > Size().value() ? IoStatus(name(), "write", EPERM)
                                            : below().Write(offset, bytes);
  }
  absl::Status FillZeros(PageRun run) override {
    return Fits(run) ? below().FillZeros(run) : IoStatus(name(), "write", EPERM);
  }
  void GiveBack(PageRun run) override {
    if (!is_held_) below().GiveBack(run);
  }
  void ShrinkTo(uint64_t pages) override {
    if (!is_held_) below().ShrinkTo(pages);
  }

 private:
  bool Fits(PageRun run) const {
    return !is_held_ || run.first.value() + run.count <= PagesFor(Size().value());
  }
  const bool& is_held_;
};

class HeldBackingTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 16384;
  void SetUp() override {
    file_.wrap = [this](std::unique_ptr<Backing> backing) {
      return std::make_unique<HeldBacking>(std::move(backing), &is_held_);
    };
    FormatRegion(&file_, kPages);
    Open();
  }
  void Open() {
    region_.reset();
    region_ = OpenRegion(file_).value();
  }
  Space& space() { return region_->space(); }
  absl::Status Fill(PageRun run) {
    const std::string bytes(run.count * kPageSize, 'x');
    const iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
    return region_->Fill(run.first.offset(), {&iov, 1});
  }
  // How many pages can be filled, one at a time.
  uint64_t FillAll() {
    uint64_t filled = 0;
    for (;; ++filled) {
      const absl::StatusOr<PageRun> run = space().AllocateData(1, Pfn());
      if (!run.ok() || !Fill(*run).ok()) return filled;
    }
  }

  bool is_held_ = false;
  MemoryFile file_;
  std::unique_ptr<Region> region_;
};

TEST_F(HeldBackingTest, AllPagesOfTheFileCanBeUsedAndNoOther) {
  PageRun some = space().AllocateData(1000, Pfn()).value();
  ASSERT_TRUE(Fill(some).ok());
  space().Discard({some.first, some.count - 10});
  is_held_ = true;
  EXPECT_TRUE(space().FollowBacking());
  EXPECT_FALSE(space().FollowBacking());
  const uint64_t pages = PagesFor(file_.size());
  ASSERT_LT(pages, kPages / 2);
  EXPECT_EQ(space().counts().total, pages);
  const uint64_t free = space().counts().free;
  EXPECT_GE(free, some.count - 10);
  EXPECT_EQ(FillAll(), free);
  EXPECT_EQ(PagesFor(file_.size()), pages);
  EXPECT_TRUE(absl::IsResourceExhausted(space().AllocateMetadata().status()));
  EXPECT_TRUE(space().AllocateMetadata(Urgency::kMakesSpace).ok());
  // And then all of the region's.
  is_held_ = false;
  EXPECT_GT(FillAll(), kPages / 2);
}

// Whoever holds it may not say so.
TEST_F(HeldBackingTest, ItIsFoundOutWhenAPageCannotExist) {
  ASSERT_TRUE(Fill(space().AllocateData(600, Pfn()).value()).ok());
  is_held_ = true;
  const uint64_t pages = PagesFor(file_.size());
  // Of this kind of page there may be none in the file yet.
  while (space().AllocateMetadata().ok()) continue;
  EXPECT_EQ(space().counts().total, pages);
  EXPECT_EQ(space().counts().free, 0u);
  is_held_ = false;
  EXPECT_TRUE(space().AllocateMetadata().ok());
  EXPECT_EQ(space().counts().total, kPages);
}

TEST_F(HeldBackingTest, ItIsOpenedAndResizedMeanwhile) {
  ASSERT_TRUE(Fill(space().AllocateData(600, Pfn()).value()).ok());
  is_held_ = true;
  const uint64_t pages = PagesFor(file_.size());
  Open();
  EXPECT_EQ(space().counts().total, pages);
  FillAll();
  ASSERT_TRUE(region_->Resize(kPages / 2).ok());
  EXPECT_EQ(space().counts().total, pages);
  ASSERT_TRUE(region_->Resize(kPages).ok());
  EXPECT_EQ(space().counts().total, pages);
  EXPECT_TRUE(space().AllocateMetadata(Urgency::kMakesSpace).ok());
  is_held_ = false;
  Open();
  EXPECT_EQ(space().counts().total, kPages);
}

// A page that a write had taken when it failed is free again, and behind the end.
TEST_F(HeldBackingTest, APageBehindTheEndIsGivenOutOnce) {
  const PageRun some = space().AllocateData(600, Pfn()).value();
  ASSERT_TRUE(Fill(some).ok());
  space().Discard({some.first, some.count - 10});
  is_held_ = true;
  const uint64_t pages = PagesFor(file_.size());
  const PageRun behind = space().AllocateData(1, Pfn(pages + 1)).value();
  ASSERT_GE(behind.first.value(), pages);
  EXPECT_FALSE(Fill(behind).ok());
  EXPECT_TRUE(space().FollowBacking());
  space().Discard(behind);
  EXPECT_EQ(space().counts().total, pages);
  const uint64_t free = space().counts().free;
  EXPECT_GE(free, some.count - 10);
  uint64_t filled = 0;
  for (Pfn goal = some.first + some.count;; goal = goal + 1, ++filled) {
    const absl::StatusOr<PageRun> run = space().AllocateData(1, goal);
    if (!run.ok()) break;
    ASSERT_TRUE(Fill(*run).ok()) << run->first.value();
    goal = run->first;
  }
  EXPECT_EQ(filled, free);
}

// What the kernel answers to a file whose size is sealed is what it answers to a preserved one.
TEST(SealedFileTest, PagesThatExistAreReserved) {
  const Descriptor fd(memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(fallocate(fd.get(), 0, 0, 16 * kPageSize), 0);
  ASSERT_EQ(
      fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * kPageSize, 2 * kPageSize),
      0);
  ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK), 0);
  const std::unique_ptr<Backing> backing = OpenFdBacking(fd.get()).value();
  EXPECT_TRUE(backing->Reserve({Pfn(0), 8}).ok());
  const absl::Status beyond = backing->Reserve({Pfn(15), 2});
  EXPECT_TRUE(absl::IsResourceExhausted(beyond)) << beyond;
  const iovec page{const_cast<char*>("x"), 1};
  EXPECT_TRUE(backing->Write(15 * kPageSize, {&page, 1}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(backing->Write(16 * kPageSize, {&page, 1})));
  EXPECT_EQ(backing->held_pages(), std::nullopt);  // pages may become holes
}

}  // namespace
}  // namespace pkram
