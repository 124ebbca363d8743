// The requests that were received and are not answered yet, in memory that outlives the process
// that received them.  Its successor finds each of them there, and how far it had come
// (pkram/receipt.h): a caller of the kernel waits for ever for an answer that nobody gives.
//
// The kernel copies a request into its slot itself (read of /dev/fuse), so there is no moment at
// which it has given it away and nobody has it.  A slot is free while its first word, the length
// that the kernel writes, is 0.
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
  // In that memory: one request at a time, one thread's.
  struct Slot {
    pkram::Receipt receipt;
    uint64_t faults = 0;    // processes that died of a fault of theirs while they executed it
    uint64_t answered = 0;  // requests, since there is the slot

    // As the kernel wrote it.
    char* request() { return reinterpret_cast<char*>(this) + kPage; }
    fuse_in_header& header() { return *reinterpret_cast<fuse_in_header*>(request()); }
    bool is_free() { return header().len == 0; }
    // Before a request is received.
    void Prepare();
    // It is answered, or need not be: nobody executes it again.
    void Clear();
  };
  static constexpr size_t kPage = 4096;
  // Of the largest request: 1 MiB to write, and what stands before it.
  static constexpr size_t kRequestBytes = (size_t{1} << 20) + kPage;

  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<InFlight>> Make();
  // A predecessor's.  FAILED_PRECONDITION when it is of another version; the requests that were in
  // flight are in slots that are taken.
  static absl::StatusOr<std::unique_ptr<InFlight>> Adopt(pkram::Descriptor memory);
  ~InFlight();
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  // To be handed to a successor.
  int fd() const { return memory_.get(); }

  // A slot for a thread; null without memory.
  Slot* Take();
  // Before this process receives into a slot for the first time, and after a Trim.  The kernel
  // fails a request with EIO whose reader is killed while it waits for a page to copy it to.
  static void MakePresent(Slot* slot);
  // Gives back the memory that the slot's request does not take.
  void Trim(Slot* slot);
  // The thread ends: the memory goes.  REQUIRES: it is free.
  void Return(Slot* slot);
  // Those that a predecessor has left.
  const std::vector<Slot*>& left() const { return left_; }

  // The kernel's first request, which it never sends again; empty until it is kept.
  absl::Span<const char> init() const;
  void KeepInit(absl::Span<const char> request);
  // Whether changes wait: they do for the successor, too.  Noted by the request that froze or
  // thawed (the kernel's number of it, `unique`), so that who is given it again knows.
  bool frozen() const;
  void NoteFrozen(uint64_t unique);
  void NoteThawed(uint64_t unique);
  bool WasFrozenBy(uint64_t unique) const;
  bool WasThawedBy(uint64_t unique) const;
  // What was agreed on with the kernel, and cannot be otherwise for a successor.
  bool writeback() const;
  void set_writeback(bool writeback);
  // Whether the region is kept from being swapped out.
  bool locks_memory() const;
  void set_locks_memory(bool locks);
  // Whether the server's cgroup may have less memory than the region takes: it and its heirs are
  // not to be spared when memory is looked for.
  void set_is_tight(bool is_tight);
  // Whether it shows an image, and nothing may change.
  bool shows_image() const;
  void set_shows_image(bool shows);
  // How many inodes there may be, if that was changed since the mount.
  std::optional<uint64_t> max_inodes() const;
  void set_max_inodes(uint64_t count);
  // What has become of an upgrade: the program that was asked for serves, or another one still
  // does.
  enum class Upgrade : uint64_t { kNone, kDone, kFailed };
  Upgrade upgrade() const;
  void set_upgrade(Upgrade state);
  // The process that watches this one; 0 when there is none.
  pid_t keeper() const;
  void set_keeper(pid_t pid);
  // Servers that went on where one had died, why the last one had, and for how long nobody served.
  struct Takeovers {
    uint64_t count;
    std::string reason;
    uint64_t pause;  // microseconds
  };
  Takeovers takeovers() const;
  // One more: this process serves from now on.  Returns the pause.
  uint64_t NoteTakeover();
  // The mount is over, or is being ended: there will be no successor.
  void set_ended();

  // Of somebody else's, as its keeper sees it.
  static bool Ended(int fd);
  static bool IsTight(int fd);
  static void NoteDeath(int fd, const std::string& how);
  static void NoteUpgrade(int fd, Upgrade state);
  // How many requests have been answered; more is later.
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
