// A server's part in its own succession.  It makes sure that there is a keeper, and it makes way
// for another program in an upgrade.
#ifndef MOUNT_DAEMON_SUCCESSION_H_
#define MOUNT_DAEMON_SUCCESSION_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "mount/daemon/link.h"
#include "mount/daemon/program.h"
#include "mount/daemon/service.h"
#include "pkram/mutex.h"

namespace pkramfs {

class Succession {
 public:
  // `service` has not started yet.  `where` is the mount point, for the log.  `link` leads to the
  // keeper that has started this process; none without takeover.  `program` outlives this.
  Succession(std::unique_ptr<Service> service, std::string where, const Program& program,
             std::optional<Link> link);
  Succession(const Succession&) = delete;
  Succession& operator=(const Succession&) = delete;

  Service& service() { return *service_; }
  // Gives the keeper the estate.  False when the keeper has ended.
  bool HandOver();
  // Serves until the mount is over, and seals.  A keeper that ends is replaced.
  absl::Status ServeToTheEnd();

 private:
  // Ends this process, so that the keeper starts that program.  Returns only when it cannot, and
  // says why.
  absl::Status MakeWayFor(const std::string& path);
  void ReplaceKeeper();

  const std::string where_;
  const Program& program_;
  pid_t keeper_ = 0;  // if it is a child of this process
  pkram::Mutex mu_;
  std::optional<Link> link_ ABSL_GUARDED_BY(mu_);
  // Used only by the thread that serves to the end.
  int link_fd_;        // -1 without
  int retry_in_ = -1;  // milliseconds, when there should be a keeper and is none
  // Its threads end before the rest of this.
  const std::unique_ptr<Service> service_;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_SUCCESSION_H_
