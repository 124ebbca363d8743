// Every change of a filesystem passes this gate, so that changes can be stopped.  Closing waits
// until the changes inside have left, and keeps the others waiting outside.
//
// While the gate is open, a change takes no lock: each thread counts in a word of its own.  The
// thread that shuts the gate first says so, and then looks at the counts.  A thread that enters
// first counts, and then looks whether the gate is shut.  So one of the two always sees the other.
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
  // To be set before use: waiting ends when `abandoned` says that nobody is left to open the gate.
  void set_abandoned(std::function<bool()> abandoned) { abandoned_ = std::move(abandoned); }

  // False when it was closed already, or was opened before it was closed.
  bool Close();
  // False when it was open.
  bool Open();

  // Runs `fn` while nobody is inside, also when the gate is closed.  Others wait meanwhile.
  void AtRest(const std::function<void()>& fn);

  // A thread is inside as long as its Pass lives.
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

  // Enters without waiting; false when the gate is shut.  The same thread calls Leave afterwards.
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
