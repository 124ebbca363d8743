#include "pkram/checkpoints.h"

#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/delta.h"

namespace pkram {

absl::StatusOr<Checkpoints::Made> Checkpoints::Make(Region* region, const AtRest& at_rest,
                                                    const std::string& path, Disk* disk,
                                                    const Progress& progress) {
  if (making_.exchange(true)) {
    return absl::UnavailableError("another checkpoint is being made: wait for it");
  }
  struct Ends {
    std::atomic<bool>* making;
    ~Ends() { *making = false; }
  } const ends{&making_};
  const auto from = std::chrono::steady_clock::now();
  const std::unique_ptr<Image> base = BaseAt(path, region->super().page_count);
  const auto before = std::chrono::steady_clock::now();
  Made made;
  uint64_t pages = 0, of = 0;
  time_t moment = 0;
  Bitmap in_use(0);
  at_rest([&] {
    pages = region->super().page_count;
    moment = std::time(nullptr);
    in_use = region->space().InUse();
    const bool adds = base != nullptr && base->footer().pages == pages;
    of = snapshots_.Begin(region->mapping(), in_use,
                          adds ? Snapshots::Take::kChanged : Snapshots::Take::kAll);
  });
  made.rest = std::chrono::steady_clock::now() - before;
  const auto stream = [&](auto* writer) {
    return snapshots_.Stream([&](Pfn first, absl::Span<const std::byte> bytes) -> absl::Status {
      made.written += bytes.size() / kPageSize;
      if (!progress(made.written, of)) return absl::CancelledError("it was interrupted");
      return writer->Add(first, bytes);
    });
  };
  absl::Status done;
  format::ImageFooter footer{};
  const auto seconds = static_cast<uint64_t>(moment);
  if (base != nullptr && base->footer().pages == pages) {
    const auto writer = DeltaWriter::Begin(disk, *base, seconds);
    done = writer.ok() ? stream(writer->get()) : writer.status();
    if (done.ok()) done = (*writer)->Commit(in_use);
    if (writer.ok()) footer = (*writer)->footer();
  } else {
    const auto writer = ImageWriter::Begin(disk, pages, region->super().uuid, seconds);
    done = writer.ok() ? stream(writer->get()) : writer.status();
    if (done.ok()) done = (*writer)->Commit();
    if (writer.ok()) footer = (*writer)->footer();
  }
  snapshots_.Cancel();
  if (!done.ok()) return done;
  last_ = footer.id;
  snapshots_.Settle();
  const Snapshots::Counts counts = snapshots_.counts();
  made.pages = footer.pages_in_use;
  made.aside = counts.aside;
  made.waits = counts.waits;
  made.all = std::chrono::steady_clock::now() - from;
  return made;
}

// The image that the next one is a change of; null when it must be written whole.
std::unique_ptr<Image> Checkpoints::BaseAt(const std::string& path, uint64_t pages) const {
  if (last_ == 0) return nullptr;
  absl::StatusOr<std::unique_ptr<Image>> image = Image::Open(path);
  if (!image.ok() || (*image)->footer().id != last_ || (*image)->footer().pages != pages ||
      (*image)->has_delta()) {
    return nullptr;
  }
  return *std::move(image);
}

absl::Status MayReplace(const std::string& path, const uint8_t (&uuid)[16]) {
  const absl::StatusOr<std::unique_ptr<Image>> there = Image::Open(path);
  if (absl::IsNotFound(there.status())) return absl::OkStatus();
  if (!there.ok()) {
    return absl::Status(there.status().code(), absl::StrCat(std::string(there.status().message()),
                                                            ": choose another name, or delete it"));
  }
  if (std::memcmp((*there)->footer().uuid, uuid, sizeof(uuid)) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": an image of another filesystem: choose another name, or delete it"));
}

absl::Status Restore(const Image& image, Backing* backing, const Progress& progress) {
  const std::optional<uint64_t> device = backing->device_pages();
  if (device && image.footer().pages > *device) {
    return absl::OutOfRangeError(absl::StrCat(image.name(), ": of a region of ",
                                              image.footer().pages, " pages, and ", backing->name(),
                                              " has ", *device));
  }
  // What decides comes last.
  std::byte first[kPageSize] = {};
  std::memcpy(first, &format::kRestoring, sizeof(format::kRestoring));
  const auto write = [backing](Pfn pfn, const std::byte* page) {
    const iovec iov{const_cast<std::byte*>(page), kPageSize};
    return backing->Fill(pfn.offset(), {&iov, 1});
  };
  if (absl::Status s = write(Pfn(0), first); !s.ok()) return s;
  uint64_t done = 0;
  const absl::Status read = image.ForEach(
      [&](Pfn pfn, absl::Span<const std::byte> bytes) -> absl::Status {
        if (!progress(++done, image.footer().pages_in_use)) {
          return absl::CancelledError("it was interrupted");
        }
        if (pfn != Pfn(0)) return write(pfn, bytes.data());
        std::memcpy(first, bytes.data(), kPageSize);
        return absl::OkStatus();
      },
      [&](Pfn pfn) -> absl::Status {
        return absl::DataLossError(
            absl::StrCat(image.name(), ": page ", pfn.value(),
                         " is damaged: `pkramctl check` shows all that is, and of what"));
      });
  if (!read.ok()) return read;
  return write(Pfn(0), first);
}

}  // namespace pkram
