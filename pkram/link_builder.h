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

  // Appends an entry; a jump of the index or a full link starts the next link.
  // RESOURCE_EXHAUSTED.  The page stays the caller's.
  absl::Status Append(uint64_t index, uint64_t entry);
  // The same with a new page that holds `bytes`, at most a page of them.
  absl::Status AppendFilledPage(uint64_t index, std::string_view bytes);

  // Chains the links, `tail` behind them: the entry of the first one, or `tail`.  What
  // was built is the caller's to make reachable, or to discard: it is added to `built`.
  uint64_t Finish(std::vector<PageRun>* built, uint64_t tail = 0);

  // The links alone, in the order of their making.
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

// A byte stream of metadata: the entry of its first link.  What was built goes to `built`.
// RESOURCE_EXHAUSTED.
absl::StatusOr<uint64_t> BuildBytes(Region* region, std::string_view bytes, Urgency urgency,
                                    std::vector<PageRun>* built);

}  // namespace pkram

#endif  // PKRAM_LINK_BUILDER_H_
