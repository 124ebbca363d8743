#include "pkram/watch.h"

#include <utility>

namespace pkram {
namespace {

class WatchedBacking final : public Backing {
 public:
  WatchedBacking(std::unique_ptr<Backing> below, Watch* watch)
      : Backing(below->name()), below_(std::move(below)), watch_(watch) {}

  int fd() const override { return below_->fd(); }
  absl::StatusOr<uint64_t> Size() const override { return below_->Size(); }
  std::optional<uint64_t> device_pages() const override { return below_->device_pages(); }
  absl::Status Lock(bool exclusive) override { return below_->Lock(exclusive); }
  absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) override {
    return below_->Map(pages, writable);
  }
  // What the pages hold stays.
  absl::Status Reserve(PageRun run) override { return below_->Reserve(run); }

  absl::Status Read(uint64_t offset, absl::Span<char> bytes) override {
    return below_->Read(offset, bytes);
  }
  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    uint64_t end = offset;
    for (const iovec& v : bytes) end += v.iov_len;
    const Pfn first(offset >> kPageShift);
    watch_->BeforeChange({first, PagesFor(end) - first.value()});
    return below_->Write(offset, bytes);
  }
  absl::Status FillZeros(PageRun run) override {
    watch_->BeforeChange(run);
    return below_->FillZeros(run);
  }
  std::optional<uint64_t> held_pages() const override { return below_->held_pages(); }
  bool HoldsMoreThan(uint64_t pages) const override { return below_->HoldsMoreThan(pages); }
  void GiveBack(PageRun run) override {
    watch_->BeforeChange(run);
    below_->GiveBack(run);
  }
  void ShrinkTo(uint64_t pages) override {
    if (const absl::StatusOr<uint64_t> size = Size(); size.ok() && PagesFor(*size) > pages) {
      watch_->BeforeChange({Pfn(pages), PagesFor(*size) - pages});
    }
    below_->ShrinkTo(pages);
  }

 private:
  const std::unique_ptr<Backing> below_;
  Watch* const watch_;
};

}  // namespace

std::unique_ptr<Backing> Watched(std::unique_ptr<Backing> below, Watch* watch) {
  return std::make_unique<WatchedBacking>(std::move(below), watch);
}

}  // namespace pkram
