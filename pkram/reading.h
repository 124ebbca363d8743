// A region as open and check see it, before anything in it is trusted: its super block, and its
// pages through its journal.
#ifndef PKRAM_READING_H_
#define PKRAM_READING_H_

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/backing.h"
#include "pkram/format.h"
#include "pkram/mapping.h"
#include "pkram/page_view.h"
#include "pkram/region.h"
#include "pkram/walk.h"

namespace pkram {

// A region as open and check see it: mapped, and through its journal.
struct Reading {
  std::unique_ptr<Mapping> mapping;
  std::unique_ptr<PageView> view;
  uint64_t committed_slots = 0;
  const format::SuperBlock& super() const { return *view->At<format::SuperBlock>(Pfn(0)); }
  // How many pages exist, which something in the region may own.  A hostile region may claim to be
  // much larger.
  uint64_t pages() const {
    return std::max(view->existing(), super().journal_first + super().journal_slots);
  }
};

// Errors as Region::Open's.
absl::StatusOr<Reading> ReadRegion(Backing* backing, const Region::OpenOptions& options);

// The same for a region whose super block or journal is damaged, for salvage.  Damaged journal
// slots are left out.  If the super block is damaged, the region counts as large as its file.
absl::StatusOr<Reading> ReadDamagedRegion(Backing* backing, std::vector<Problem>* problems);

// The page of the super block.
absl::StatusOr<std::unique_ptr<Mapping>> MapFirst(Backing* backing);

// Super block and journal, as far as they exist.
PageRun Head(const format::SuperBlock& super, uint64_t existing);

uint32_t SuperChecksum(const format::SuperBlock& super);

// DATA_LOSS, naming the page and what is wrong with it.
absl::Status DamagedPage(const std::string& name, uint64_t page, const std::string& what);

// OUT_OF_RANGE if the backing is a device that has fewer pages.
absl::Status BeyondDevice(const Backing& backing, uint64_t pages);

}  // namespace pkram

#endif  // PKRAM_READING_H_
