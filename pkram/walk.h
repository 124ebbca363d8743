// The walk over everything reachable: it proves a region sound before anything
// follows a pointer, and finds out on the way which pages are in use.
//
// Nothing it reads is trusted: every pfn is in bounds before it is followed, and
// every page is claimed once, which rules out cycles and double ownership.  What
// pkram does not understand (a client's words, names, inodes) a WalkClient checks.
//
// A walk that stops at the first problem is cut into pieces, for several threads: objects, and
// links of long lists.  What it finds in a sound region does not depend on their number.  If a
// thread comes upon a problem, the walk begins anew with one thread, which says what the problem
// is.
#ifndef PKRAM_WALK_H_
#define PKRAM_WALK_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "pkram/format.h"
#include "pkram/mutex.h"
#include "pkram/page_map.h"
#include "pkram/page_view.h"
#include "pkram/seal.h"
#include "pkram/types.h"

namespace pkram {

// "page 17 (object 3 of node 'main'): what is wrong".
struct Problem {
  Pfn page;
  std::string what;
};

struct WalkedPage {
  uint64_t index;
  const std::byte* bytes;
  Pfn pfn;
};

// One object of a live node, or of one whose state is damaged.  Valid during the call.
struct WalkedObject {
  uint64_t index;  // in the node's list
  Pfn pfn;
  const format::Object* object;
  uint64_t links;                         // of its list of pages
  uint64_t pages;                         // how many that list holds
  absl::Span<const WalkedPage> metadata;  // its pages, if kPagesAreMetadata
  std::string_view bytes;                 // its byte stream, if kBytesAreMetadata
};

// Checks the parts of live nodes that belong to their owner.  An empty string
// says "sound"; anything else is the problem, told about `object`'s page.
class WalkClient {
 public:
  virtual ~WalkClient() = default;
  // A walk that begins anew comes to the same node again.
  virtual std::string BeginNode(const format::Node& node) = 0;
  // An entry of the list that is no object: a hole with its payload.
  virtual std::string Hole(uint64_t index, uint64_t payload) = 0;
  // Before the first object: every index is below `end`.
  virtual std::string BeginObjects(uint64_t end) = 0;
  // Several threads may call this at the same time, for different objects, unless the walk finds
  // all problems (kFindAll).
  virtual std::string Object(const WalkedObject& object) = 0;
  // Of kFindAll: an object that is not sound.  If its structure is sound and only its seal does not
  // fit, Changed is called before Damaged; what such an object holds may be anything.  An object
  // that something else contests counts as sound if its seal fits.
  virtual void Changed(const WalkedObject&) {}
  virtual void Damaged(uint64_t /*index*/, Pfn /*pfn*/, const std::string& /*what*/) {}
  virtual std::string EndNode(const format::Node& node) = 0;
};

// What a walk found, by node, for those who report it.
struct NodeCounts {
  std::string name;
  Pfn pfn;
  uint64_t state = 0;
  uint64_t objects = 0;
  uint64_t sealed = 0;  // objects
  bool node_sealed = false;
  uint64_t link_pages = 0;
  uint64_t data_pages = 0;  // pages of objects' lists, orders in full, shared ones once
  uint64_t byte_pages = 0;
};

// How a walk is cut into pieces.  What fits into one is not cut.
struct WalkPieces {
  int threads = 0;         // at most; 0: one for each processor
  uint64_t objects = 256;  // in a piece
  uint64_t links = 256;    // of one list, in a piece
};

class Walk {
 public:
  // kSeal also works out the seals that are missing.
  enum class Mode { kStopAtFirst, kFindAll, kSeal };

  // `map` takes the claims; `client` may be null.  All outlive the walk.  kFindAll runs in one
  // thread, because one problem may be part of another.
  Walk(const PageView* view, PageMap* map, WalkClient* client, Mode mode, WalkPieces pieces = {});

  // Claims the super block and journal, then everything reachable from `super`.
  // REQUIRES: nothing is claimed yet.
  void Run(const format::SuperBlock& super);

  // The same for what one live node reaches.  Nothing else reaches it.
  void RunNode(Pfn node);

  const std::vector<Problem>& problems() const { return problems_; }
  const std::vector<NodeCounts>& nodes() const { return nodes_; }

  // Pages that something points at, and that something else owns.
  const std::vector<PageRun>& contested() const { return contested_; }

  // Stores that clear the entries beyond objects' allocated ends.  To be published once the region
  // is accepted.
  const std::vector<format::JournalStore>& repairs() const { return repairs_; }

  // Objects whose first link is to be made short (format::kToShorten), once the region is accepted.
  const std::vector<Pfn>& to_shorten() const { return to_shorten_; }

  // kSeal: the seal words to publish, the super block's last.
  const std::vector<format::JournalStore>& seals() const { return seals_; }

 private:
  struct ListRules;
  // Pages of an object's list.  Shared pages are claimed once.
  struct Pages {
    uint64_t listed = 0, claimed = 0;
  };
  // An object with a list whose links are still to be looked at, all but the first ones.
  struct Unfinished {
    uint64_t index;
    Pfn pfn;
    uint64_t links;
    Pages pages;  // so far
    std::string bytes;
    std::vector<Pfn> later;
  };

  bool Stopped() const { return mode_ != Mode::kFindAll && !problems_.empty(); }
  bool Fail(Pfn page, std::string what);
  bool Wanted(uint64_t seal_word) const { return seal_word != 0 || mode_ == Mode::kSeal; }
  bool CheckSeal(uint64_t seal_word, uint64_t word_offset, const SealSum& sum);
  bool ClaimMetadata(uint64_t entry, Pfn from, const char* what);
  uint64_t Claim(PageRun run, Purpose purpose, bool shared);
  bool ClaimRun(Pfn first, uint64_t count, Pfn from, Purpose purpose, bool shared = false);
  bool Contest(PageRun contested, Pfn from);
  void RunOnce(const format::SuperBlock& super);
  void WalkNode(const format::Node& node, Pfn pfn);
  void WalkObjects(const format::Node& node, Pfn pfn);
  bool WalkObject(const format::Node& node, uint64_t index, Pfn pfn);
  static ListRules PageRules(const format::Node& node, const format::Object& object);
  bool ClaimPages(uint64_t entry, uint64_t count, Pfn link, Pages* pages);
  bool ClaimPagesOf(const format::Node& node, const format::Object& object, Pfn link, Pages* pages);

  // In walk_pieces.cc.
  Walk Piece() const;
  bool Settle();
  void Absorb(Walk* piece);
  void WalkInPieces(const format::Node& node, const std::vector<std::pair<uint64_t, Pfn>>& objects);
  bool WalkLater(const format::Node& node, std::vector<Unfinished>* objects);
  template <typename OnEntries>
  bool WalkList(uint64_t head, uint64_t head_offset, const ListRules& rules, SealSum* seal,
                OnEntries on_entries);
  template <typename OnEntries>
  bool WalkEntries(uint64_t word, const ListRules& rules, uint64_t* index, OnEntries on_entries);
  void ToClient(Pfn page, std::string what);

  const PageView* view_;
  PageMap* map_;
  WalkClient* client_;
  Mode mode_;
  WalkPieces pieces_;
  // Of a piece of a walk: taken to claim pages that are shared.
  Mutex* sharing_ = nullptr;
  std::vector<Unfinished> unfinished_;
  PageMap::Tally tally_;
  std::vector<Problem> problems_;
  std::vector<NodeCounts> nodes_;
  std::vector<PageRun> contested_;
  uint64_t contested_pages_ = 0;
  uint64_t links_ = 0;     // that nothing contests
  bool disputed_ = false;  // the object, and that was said
  absl::flat_hash_map<std::string, Pfn> names_;
  std::vector<format::JournalStore> repairs_;
  std::vector<Pfn> to_shorten_;
  std::vector<format::JournalStore> seals_;
  Pfn sealed_by_;      // the page with the seal of what is being walked
  std::string where_;  // what is being walked; and which object of it
  static constexpr uint64_t kNoObject = ~uint64_t{0};
  uint64_t object_ = kNoObject;
};

}  // namespace pkram

#endif  // PKRAM_WALK_H_
