#include "pkram/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/checksum.h"
#include "pkram/image_bytes.h"
#include "pkram/place.h"

namespace pkram {
namespace {

using format::ImageFooter;

// In pages.
constexpr uint64_t kAhead = 8192;

bool ReadAll(int fd, void* to, size_t size, uint64_t offset) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t n = pread(fd, at, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    offset += static_cast<uint64_t>(n);
    size -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

uint64_t NewImageId() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

// --- Writing --------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<ImageWriter>> ImageWriter::Begin(Disk* disk, uint64_t pages,
                                                                const uint8_t (&uuid)[16],
                                                                uint64_t seconds) {
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Create(kNewImage);
  if (!file.ok()) return file.status();
  std::unique_ptr<ImageWriter> writer(new ImageWriter(disk, *std::move(file), pages));
  ImageFooter& footer = writer->footer_;
  footer.magic = format::kImageMagic;
  footer.version = format::kImageVersion;
  footer.pages = pages;
  footer.seconds = seconds;
  footer.id = NewImageId();
  std::memcpy(footer.uuid, uuid, sizeof(footer.uuid));
  return writer;
}

ImageWriter::~ImageWriter() {
  if (is_committed_) return;
  file_.reset();
  disk_->Remove(kNewImage);
}

absl::Status ImageWriter::Add(Pfn first, absl::Span<const std::byte> bytes) {
  const uint64_t count = bytes.size() / kPageSize;
  if (first.value() + count > checksums_.size()) {
    return absl::InternalError(
        absl::StrCat("page ", first.value() + count - 1, " is beyond the image"));
  }
  for (uint64_t i = 0; i < count; ++i) {
    checksums_[first.value() + i] = PageChecksum(bytes.data() + i * kPageSize);
  }
  footer_.pages_in_use += count;
  return file_->Write(first.offset(), bytes);
}

absl::Status ImageWriter::Commit() {
  const size_t size = checksums_.size() * sizeof(uint32_t);
  const uint64_t at = checksums_.size() * kPageSize;
  footer_.checksum_of_checksums = Crc32c(checksums_.data(), size);
  footer_.checksum = OwnChecksum(footer_);
  if (absl::Status s = file_->Write(at, AsBytes(checksums_.data(), size)); !s.ok()) return s;
  const uint64_t last = at + ChecksumPages(checksums_.size()) * kPageSize;
  std::byte page[kPageSize] = {};
  std::memcpy(page, &footer_, sizeof(footer_));
  if (absl::Status s = file_->Write(last, page); !s.ok()) return s;
  if (absl::Status s = file_->Sync(); !s.ok()) return s;
  if (absl::Status s = disk_->Rename(kNewImage, ""); !s.ok()) return s;
  is_committed_ = true;
  if (absl::Status s = disk_->SyncNames(); !s.ok()) return s;
  disk_->Remove(kDelta);  // of another image
  return absl::OkStatus();
}

// --- Reading --------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<Image>> Image::Open(const std::string& path) {
  // A checkpoint may change the image between two reads.
  constexpr int kTries = 3;
  for (int i = 1;; ++i) {
    absl::StatusOr<std::unique_ptr<Image>> image = OpenOnce(path);
    if (!absl::IsDataLoss(image.status()) || i == kTries) return image;
  }
}

absl::StatusOr<std::unique_ptr<Image>> Image::OpenOnce(const std::string& path) {
  const absl::StatusOr<Place> place = FindPlace(path);
  if (!place.ok()) return place.status();
  const int fd = OpenPlace(*place, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return OpenStatus(path, errno);
  std::unique_ptr<Image> image(new Image(fd, path));
  struct stat st;
  ImageFooter& footer = image->footer_;
  const auto none = [&](const char* why) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not an image of a region: ", why));
  };
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return none("no file");
  const auto bytes = static_cast<uint64_t>(st.st_size);
  if (bytes < 2 * kPageSize || bytes % kPageSize != 0 ||
      !ReadAll(fd, &footer, sizeof(footer), bytes - kPageSize) ||
      footer.magic != format::kImageMagic) {
    return none("it does not end with a footer (it was cut off, or has been mounted for writing)");
  }
  if (absl::Status s = CheckOwner(path, st); !s.ok()) return s;
  if (footer.version != format::kImageVersion) {
    return absl::UnimplementedError(absl::StrCat(path, ": an image of format ", footer.version,
                                                 ", and this program knows ",
                                                 format::kImageVersion));
  }
  const auto damaged = [&](const char* what) {
    return absl::DataLossError(absl::StrCat(path, ": ", what, " is damaged"));
  };
  image->found_ = footer.id;
  const bool has_footer = footer.checksum == OwnChecksum(footer);
  if (!image->ReadDelta(has_footer) && !has_footer) return damaged("its footer");
  if (footer.pages > format::kMaxPages ||
      (footer.pages + ChecksumPages(footer.pages) + 1) * kPageSize != bytes) {
    return damaged("its footer");
  }
  image->checksums_.resize(footer.pages);
  const size_t size = footer.pages * sizeof(uint32_t);
  const bool is_read = ReadAll(fd, image->checksums_.data(), size, footer.pages * kPageSize);
  for (const format::DeltaEntry& entry : image->entries_) {
    if (entry.pfn >= footer.pages) return damaged("its delta");
    image->checksums_[entry.pfn] = entry.checksum;
  }
  if (!is_read || Crc32c(image->checksums_.data(), size) != footer.checksum_of_checksums) {
    return damaged("the list of its checksums");
  }
  return image;
}

// Reads the delta.  A delta that is not whole, or not of this image, is ignored: if it was written
// to the image in part, checksums tell.  True when the delta is a part of the image.
bool Image::ReadDelta(bool has_footer) {
  delta_ = Descriptor(open((name_ + kDelta).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  format::DeltaHeader header;
  struct stat st;
  if (delta_.get() < 0 || fstat(delta_.get(), &st) != 0 ||
      !ReadAll(delta_.get(), &header, sizeof(header), 0) || header.magic != format::kDeltaMagic ||
      header.version != format::kDeltaVersion || header.checksum != OwnChecksum(header) ||
      header.footer.checksum != OwnChecksum(header.footer)) {
    return false;
  }
  rejected_ = header.footer.id;
  // The delta may have been written to the image in part, or all of it.
  const bool is_ours = std::memcmp(header.footer.uuid, footer_.uuid, sizeof(footer_.uuid)) == 0 &&
                       (!has_footer || footer_.id == header.base || footer_.id == header.footer.id);
  const auto bytes = static_cast<uint64_t>(st.st_size);
  const uint64_t at = (1 + header.pages) * kPageSize;
  if (!is_ours || header.pages > bytes / kPageSize || header.entries < header.pages ||
      header.entries > bytes / sizeof(format::DeltaEntry)) {
    return false;
  }
  std::vector<format::DeltaEntry> entries(header.entries);
  const size_t size = header.entries * sizeof(format::DeltaEntry);
  if (!ReadAll(delta_.get(), entries.data(), size, at) ||
      Crc32c(entries.data(), size) != header.checksum_of_entries) {
    return false;
  }
  rejected_ = 0;
  for (uint64_t i = 0; i < header.pages; ++i) in_delta_[entries[i].pfn] = (1 + i) * kPageSize;
  entries_ = std::move(entries);
  footer_ = header.footer;
  return true;
}

Image::~Image() { close(fd_); }

// Opens the delta before it reads the footer: once the delta is gone, the new footer is there.
bool Image::IsBeingChanged() const {
  const Descriptor delta(open((name_ + kDelta).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  format::DeltaHeader header;
  if (delta.get() >= 0 && ReadAll(delta.get(), &header, sizeof(header), 0) &&
      header.magic == format::kDeltaMagic && header.base == footer_.id &&
      header.footer.id != rejected_) {
    return true;
  }
  ImageFooter now;
  const uint64_t at = (footer_.pages + ChecksumPages(footer_.pages)) * kPageSize;
  return ReadAll(fd_, &now, sizeof(now), at) && now.id != footer_.id && now.id != found_;
}

absl::Status Image::ForEach(
    const std::function<absl::Status(Pfn, absl::Span<const std::byte>)>& visit,
    const std::function<absl::Status(Pfn)>& damaged) const {
  constexpr uint64_t kAtOnce = 256;
  std::vector<std::byte> bytes(kAtOnce * kPageSize);
  uint64_t asked = 0;
  for (uint64_t at = 0; at < checksums_.size();) {
    if (checksums_[at] == 0) {
      ++at;
      continue;
    }
    // The kernel reads some MiB ahead, several requests at a time.
    if (asked < at + kAhead / 2) {
      asked = std::max(asked, at);
      posix_fadvise(fd_, static_cast<off_t>(asked * kPageSize), kAhead * kPageSize,
                    POSIX_FADV_WILLNEED);
      asked += kAhead;
    }
    const auto moved = in_delta_.find(at);
    const bool is_moved = moved != in_delta_.end();
    uint64_t count = 1;
    while (!is_moved && count < kAtOnce && at + count < checksums_.size() &&
           checksums_[at + count] != 0 && !in_delta_.contains(at + count)) {
      ++count;
    }
    if (!ReadAll(is_moved ? delta_.get() : fd_, bytes.data(), count * kPageSize,
                 is_moved ? moved->second : at * kPageSize)) {
      return absl::InternalError(absl::StrCat(name_, ": read: ", std::strerror(errno)));
    }
    const auto is_right = [&](uint64_t i) {
      return PageChecksum(bytes.data() + i * kPageSize) == checksums_[at + i];
    };
    for (uint64_t i = 0; i < count;) {
      uint64_t end = i;
      while (end < count && is_right(end)) ++end;
      absl::Status s;
      if (end > i) s = visit(Pfn(at + i), {bytes.data() + i * kPageSize, (end - i) * kPageSize});
      if (s.ok() && end < count) {
        if (IsBeingChanged()) {
          return absl::UnavailableError(absl::StrCat(
              name_, ": a checkpoint is being written to it: try again when that is done"));
        }
        s = damaged(Pfn(at + end));
      }
      if (!s.ok()) return s;
      i = end + 1;
    }
    at += count;
  }
  return absl::OkStatus();
}

}  // namespace pkram
