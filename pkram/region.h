// A region: an array of 4 KiB pages that outlives the process that uses it.
//
//   auto backing = OpenBacking("/dev/shm/cache.pkram", OpenFor::kCreating);
//   if (*(*backing)->Size() == 0) Region::Format(backing->get(), pages);
//   auto region = Region::Open(*std::move(backing), {});
//   ... nodes, through streams (stream.h) or as live lists (link_map.h) ...
//   (*region)->Close();   // seals; without it, the next open is just not sealed
//
// Open proves everything reachable sound before it follows any of it.  If something is not sound,
// it changes nothing: a refused region stays as it was, to the byte.
//
// Thread-safe, except for Open and Close.
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
  // Is called with the pages after a walk.  Everything that was walked without a problem is sound,
  // and nobody changes the region meanwhile.
  using Inspect = std::function<absl::Status(const PageView& pages, const Walk& walk)>;
  struct OpenOptions {
    bool writable = true;
    bool guarded = false;          // tests: a stray store faults
    bool lock_memory = false;      // keep what the region holds from being swapped out
    uint64_t pages = 0;            // change the size to this many; 0 keeps it
    bool resizable = false;        // take address space to grow into: see Resize
    WalkClient* client = nullptr;  // checks live nodes; used during Open only
    Inspect inspect;               // of a sound region: an error from it refuses it
    // The server of the region has died, and this process goes on in its place.  So the marks of
    // this mount still hold (mount_epoch), and so do these receipts.
    bool takes_over = false;
    std::vector<Receipt*> receipts{};
    Watch* watch = nullptr;            // hears of every page that changes; outlives the region
    WalkPieces walk;                   // how the walks of Open and Close are cut into pieces
    std::function<void()> store_hook;  // tests: see Journal::set_store_hook
  };

  // Makes an empty region of `pages` pages.  Until it returns, the backing holds no region, and its
  // old contents are lost in part.  INVALID_ARGUMENT for a size out of bounds.  FAILED_PRECONDITION
  // when the backing is not empty (a device never is) and `contents` is kKeep.
  enum class Contents { kKeep, kGiveUp };
  static absl::Status Format(Backing* backing, uint64_t pages, Contents contents = Contents::kKeep);

  // What a backing holds, as far as its first page tells.  A region whose first word was
  // overwritten still counts as a region.  kRestoring: an image has been restored to it in part
  // (Restore in checkpoints.h).
  enum class Holds { kNothing, kRegion, kOther, kRestoring };
  static absl::StatusOr<Holds> Look(Backing* backing);

  // What a first page says.  Of a region, it also says how large it is and whether it is sealed.
  // Nothing of this is proven.
  struct Glance {
    Holds holds = Holds::kNothing;
    uint64_t pages = 0;
    bool sealed = false;
    std::string uuid;
  };
  static Glance GlanceAt(const format::SuperBlock& super);
  // The same of a backing's first page.  Nothing is locked: a server may be changing the region.
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

  // Opens a region that another process serves, to build in pages that `lender` lends.  The result
  // can allocate and fill pages, and nothing else.  These pages are locked, and are given back with
  // the result.  `lender` outlives it.  FAILED_PRECONDITION when it is no region.
  static absl::StatusOr<std::unique_ptr<Region>> OpenToBuild(std::unique_ptr<Backing> backing,
                                                             Lender* lender);

  // Finds every problem that would let Open refuse the region.  Reads only.  Errors are those of
  // Open, when the walk cannot even begin; DATA_LOSS of pages is reported as a problem instead.
  struct Report {
    uint64_t pages = 0;
    bool sealed = false;
    uint64_t committed_slots = 0;
    uint64_t used_pages = 0;
    std::vector<Problem> problems;
    std::vector<NodeCounts> nodes;
    std::string uuid;
  };
  // kAtRest: a server has the region open.  It does not change the region until `inspect` has
  // returned, or has let it go on.
  enum class Locking { kShared, kAtRest };
  static absl::StatusOr<Report> Check(Backing* backing, WalkClient* client,
                                      const Inspect& inspect = nullptr,
                                      Locking locking = Locking::kShared);

  ~Region();

  // Changes the size of a region in use.  Pages in use stay where they are.  While some of them lie
  // beyond a smaller size, the file stays larger, but no more than `pages` are used.  OUT_OF_RANGE,
  // and nothing changed, when more pages are in use, when the region was not opened to grow so far,
  // or when its device has no more.
  absl::Status Resize(uint64_t pages);
  // Does what OpenOptions::lock_memory does, for a region in use; or ends it.  PERMISSION_DENIED.
  absl::Status LockInMemory();
  void UnlockFromMemory();

  // Seals everything, and ends the use.  DATA_LOSS, and no seal, when the region is not sound any
  // more because something else has changed it.
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
  // Takes a name for the caller.  ALREADY_EXISTS when somebody else in this process has it.
  absl::Status TakeName(std::string_view name);
  void ReturnName(std::string_view name);
  // Puts a filled page on the list of nodes.  Everything in it becomes reachable at once.
  // ALREADY_EXISTS when the name is taken.
  absl::Status PublishNode(Pfn node);
  // Takes a node off the list and retires everything it reaches.
  void RemoveNode(Pfn node);

  // Fills new pages that nothing reaches.  The rest of the last page becomes zeros.
  // RESOURCE_EXHAUSTED.
  absl::Status Fill(uint64_t offset, absl::Span<const iovec> bytes);

  // The same with zeros.
  absl::Status FillZeros(PageRun run);

  // Makes sure that data can be read through the mapping.  For that, a hole of the region's file
  // may have to become a page.  After RESOURCE_EXHAUSTED, read the data by backing().Read.
  absl::Status ProveReadable(uint64_t offset, uint64_t size);

  // Overwrites bytes in place, in pages of data that follow one another and are in use.
  // RESOURCE_EXHAUSTED.
  absl::Status Overwrite(uint64_t offset, absl::Span<const std::byte> bytes);

  // Makes pages exist that another process was to fill.  RESOURCE_EXHAUSTED.
  absl::Status MakeExist(PageRun run);

  // Clears a seal.  To be called before the first change of what the seal covers.
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
  // Keeps pages that exist now in memory, if the region is kept in memory.
  absl::Status NoteExist(PageRun run);
  // Whether they exist, and storing to them takes no fault.
  bool AtHand(PageRun run) const;
  // Stores the size and the features that the region has from now on.
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
