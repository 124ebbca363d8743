// Between a server and its keeper: a socket, by which each learns of the other's end, and what one
// hands the other.
#ifndef MOUNT_DAEMON_LINK_H_
#define MOUNT_DAEMON_LINK_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// What a successor needs of a server, and can have of nobody else.  Descriptors are held by whoever
// has them, so none of it ends with one process.
struct Estate {
  // If there is one, to the fusermount3 that unmounts when nobody serves: it is opened before the
  // connection, and so closed after it, wherever it is handed to (session.cc says why).
  pkram::Descriptor fusermount{-1};
  pkram::Descriptor connection{-1};  // to the kernel
  pkram::Descriptor region{-1};      // with its lock
  pkram::Descriptor in_flight{-1};   // InFlight's memory
  pkram::Descriptor server{-1};      // pidfd of the server that handed it over
  std::string mount_id, device, mount_point;
};

// What an estate is besides its descriptors, as text; and the same again.  False when it is no
// such.
std::string WordsOf(const Estate& estate);
bool ReadWords(const std::string& text, Estate* estate);

// What comes through it: an estate, or, before a server that is to be replaced ends, the program to
// replace it by.
struct Message {
  std::optional<Estate> estate;
  pkram::Descriptor program{-1};
};

class Link {
 public:
  // Both ends.  RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::pair<Link, Link>> Make();
  // The end that this process was started with, and that no other shall have: who holds it is
  // alive.
  explicit Link(pkram::Descriptor socket);

  int fd() const { return socket_.get(); }

  // False when the other end is gone.
  bool HandOver(const Estate& estate);
  bool HandOver(const pkram::Descriptor& program);
  // Waits for the next.  Nothing when the other has ended without.
  std::optional<Message> Receive();
  // Waits for an estate, which is what comes first.
  std::optional<Estate> ReceiveEstate();

 private:
  bool Send(const std::string& text, const std::vector<int>& fds);
  pkram::Descriptor socket_;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_LINK_H_
