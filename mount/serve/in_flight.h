// The requests that were received and are not answered yet, in memory that outlives the process
// that received them.  A successor finds each of them there, and how far it had come
// (pkram/receipt.h). Without that, a program would wait for ever for an answer that nobody gives.
//
// A thread reads /dev/fuse straight into a slot.  So there is no moment at which the kernel has
// given a request away and nobody has it.  A slot is free while its first word, the length that the
// kernel writes, is 0.
//
// Thread-safe.
#ifndef MOUNT_SERVE_IN_FLIGHT_H_
#define MOUNT_SERVE_IN_FLIGHT_H_

#include <linux/fuse.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/descriptor.h"
#include "pkram/mutex.h"
#include "pkram/receipt.h"

namespace pkramfs {

class InFlight {
 public:
  // A slot holds one request at a time, of one thread.
  struct Slot {
    pkram::Receipt receipt;
    uint64_t faults = 0;    // processes that died of a fault of theirs while they executed it
    uint64_t answered = 0;  // requests, since there is the slot

    // As the kernel wrote it.
    char* request() { return reinterpret_cast<char*>(this) + kPage; }
    fuse_in_header& header() { return *reinterpret_cast<fuse_in_header*>(request()); }
    bool is_free() { return header().len == 0; }
    // To be called before a request is received.
    void Prepare();
    // Says that the request is answered, or need not be.  Nobody executes it again.
    void Clear();
  };
  static constexpr size_t kPage = 4096;
  // The size of the largest request: 1 MiB to write, and the headers before it.
  static constexpr size_t kRequestBytes = (size_t{1} << 20) + kPage;

  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<InFlight>> Make();
  // Takes over the memory of a predecessor.  Its requests in flight are in the slots that are
  // taken. FAILED_PRECONDITION when the memory is of another version.
  static absl::StatusOr<std::unique_ptr<InFlight>> Adopt(pkram::Descriptor memory);
  ~InFlight();
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  // To be handed to a successor.
  int fd() const { return memory_.get(); }

  // A slot for a thread; null without memory.
  Slot* Take();
  // To be called before this process receives into a slot for the first time, and after a Trim.  If
  // a reader is killed while the kernel waits for a page of the slot, the kernel fails the request
  // with EIO.
  static void MakePresent(Slot* slot);
  // Gives back the memory of a slot that its request does not need.
  void Trim(Slot* slot);
  // Frees a slot's memory, because its thread ends.  REQUIRES: the slot is free.
  void Return(Slot* slot);
  // The slots with requests that a predecessor has left.
  const std::vector<Slot*>& left() const { return left_; }

  // The kernel's first request, which it never sends again; empty until it is kept.
  absl::Span<const char> init() const;
  void KeepInit(absl::Span<const char> request);
  // Whether the filesystem is frozen; it stays so for a successor.  The note has the kernel's
  // number of the request that froze or thawed it (`unique`).  So a successor that is given this
  // request again knows that it is done.
  bool frozen() const;
  void NoteFrozen(uint64_t unique);
  void NoteThawed(uint64_t unique);
  bool WasFrozenBy(uint64_t unique) const;
  bool WasThawedBy(uint64_t unique) const;
  // What was agreed on with the kernel.  A successor cannot change it.
  bool writeback() const;
  void set_writeback(bool writeback);
  // Whether the region is kept from being swapped out.
  bool locks_memory() const;
  void set_locks_memory(bool locks);
  // Whether the server's cgroup may have less memory than the region takes.  Then the server and
  // its successors do not set PR_SET_IO_FLUSHER.
  void set_is_tight(bool is_tight);
  // Whether the mount shows an image, so that nothing may change.
  bool shows_image() const;
  void set_shows_image(bool shows);
  // How many inodes there may be, if that was changed since the mount.
  std::optional<uint64_t> max_inodes() const;
  void set_max_inodes(uint64_t count);
  // The outcome of an upgrade: the new program serves, or another one still does.
  enum class Upgrade : uint64_t { kNone, kDone, kFailed };
  Upgrade upgrade() const;
  void set_upgrade(Upgrade state);
  // The pid of the keeper; 0 when there is none.
  pid_t keeper() const;
  void set_keeper(pid_t pid);
  // How many servers have taken over, why the last one had to, and for how long nobody served then.
  struct Takeovers {
    uint64_t count;
    std::string reason;
    uint64_t pause;  // microseconds
  };
  Takeovers takeovers() const;
  // Notes one more takeover: this process serves from now on.  Returns how long nobody served.
  uint64_t NoteTakeover();
  // Says that the mount is over, or is being ended, so that there will be no successor.
  void set_ended();

  // A keeper's view of the server's memory.
  static bool Ended(int fd);
  static bool IsTight(int fd);
  static void NoteDeath(int fd, const std::string& how);
  static void NoteUpgrade(int fd, Upgrade state);
  // How many requests have been answered.  A keeper compares two looks at it.
  static uint64_t Progress(int fd);

 private:
  struct Common;
  explicit InFlight(pkram::Descriptor memory) : memory_(std::move(memory)) {}
  absl::Status MapCommon();
  Slot* Map(uint64_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const pkram::Descriptor memory_;
  Common* common_ = nullptr;
  std::vector<Slot*> left_;
  pkram::Mutex mu_;
  std::vector<Slot*> slots_ ABSL_GUARDED_BY(mu_);  // all, by their place in the memory
  std::vector<Slot*> free_ ABSL_GUARDED_BY(mu_);
};

}  // namespace pkramfs

#endif  // MOUNT_SERVE_IN_FLIGHT_H_
