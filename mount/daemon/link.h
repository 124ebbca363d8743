// The connection between a server and its keeper: a socket.  Each learns through it that the other
// has ended, and one hands things to the other.
#ifndef MOUNT_DAEMON_LINK_H_
#define MOUNT_DAEMON_LINK_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "pkram/descriptor.h"

namespace pkramfs {

// What a successor needs from a server, and can get from nobody else.  Each process that has the
// descriptors holds them open, so nothing of it ends with one process.
struct Estate {
  // The socket to the fusermount3 that unmounts when nobody serves, if there is one.  It is opened
  // before the connection to the kernel, and so closed after it, wherever it is handed to.
  // (session.cc says why.)
  pkram::Descriptor fusermount{-1};
  pkram::Descriptor connection{-1};  // to the kernel
  pkram::Descriptor region{-1};      // with its lock
  pkram::Descriptor in_flight{-1};   // InFlight's memory
  pkram::Descriptor server{-1};      // pidfd of the server that handed it over
  std::string mount_id, device, mount_point;
};

// An estate without its descriptors, as text; and an estate from that text.  False when the text is
// none of an estate.
std::string WordsOf(const Estate& estate);
bool ReadWords(const std::string& text, Estate* estate);

// A message: an estate; or the program that is to replace the server, before the server ends.
struct Message {
  std::optional<Estate> estate;
  pkram::Descriptor program{-1};
};

class Link {
 public:
  // Makes a link, and returns both ends.  RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::pair<Link, Link>> Make();
  // The end that this process was started with.  No other process may get it, because whoever holds
  // it counts as alive.
  explicit Link(pkram::Descriptor socket);

  int fd() const { return socket_.get(); }

  // False when the other end is gone.
  bool HandOver(const Estate& estate);
  bool HandOver(const pkram::Descriptor& program);
  // Waits for the next message.  Nothing when the other process has ended.
  std::optional<Message> Receive();
  // Waits for an estate, which is the first message.
  std::optional<Estate> ReceiveEstate();

 private:
  bool Send(const std::string& text, const std::vector<int>& fds);
  pkram::Descriptor socket_;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_LINK_H_
