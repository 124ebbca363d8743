// Where every change of a filesystem goes through, so that it can be stopped: closing
// waits until those inside have left, and keeps the others waiting outside.
//
// While it is open nobody who passes takes a lock, and threads count themselves in words of their
// own.  Who shuts it says so first, and looks at the counts then; who enters counts first, and then
// looks whether it is shut: one of them sees the other.
//
// Thread-safe.
#ifndef FS_GATE_H_
#define FS_GATE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "pkram/mutex.h"
#include "pkram/thread_number.h"

namespace pkramfs {

class Gate {
 public:
  // Nobody waits any longer once `abandoned` says that nobody is left to open it.
  // Set before use.
  void set_abandoned(std::function<bool()> abandoned) { abandoned_ = std::move(abandoned); }

  // False when it was closed already, or was opened before it was closed.
  bool Close();
  // False when it was open.
  bool Open();

  // Runs `fn` while nobody is inside, also when it is closed; others wait for it.
  void AtRest(const std::function<void()>& fn);

  // Inside as long as it lives, on one thread.
  class Pass {
   public:
    explicit Pass(Gate* gate) : gate_(gate) {
      if (!gate->TryEnter()) gate->WaitAndEnter();
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() { gate_->Leave(); }

   private:
    Gate* const gate_;
  };

  // For those who must not wait: false when it is shut.  Leave follows, by the same thread.
  bool TryEnter() {
    if (shut_.load()) return false;
    Mine().fetch_add(1);
    if (!shut_.load()) return true;
    Leave();
    return false;
  }
  void Leave() {
    Mine().fetch_sub(1);
    if (shut_.load()) NotifyAll();
  }

 private:
  struct alignas(64) Count {
    std::atomic<uint64_t> threads{0};
  };
  std::atomic<uint64_t>& Mine() { return inside_[pkram::ThreadNumber() % inside_.size()].threads; }
  bool IsEmpty() const;
  void WaitAndEnter();
  void NotifyAll();

  std::function<bool()> abandoned_;
  pkram::Mutex mu_;
  pkram::CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool resting_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<bool> shut_{false};  // closed or resting; changed under the lock
  std::array<Count, 64> inside_;
};

}  // namespace pkramfs

#endif  // FS_GATE_H_
