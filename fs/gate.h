// Where every change of a filesystem goes through, so that it can be stopped: closing
// waits until those inside have left, and keeps the others waiting outside.
//
// Thread-safe.
#ifndef FS_GATE_H_
#define FS_GATE_H_

#include <chrono>
#include <cstdint>
#include <functional>

#include "pkram/mutex.h"

namespace pkramfs {

class Gate {
 public:
  // Nobody waits any longer once `abandoned` says that nobody is left to open it.
  // Set before use.
  void set_abandoned(std::function<bool()> abandoned) { abandoned_ = std::move(abandoned); }

  // False when it was closed already, or was opened before it was closed.
  bool Close() {
    pkram::MutexLock lock(&mu_);
    if (closed_) return false;
    closed_ = true;
    while (closed_ && inside_ > 0) changed_.Wait(&mu_);
    return closed_;
  }
  // False when it was open.
  bool Open() {
    pkram::MutexLock lock(&mu_);
    if (!closed_) return false;
    closed_ = false;
    changed_.NotifyAll();
    return true;
  }

  // Runs `fn` while nobody is inside, also when it is closed; others wait for it.
  void AtRest(const std::function<void()>& fn) {
    pkram::MutexLock lock(&mu_);
    while (resting_) changed_.Wait(&mu_);
    resting_ = true;
    while (inside_ > 0) changed_.Wait(&mu_);
    fn();
    resting_ = false;
    changed_.NotifyAll();
  }

  // Inside as long as it lives.
  class Pass {
   public:
    explicit Pass(Gate* gate) : gate_(gate) { gate->Enter(); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() { gate_->Leave(); }

   private:
    Gate* const gate_;
  };

  // For those who must not wait: false when it is closed.  Leave follows.
  bool TryEnter() {
    pkram::MutexLock lock(&mu_);
    if (closed_ || resting_) return false;
    ++inside_;
    return true;
  }
  void Leave() {
    pkram::MutexLock lock(&mu_);
    if (--inside_ == 0) changed_.NotifyAll();
  }

 private:
  void Enter() {
    pkram::MutexLock lock(&mu_);
    for (;;) {
      while (resting_) changed_.Wait(&mu_);
      if (!closed_ || (abandoned_ && abandoned_())) break;
      changed_.WaitUntil(&mu_, std::chrono::steady_clock::now() + std::chrono::seconds(1));
    }
    ++inside_;
  }

  std::function<bool()> abandoned_;
  pkram::Mutex mu_;
  pkram::CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool resting_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t inside_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace pkramfs

#endif  // FS_GATE_H_
