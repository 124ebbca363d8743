#include "pkram/delta.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/image_bytes.h"

namespace pkram {

absl::StatusOr<std::unique_ptr<DeltaWriter>> DeltaWriter::Begin(Disk* disk, const Image& base,
                                                                uint64_t seconds) {
  if (base.has_delta()) {
    return absl::FailedPreconditionError(
        absl::StrCat(base.name(), ": the change before has not been written to it"));
  }
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Create(kNewDelta);
  if (!file.ok()) return file.status();
  std::unique_ptr<DeltaWriter> writer(new DeltaWriter(disk, *std::move(file)));
  format::DeltaHeader& header = writer->header_;
  header.magic = format::kDeltaMagic;
  header.version = format::kDeltaVersion;
  header.base = base.footer().id;
  header.footer = base.footer();
  header.footer.seconds = seconds;
  header.footer.id = NewImageId();
  writer->checksums_.assign(base.checksums().begin(), base.checksums().end());
  return writer;
}

DeltaWriter::~DeltaWriter() {
  if (is_committed_) return;
  file_.reset();
  disk_->Remove(kNewDelta);
}

absl::Status DeltaWriter::Add(Pfn first, absl::Span<const std::byte> bytes) {
  const uint64_t count = bytes.size() / kPageSize;
  if (first.value() + count > checksums_.size()) {
    return absl::InternalError(
        absl::StrCat("page ", first.value() + count - 1, " is beyond the image"));
  }
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t pfn = first.value() + i;
    checksums_[pfn] = PageChecksum(bytes.data() + i * kPageSize);
    entries_.push_back({pfn, checksums_[pfn], 0});
  }
  const uint64_t at = (1 + header_.pages) * kPageSize;
  header_.pages += count;
  return file_->Write(at, bytes);
}

absl::Status DeltaWriter::Commit(const Bitmap& in_use) {
  for (uint64_t pfn = 0; pfn < checksums_.size(); ++pfn) {
    if (checksums_[pfn] == 0 || (pfn < in_use.size() && in_use.Test(pfn))) continue;
    checksums_[pfn] = 0;
    entries_.push_back({pfn, 0, 0});
  }
  format::ImageFooter& footer = header_.footer;
  footer.pages_in_use =
      checksums_.size() - static_cast<uint64_t>(std::ranges::count(checksums_, uint32_t{0}));
  footer.checksum_of_checksums = Crc32c(checksums_.data(), checksums_.size() * sizeof(uint32_t));
  footer.checksum = OwnChecksum(footer);
  const auto entries = AsBytes(entries_.data(), entries_.size() * sizeof(format::DeltaEntry));
  header_.entries = entries_.size();
  header_.checksum_of_entries = Crc32c(entries.data(), entries.size());
  header_.checksum = OwnChecksum(header_);
  if (absl::Status s = file_->Write((1 + header_.pages) * kPageSize, entries); !s.ok()) return s;
  if (absl::Status s = file_->Write(0, AsBytes(&header_, sizeof(header_))); !s.ok()) return s;
  if (absl::Status s = file_->Sync(); !s.ok()) return s;
  if (absl::Status s = disk_->Rename(kNewDelta, kDelta); !s.ok()) return s;
  is_committed_ = true;
  if (absl::Status s = disk_->SyncNames(); !s.ok()) return s;
  return Apply();
}

// Whenever this process dies here, the delta stays until all of it is in the image.
absl::Status DeltaWriter::Apply() {
  absl::StatusOr<std::unique_ptr<DiskFile>> image = disk_->Open("");
  if (!image.ok()) return image.status();
  constexpr uint64_t kAtOnce = 256;
  std::vector<std::byte> bytes(kAtOnce * kPageSize);
  for (uint64_t i = 0; i < header_.pages;) {
    // Pages that follow one another are written together.
    uint64_t count = 1;
    while (count < kAtOnce && i + count < header_.pages &&
           entries_[i + count].pfn == entries_[i].pfn + count) {
      ++count;
    }
    const absl::Span<std::byte> piece(bytes.data(), count * kPageSize);
    if (absl::Status s = file_->Read((1 + i) * kPageSize, piece); !s.ok()) return s;
    if (absl::Status s = (*image)->Write(entries_[i].pfn * kPageSize, piece); !s.ok()) return s;
    i += count;
  }
  // The entries behind these are of pages that are not in the image any more.
  for (uint64_t i = header_.pages; i < entries_.size();) {
    uint64_t count = 1;
    while (i + count < entries_.size() && entries_[i + count].pfn == entries_[i].pfn + count) {
      ++count;
    }
    (*image)->GiveBack(entries_[i].pfn * kPageSize, count * kPageSize);
    i += count;
  }
  // Writes the pages of the list of checksums that have changed.
  constexpr uint64_t kInPage = kPageSize / sizeof(uint32_t);
  std::vector<uint64_t> pages;
  for (const format::DeltaEntry& entry : entries_) pages.push_back(entry.pfn / kInPage);
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  const uint64_t list = checksums_.size() * kPageSize;
  for (const uint64_t page : pages) {
    const uint64_t count = std::min(kInPage, checksums_.size() - page * kInPage);
    const auto part = AsBytes(&checksums_[page * kInPage], count * sizeof(uint32_t));
    if (absl::Status s = (*image)->Write(list + page * kPageSize, part); !s.ok()) return s;
  }
  const uint64_t last = list + ChecksumPages(checksums_.size()) * kPageSize;
  const auto footer = AsBytes(&header_.footer, sizeof(header_.footer));
  if (absl::Status s = (*image)->Write(last, footer); !s.ok()) return s;
  if (absl::Status s = (*image)->Sync(); !s.ok()) return s;
  disk_->Remove(kDelta);
  return disk_->SyncNames();
}

}  // namespace pkram
