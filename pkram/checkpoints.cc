#include "pkram/checkpoints.h"

#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkram {

absl::StatusOr<Checkpoints::Made> Checkpoints::Make(Region* region, const AtRest& at_rest,
                                                    Disk* disk, const Progress& progress) {
  if (making_.exchange(true)) {
    return absl::UnavailableError("another checkpoint is being made: wait for it");
  }
  struct Ends {
    std::atomic<bool>* making;
    ~Ends() { *making = false; }
  } const ends{&making_};
  const auto from = std::chrono::steady_clock::now();
  Made made;
  uint64_t pages = 0, of = 0;
  time_t moment = 0;
  at_rest([&] {
    pages = region->super().page_count;
    moment = std::time(nullptr);
    const Bitmap in_use = region->space().InUse();
    snapshots_.Begin(region->mapping(), in_use, Snapshots::Take::kAll);
  });
  made.rest = std::chrono::steady_clock::now() - from;
  of = region->space().counts().InUse();
  absl::StatusOr<std::unique_ptr<ImageWriter>> writer =
      ImageWriter::Begin(disk, pages, region->super().uuid, static_cast<uint64_t>(moment));
  if (!writer.ok()) {
    snapshots_.Cancel();
    return writer.status();
  }
  const absl::Status streamed =
      snapshots_.Stream([&](Pfn first, absl::Span<const std::byte> bytes) -> absl::Status {
        made.pages += bytes.size() / kPageSize;
        if (!progress(made.pages, of)) return absl::CancelledError("it was interrupted");
        return (*writer)->Add(first, bytes);
      });
  if (!streamed.ok()) return streamed;
  if (absl::Status s = (*writer)->Commit(); !s.ok()) return s;
  const Snapshots::Counts counts = snapshots_.counts();
  made.aside = counts.aside;
  made.waits = counts.waits;
  made.all = std::chrono::steady_clock::now() - from;
  return made;
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
