#include "pkram/checkpoints.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/backing_kinds.h"
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
  const absl::StatusOr<std::unique_ptr<Image>> there = ImageToReplace(path, region->super().uuid);
  if (!there.ok()) return there.status();
  // A delta needs the image that was made last, with all pages in their places.
  const Image* base = there->get();
  if (base != nullptr && (base->footer().id != last_ || base->has_delta())) base = nullptr;
  const auto before = std::chrono::steady_clock::now();
  Made made;
  uint64_t pages = 0, of = 0;
  time_t moment = 0;
  Bitmap in_use(0);
  at_rest([&] {
    pages = region->super().page_count;
    moment = std::time(nullptr);
    in_use = region->space().InUse();
    if (base != nullptr && base->footer().pages != pages) base = nullptr;
    of = snapshots_.Begin(region->mapping(), in_use,
                          base != nullptr ? Snapshots::Take::kChanged : Snapshots::Take::kAll);
  });
  made.rest = std::chrono::steady_clock::now() - before;
  format::ImageFooter footer{};
  const auto write = [&](auto writer, auto commit) {
    if (!writer.ok()) return writer.status();
    absl::Status s = snapshots_.Stream([&](Pfn first, absl::Span<const std::byte> bytes) {
      made.written += bytes.size() / kPageSize;
      if (!progress(made.written, of)) return absl::CancelledError("it was interrupted");
      return (*writer)->Add(first, bytes);
    });
    if (s.ok()) s = commit(writer->get());
    footer = (*writer)->footer();
    return s;
  };
  const auto seconds = static_cast<uint64_t>(moment);
  absl::Status done = disk->RoomFor(of * kPageSize);
  if (done.ok() && base != nullptr) {
    done = write(DeltaWriter::Begin(disk, *base, seconds),
                 [&](DeltaWriter* writer) { return writer->Commit(in_use); });
  } else if (done.ok()) {
    done = write(ImageWriter::Begin(disk, pages, region->super().uuid, seconds),
                 [](ImageWriter* writer) { return writer->Commit(); });
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

absl::StatusOr<std::unique_ptr<Image>> ImageToReplace(const std::string& path,
                                                      const uint8_t (&uuid)[16]) {
  absl::StatusOr<std::unique_ptr<Image>> there = Image::Open(path);
  if (absl::IsNotFound(there.status())) return nullptr;
  if (!there.ok()) {
    return absl::Status(there.status().code(), absl::StrCat(std::string(there.status().message()),
                                                            ": choose another name, or delete it"));
  }
  if (std::memcmp((*there)->footer().uuid, uuid, sizeof(uuid)) == 0) return there;
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
  // The super block comes last: it decides whether there is a region.
  std::byte first[kPageSize] = {};
  std::memcpy(first, &format::kRestoring, sizeof(format::kRestoring));
  const auto write = [backing](Pfn pfn, absl::Span<const std::byte> pages) {
    if (pages.empty()) return absl::OkStatus();
    const iovec iov{const_cast<std::byte*>(pages.data()), pages.size()};
    return backing->Fill(pfn.offset(), {&iov, 1});
  };
  if (absl::Status s = write(Pfn(0), first); !s.ok()) return s;
  uint64_t done = 0;
  const absl::Status read = image.ForEach(
      [&](Pfn pfn, absl::Span<const std::byte> bytes) -> absl::Status {
        done += bytes.size() / kPageSize;
        if (!progress(done, image.footer().pages_in_use)) {
          return absl::CancelledError("it was interrupted");
        }
        if (pfn != Pfn(0)) return write(pfn, bytes);
        std::memcpy(first, bytes.data(), kPageSize);
        return write(pfn + 1, bytes.subspan(kPageSize));
      },
      [&](Pfn pfn) -> absl::Status {
        return absl::DataLossError(
            absl::StrCat(image.name(), ": page ", pfn.value(),
                         " is damaged: `pkramctl check` shows all that is, and of what"));
      });
  if (!read.ok()) return read;
  return write(Pfn(0), first);
}

absl::StatusOr<std::unique_ptr<Backing>> RestoreToMemory(const Image& image,
                                                         const Progress& progress) {
  const int fd = memfd_create("pkram-image", MFD_CLOEXEC);
  if (fd < 0) return IoStatus(image.name(), "memory for it", errno);
  std::unique_ptr<Backing> backing = MakeFileBacking(image.name(), fd);
  if (absl::Status s = backing->Lock(true); !s.ok()) return s;
  if (absl::Status s = Restore(image, backing.get(), progress); !s.ok()) return s;
  return backing;
}

}  // namespace pkram
