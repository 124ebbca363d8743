// Some threads that do work for another one.
#ifndef MOUNT_TOOLS_WORKERS_H_
#define MOUNT_TOOLS_WORKERS_H_

#include <deque>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "pkram/mutex.h"

namespace pkramfs {

// The threads begin work in the order in which it comes.
class Workers {
 public:
  explicit Workers(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  }
  ~Workers() { Finish(); }
  // Hands over a piece of work.  If much waits already, the caller does it at once.
  void Add(std::function<void()> work) {
    constexpr size_t kMost = 256;
    {
      pkram::MutexLock lock(&mu_);
      if (queue_.size() < kMost && !threads_.empty()) {
        queue_.push_back(std::move(work));
        work = nullptr;
      }
    }
    work ? work() : some_.NotifyOne();
  }
  void Finish() {
    {
      pkram::MutexLock lock(&mu_);
      done_ = true;
    }
    some_.NotifyAll();
    Work();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void Work() {
    for (;;) {
      std::function<void()> work;
      {
        pkram::MutexLock lock(&mu_);
        while (queue_.empty() && !done_) some_.Wait(&mu_);
        if (queue_.empty()) return;
        work = std::move(queue_.front());
        queue_.pop_front();
      }
      work();
    }
  }

  pkram::Mutex mu_;
  pkram::CondVar some_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_WORKERS_H_
