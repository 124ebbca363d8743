// What a region lives in: a file, or a device made of memory.  Everything above
// sees pages through this interface.
#ifndef PKRAM_BACKING_H_
#define PKRAM_BACKING_H_

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/types.h"

namespace pkram {

// Thread-safe, but for the lock calls.
class Backing {
 public:
  virtual ~Backing() = default;
  Backing(const Backing&) = delete;
  Backing& operator=(const Backing&) = delete;

  // What to call it in a message: its path, or "fd=N".
  const std::string& name() const { return name_; }
  virtual int fd() const = 0;

  // Bytes that exist now.  A file grows past it; a device does not.
  virtual absl::StatusOr<uint64_t> Size() const = 0;

  // Of a device: how many pages it has, all of which exist, always.
  virtual std::optional<uint64_t> device_pages() const { return std::nullopt; }

  // One user at a time: exclusive for writers, shared for readers.  Held until
  // destruction.  UNAVAILABLE, naming the holder's pid, when it is taken.
  virtual absl::Status Lock(bool exclusive) = 0;

  // Maps the first `pages` pages; pages that do not exist yet may be mapped but
  // not touched.  What is mapped is more, where only whole huge pages can be.  The
  // caller unmaps all of it.
  virtual absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) = 0;

  // Makes pages exist, so that no store to them through a mapping can fail.
  // RESOURCE_EXHAUSTED when there is no space; some of them may exist then.
  // What they hold is unspecified.
  virtual absl::Status Reserve(PageRun run) = 0;

  // Reads what stands from `offset` on.  Pages that do not exist are zeros, and go on not to exist.
  virtual absl::Status Read(uint64_t offset, absl::Span<char> bytes) = 0;

  // Writes `bytes` to `offset` and on, cheaper than by storing to a mapping whose pages
  // have not been touched.  Pages that do not exist come to be.  RESOURCE_EXHAUSTED as above.
  virtual absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) = 0;
  // The same, and zeros to the rest of the last page: for pages that nothing reaches.
  absl::Status Fill(uint64_t offset, absl::Span<const iovec> bytes);

  // Makes pages that nothing reaches exist, all zeros.  RESOURCE_EXHAUSTED as above.
  virtual absl::Status FillZeros(PageRun run) = 0;

  // Says that more than `pages` pages exist, so that some can be given back.
  virtual bool HoldsMoreThan(uint64_t pages) const = 0;

  // Gives the memory of pages back to the system, as far as the backing can.
  // Best effort: a page that is not given back costs memory, nothing else.
  virtual void GiveBack(PageRun run) = 0;

  // The same for everything behind the first `pages` pages.
  virtual void ShrinkTo(uint64_t pages) = 0;

 protected:
  explicit Backing(std::string name) : name_(std::move(name)) {}

 private:
  const std::string name_;
};

// kTakingOver: a descriptor that somebody has died with; its lock goes on.
enum class OpenFor { kReading, kWriting, kCreating, kTakingOver };

// A file on tmpfs or any filesystem, or a devdax device (/dev/daxX.Y).  kCreating
// makes a file, mode 0600, when nothing is there, and accepts what is.  NOT_FOUND,
// PERMISSION_DENIED or FAILED_PRECONDITION (can be no region) with the path in the
// message.  A file must belong to this user or root, and nobody else may write to it; each
// symbolic link that leads to it must belong to one of these, too (see place.h).
absl::StatusOr<std::unique_ptr<Backing>> OpenBacking(const std::string& path, OpenFor mode);

// An open descriptor of the same, or a memfd.  It is opened anew, through /proc: the
// lock is the backing's, not that of everybody who shares the descriptor.  Messages call
// it "fd=N".
absl::StatusOr<std::unique_ptr<Backing>> OpenFdBacking(int fd, OpenFor mode = OpenFor::kWriting);

// The pid that took the flock on the open file `fd`; 0 when it is not known, or that process is
// gone and another has its descriptor.
int LockHolder(int fd);

}  // namespace pkram

#endif  // PKRAM_BACKING_H_
