// A list of links under construction: nothing reaches it yet.
#ifndef PKRAM_LINK_BUILDER_H_
#define PKRAM_LINK_BUILDER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/region.h"
#include "pkram/space.h"
#include "pkram/types.h"

namespace pkram {

class LinkBuilder {
 public:
  explicit LinkBuilder(Region* region, Urgency urgency = Urgency::kNormal)
      : region_(region), urgency_(urgency) {}
  ~LinkBuilder() { Discard(); }
  LinkBuilder(const LinkBuilder&) = delete;
  LinkBuilder& operator=(const LinkBuilder&) = delete;

  // Appends an entry.  A jump of the index, or a full link, starts the next link.  After
  // RESOURCE_EXHAUSTED the page still belongs to the caller.
  absl::Status Append(uint64_t index, uint64_t entry);
  // The same with a new page that holds `bytes`, at most a page of them.
  absl::Status AppendFilledPage(uint64_t index, std::string_view bytes);

  // Chains the links, with `tail` behind them.  Returns the entry of the first link, or `tail` if
  // there is none.  Adds the pages that were built to `built`: the caller makes them reachable, or
  // frees them.
  uint64_t Finish(std::vector<PageRun>* built, uint64_t tail = 0);

  // The links alone, in the order in which they were made.
  std::vector<Pfn> TakeLinks();
  // Chains links that nothing reaches.
  static uint64_t Chain(Region* region, const std::vector<Pfn>& links, uint64_t tail = 0);

  // Frees what was built.
  void Discard();

 private:
  Region* const region_;
  const Urgency urgency_;
  std::vector<Pfn> links_;
  std::vector<Pfn> pages_;  // made by AppendFilledPage
  uint64_t used_ = 0;       // entries of the last link
  uint64_t next_index_ = 0;
};

// Builds a byte stream of metadata.  Returns the entry of its first link, and adds the pages that
// were built to `built`.  RESOURCE_EXHAUSTED.
absl::StatusOr<uint64_t> BuildBytes(Region* region, std::string_view bytes, Urgency urgency,
                                    std::vector<PageRun>* built);

}  // namespace pkram

#endif  // PKRAM_LINK_BUILDER_H_
