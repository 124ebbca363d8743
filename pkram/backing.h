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

// Thread-safe, except for the lock calls.
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

  // Of a device: how many pages it has.  All of them always exist.  Of a file: nothing.
  virtual std::optional<uint64_t> device_pages() const { return std::nullopt; }

  // While the kernel holds the file for a kexec: how many pages it has.  They all exist, and
  // neither more nor fewer can.  Otherwise, nothing.
  virtual std::optional<uint64_t> held_pages() const { return std::nullopt; }

  // One user at a time: exclusive for writers, shared for readers.  Held until
  // destruction.  UNAVAILABLE, naming the holder's pid, when it is taken.
  virtual absl::Status Lock(bool exclusive) = 0;

  // Maps the first `pages` pages.  Pages that do not exist yet may be mapped but not touched.  More
  // is mapped where only whole huge pages can be mapped; the caller unmaps all of it.
  virtual absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) = 0;

  // Makes pages exist, so that no store to them through a mapping can fail.  Their contents are
  // unspecified.  RESOURCE_EXHAUSTED when there is no space; some of the pages may exist then.
  virtual absl::Status Reserve(PageRun run) = 0;

  // Reads bytes from `offset` on.  Pages that do not exist read as zeros, and still do not exist
  // afterwards.
  virtual absl::Status Read(uint64_t offset, absl::Span<char> bytes) = 0;

  // Writes `bytes` from `offset` on.  This is cheaper than storing to a mapping whose pages have
  // not been touched.  It makes pages exist.  RESOURCE_EXHAUSTED as above.
  virtual absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) = 0;
  // The same, and fills the rest of the last page with zeros: for pages that nothing reaches.
  absl::Status Fill(uint64_t offset, absl::Span<const iovec> bytes);

  // Makes pages that nothing reaches exist, all zeros.  RESOURCE_EXHAUSTED as above.
  virtual absl::Status FillZeros(PageRun run) = 0;

  // Whether more than `pages` pages exist, so that some can be given back.
  virtual bool HoldsMoreThan(uint64_t pages) const = 0;

  // Gives the memory of pages back to the system, as far as the backing can.  This may fail: a page
  // that is not given back costs memory, nothing else.
  virtual void GiveBack(PageRun run) = 0;

  // The same for everything behind the first `pages` pages.
  virtual void ShrinkTo(uint64_t pages) = 0;

 protected:
  explicit Backing(std::string name) : name_(std::move(name)) {}

 private:
  const std::string name_;
};

// kTakingOver: the descriptor of a server that has died; it still has that server's lock.
enum class OpenFor { kReading, kWriting, kCreating, kTakingOver };

// Opens a file on tmpfs or any filesystem, or a devdax device (/dev/daxX.Y).  kCreating makes a
// file of mode 0600 if there is none.  A file must belong to this user or root, and nobody else may
// write to it; each symbolic link that leads to it must belong to one of these, too (see place.h).
// NOT_FOUND, PERMISSION_DENIED or FAILED_PRECONDITION (it cannot be a region), with the path in the
// message.
// Messages call it `name`, or by its path.
absl::StatusOr<std::unique_ptr<Backing>> OpenBacking(const std::string& path, OpenFor mode,
                                                     const std::string& name = "");

// Takes an open descriptor of such a file, or of a memfd.  The file is opened anew, through /proc:
// so the lock belongs to this backing, and not to every process that shares the descriptor.
// Messages call it `name`, or "fd=N".
absl::StatusOr<std::unique_ptr<Backing>> OpenFdBacking(int fd, OpenFor mode = OpenFor::kWriting,
                                                       const std::string& name = "");

// The pid of the process that took the flock on the open file `fd`.  0 when nobody knows, or when
// that process is gone and another one has its descriptor.
int LockHolder(int fd);

}  // namespace pkram

#endif  // PKRAM_BACKING_H_
