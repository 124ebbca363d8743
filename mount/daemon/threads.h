// Who serves a session's requests: as many threads as there are requests that wait (a change waits
// while the filesystem is frozen, and who thaws it needs a thread, too).
#ifndef MOUNT_DAEMON_THREADS_H_
#define MOUNT_DAEMON_THREADS_H_

#include <fuse_lowlevel.h>
#include <pthread.h>

#include <list>
#include <vector>

#include "absl/status/status.h"
#include "pkram/mutex.h"

namespace pkramfs {

// Signals that end a daemon (SIGTERM, SIGINT, SIGHUP) are taken from the process as a whole, and
// from what it starts: they wait until WaitToEnd asks for them.  One that was ignored stays so.
void TakeEndSignals();
// Whether one has come.
bool IsToldToEnd();

class Threads {
 public:
  explicit Threads(fuse_session* session) : session_(session) {}
  // Waits until each is done with the request that it has; `session` must have been ended.
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  // The first one, and with it all.  RESOURCE_EXHAUSTED.
  absl::Status Start();
  // Until the session ends, or the process is told to: then it ends the session.
  void WaitToEnd();

 private:
  static void* Run(void* self);
  void Work();
  void JoinRetired() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int StartOne() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  fuse_session* const session_;
  pkram::Mutex mu_;
  std::list<pthread_t> running_ ABSL_GUARDED_BY(mu_);
  std::vector<pthread_t> retired_ ABSL_GUARDED_BY(mu_);  // they need nothing any more but a join
  unsigned idle_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_THREADS_H_
