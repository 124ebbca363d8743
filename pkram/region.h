// A region: an array of 4 KiB pages that outlives the process that uses it.
//
//   auto backing = OpenBacking("/dev/shm/cache.pkram", OpenFor::kCreating);
//   if (*(*backing)->Size() == 0) Region::Format(backing->get(), pages);
//   auto region = Region::Open(*std::move(backing), {});
//   ... nodes, through streams (stream.h) or as live lists (link_map.h) ...
//   (*region)->Close();   // seals; without it, the next open is just not sealed
//
// Open proves everything reachable sound before any of it is followed, and
// changes nothing unless it is: a refused region is as it was, to the byte.
//
// Thread-safe, but for Open and Close.
#ifndef PKRAM_REGION_H_
#define PKRAM_REGION_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pkram/backing.h"
#include "pkram/format.h"
#include "pkram/journal.h"
#include "pkram/lender.h"
#include "pkram/mapping.h"
#include "pkram/mutex.h"
#include "pkram/space.h"
#include "pkram/walk.h"

namespace pkram {

class Region {
 public:
  // Sees the pages after a walk: what was walked without a problem is sound, and no other
  // user of the region changes it meanwhile.
  using Inspect = std::function<absl::Status(const PageView& pages, const Walk& walk)>;
  struct OpenOptions {
    bool writable = true;
    bool guarded = false;          // tests: a stray store faults
    bool lock_memory = false;      // keep what the region holds from being swapped out
    uint64_t pages = 0;            // change the size to this many; 0 keeps it
    bool resizable = false;        // take address space to grow into: see Resize
    WalkClient* client = nullptr;  // checks live nodes; used during Open only
    Inspect inspect;               // of a sound region: an error from it refuses it
    // The user that the region had has died, and this one goes on in its place: what the user's
    // own marks of this mount say holds (mount_epoch), and so do these receipts.
    bool takes_over = false;
    std::vector<Receipt*> receipts{};
    Watch* watch = nullptr;            // hears of every page that changes; outlives the region
    WalkPieces walk;                   // how the walks of Open and Close are cut into pieces
    std::function<void()> store_hook;  // tests: see Journal::set_store_hook
  };

  // Makes an empty region of `pages`.  INVALID_ARGUMENT for a size out of bounds,
  // FAILED_PRECONDITION when the backing is not empty (a device never is) and `contents`
  // are not given up.  Until it returns, what was there is neither a region nor a whole.
  enum class Contents { kKeep, kGiveUp };
  static absl::Status Format(Backing* backing, uint64_t pages, Contents contents = Contents::kKeep);

  // What a backing holds, as far as its first page tells; what is left of a region whose
  // first word was scribbled on is one, too.
  // kRestoring: an image has been restored to it in part (Restore in checkpoints.h).
  enum class Holds { kNothing, kRegion, kOther, kRestoring };
  static absl::StatusOr<Holds> Look(Backing* backing);

  // What a first page says, of a region also how large it is and whether it is sealed.  Nothing is
  // proven.
  struct Glance {
    Holds holds = Holds::kNothing;
    uint64_t pages = 0;
    bool sealed = false;
    std::string uuid;
  };
  static Glance GlanceAt(const format::SuperBlock& super);
  // Of a backing.  Nothing is locked: a user of the region may be changing it.
  static absl::StatusOr<Glance> GlanceAt(Backing* backing);

  // Whether it holds a region that was opened for writing once at most.
  static bool IsNew(Backing* backing);

  // UNAVAILABLE    in use, naming the holder
  // FAILED_PRECONDITION  not a region, or of a format this program doesn't know
  // DATA_LOSS      a region that is not sound: which page, and why
  // PERMISSION_DENIED  lock_memory is beyond what this user may lock
  // OUT_OF_RANGE   `pages` is less than what is in use, or more than the device has
  static absl::StatusOr<std::unique_ptr<Region>> Open(std::unique_ptr<Backing> backing,
                                                      const OpenOptions& options);

  // Another process uses the region, and lends this one pages to build in: all that this is good
  // for is to allocate and fill pages, which are locked, and end with it.  `lender` outlives it.
  // Errors as OpenBacking's, FAILED_PRECONDITION.
  static absl::StatusOr<std::unique_ptr<Region>> OpenToBuild(std::unique_ptr<Backing> backing,
                                                             Lender* lender);

  // What Open would say, all of it: every problem found; reads only.  An error
  // when the walk cannot even begin (as Open's, but for DATA_LOSS of pages).
  struct Report {
    uint64_t pages = 0;
    bool sealed = false;
    uint64_t committed_slots = 0;
    uint64_t used_pages = 0;
    std::vector<Problem> problems;
    std::vector<NodeCounts> nodes;
    std::string uuid;
  };
  // kAtRest: somebody uses the region, and does not change it until `inspect` has returned, or has
  // let them.
  enum class Locking { kShared, kAtRest };
  static absl::StatusOr<Report> Check(Backing* backing, WalkClient* client,
                                      const Inspect& inspect = nullptr,
                                      Locking locking = Locking::kShared);

  ~Region();

  // Another size of a region in use.  Pages in use stay where they are: while some lie
  // beyond a smaller size, the file stays larger, but no more than `pages` are used.
  // OUT_OF_RANGE, and nothing changed, when more pages are in use, when the region was not
  // opened to grow so far, or when its device has no more.
  absl::Status Resize(uint64_t pages);
  // As OpenOptions::lock_memory, of a region in use; or no longer.  PERMISSION_DENIED.
  absl::Status LockInMemory();
  void UnlockFromMemory();

  // Seals everything and ends the use.  DATA_LOSS, and no seal, when the region
  // is not sound any more: something scribbled on it while it was in use.
  // REQUIRES: no other thread uses the region.
  absl::Status Close(WalkClient* client = nullptr);

  const format::SuperBlock& super() const { return *mapping_->At<format::SuperBlock>(Pfn(0)); }
  uint32_t mount_epoch() const { return static_cast<uint32_t>(super().mount_epoch); }
  // Whether all programs that open it know short lists.
  bool may_have_short_lists() const { return (super().incompat & format::kShortLists) != 0; }
  Backing& backing() const { return *backing_; }
  Mapping& mapping() { return *mapping_; }
  Journal& journal() { return *journal_; }
  Space& space() { return *space_; }
  // What the walk found when the region was opened.
  const std::vector<NodeCounts>& found() const { return found_; }

  // --- Nodes ---
  // The page of the node of that name, or Pfn() if there is none.
  Pfn FindNode(std::string_view name) const;
  std::vector<std::string> NodeNames() const;
  // Takes a name for a user: ALREADY_EXISTS when a user has it.
  absl::Status TakeName(std::string_view name);
  void ReturnName(std::string_view name);
  // Puts a filled page on the list of nodes: all of it becomes reachable at once.
  // ALREADY_EXISTS when the name is taken.
  absl::Status PublishNode(Pfn node);
  // Takes a node off the list and retires everything it reaches.
  void RemoveNode(Pfn node);

  // Fills fresh pages that nothing reaches, the rest of the last one with zeros.
  // RESOURCE_EXHAUSTED.
  absl::Status Fill(uint64_t offset, absl::Span<const iovec> bytes);

  // The same with zeros.
  absl::Status FillZeros(PageRun run);

  // Makes sure that data can be read through the mapping: a hole of the region's file may have to
  // become a page for that.  RESOURCE_EXHAUSTED: read it by backing().Read.
  absl::Status ProveReadable(uint64_t offset, uint64_t size);

  // Bytes in place of others, in pages of data that follow one another and are in use.
  // RESOURCE_EXHAUSTED.
  absl::Status Overwrite(uint64_t offset, absl::Span<const std::byte> bytes);

  // Makes pages exist that somebody else was to fill.  RESOURCE_EXHAUSTED.
  absl::Status MakeExist(PageRun run);

  // Clears a seal; before the first change of what it covers.
  void Unseal(const uint64_t* seal);

  // How many pages of a region of this size hold no contents: super block, journal,
  // reserve, and the links of files that fill the rest.
  static uint64_t Overhead(uint64_t content_pages);
  // The reverse: the contents that a region of `pages` holds.
  static uint64_t ContentPages(uint64_t pages);

 private:
  Region() = default;
  absl::Status LockInMemory(const PageMap& map, uint64_t pages);
  absl::Status Accept(const Walk& walk, PageMap map, std::unique_ptr<Loans> loans, Space::Size size,
                      const OpenOptions& options);
  void FinishShortening(Pfn object);
  // Of pages that exist now: they are kept in memory if the region is.
  absl::Status NoteExist(PageRun run);
  // Whether they exist, and storing to them takes no fault.
  bool AtHand(PageRun run) const;
  // The size, and features that it has from now on.
  void StoreSuper(Space::Size size, uint64_t more_incompat = 0);

  std::unique_ptr<Backing> backing_;
  std::unique_ptr<Mapping> mapping_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Space> space_;
  std::vector<NodeCounts> found_;
  WalkPieces walk_;
  std::atomic<bool> locked_ = false;

  Mutex borrowing_mu_;
  Mutex resize_mu_;  // one at a time
  mutable Mutex nodes_mu_;
  absl::flat_hash_set<std::string> taken_ ABSL_GUARDED_BY(nodes_mu_);
};

// Says that `name` can be a node's: 1 to 255 bytes, no NUL.
absl::Status CheckNodeName(std::string_view name);

}  // namespace pkram

#endif  // PKRAM_REGION_H_
