// The threads that serve a session's requests.  There are as many as there are requests that wait:
// a change waits while the filesystem is frozen, and the request that thaws it needs a thread, too.
#ifndef MOUNT_DAEMON_THREADS_H_
#define MOUNT_DAEMON_THREADS_H_

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <signal.h>

#include <list>
#include <vector>

#include "absl/status/status.h"
#include "mount/serve/in_flight.h"
#include "pkram/mutex.h"

namespace pkramfs {

// Blocks the signals that end a daemon (SIGTERM, SIGINT, SIGHUP) for this process and those that it
// starts: they wait until WaitToEnd asks for them.  A signal that was ignored stays ignored.
void TakeEndSignals();
// Has a crash of this process noted in the slot of the request that it was executing.
void TakeFaults();
// The signals that end a daemon; and whether one has come.
sigset_t EndSignals();
bool IsToldToEnd();

class Threads {
 public:
  // Both outlive this.
  Threads(fuse_session* session, InFlight* in_flight) : session_(session), in_flight_(in_flight) {}
  // Waits until each thread is done with its request.  REQUIRES: `session` was ended.
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  // Starts the first thread, which starts the others; and one for each request that a predecessor
  // has left. RESOURCE_EXHAUSTED.
  absl::Status Start();
  // Waits until the session ends, or until the process is told to end: then it ends the session. Or
  // until the other end of `link` is closed (-1: there is none), or until so many milliseconds have
  // passed (-1: as long as it takes).
  enum class Wake { kEnd, kLinkClosed, kTimeout };
  Wake WaitToEnd(int link, int timeout);

 private:
  struct Worker {
    Threads* threads;
    InFlight::Slot* slot;     // taken; free, or with a request
    bool is_present = false;  // all of the slot's memory
    pthread_t thread{};
    uint64_t requests = 0;  // received; and at the last look
    uint64_t seen = 0;
  };
  static void* Run(void* worker);
  void StartMore();
  size_t TooFew(size_t enough) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Work(Worker* worker);
  bool Receive(Worker* worker);
  void Answer(InFlight::Slot* slot);
  void Refuse(InFlight::Slot* slot);
  bool IsAnswered(InFlight::Slot* slot) const;
  void JoinRetired() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int StartOne(InFlight::Slot* slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  fuse_session* const session_;
  InFlight* const in_flight_;
  pkram::Mutex mu_;
  std::list<Worker> running_ ABSL_GUARDED_BY(mu_);
  std::list<Worker> ended_ ABSL_GUARDED_BY(mu_);         // when all are
  std::vector<pthread_t> retired_ ABSL_GUARDED_BY(mu_);  // they need nothing any more but a join
  unsigned idle_ ABSL_GUARDED_BY(mu_) = 0;
  // Starts other threads.
  pthread_t starter_{};
  bool has_starter_ = false;
  pkram::CondVar none_idle_;
  bool starter_waits_ ABSL_GUARDED_BY(mu_) = false;  // for none_idle_
  bool ends_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_THREADS_H_
