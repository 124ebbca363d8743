#include "fs/gate.h"

#include <algorithm>
#include <chrono>

namespace pkramfs {

bool Gate::IsEmpty() const {
  return std::ranges::all_of(inside_, [](const Count& count) { return count.threads.load() == 0; });
}

void Gate::NotifyAll() {
  pkram::MutexLock lock(&mu_);
  changed_.NotifyAll();
}

bool Gate::Close() {
  pkram::MutexLock lock(&mu_);
  if (closed_) return false;
  closed_ = shut_ = true;
  while (closed_ && !IsEmpty()) changed_.Wait(&mu_);
  return closed_;
}

bool Gate::Open() {
  pkram::MutexLock lock(&mu_);
  if (!closed_) return false;
  closed_ = false;
  shut_ = resting_;
  changed_.NotifyAll();
  return true;
}

void Gate::AtRest(const std::function<void()>& fn) {
  pkram::MutexLock lock(&mu_);
  while (resting_) changed_.Wait(&mu_);
  resting_ = shut_ = true;
  while (!IsEmpty()) changed_.Wait(&mu_);
  fn();
  resting_ = false;
  shut_ = closed_;
  changed_.NotifyAll();
}

void Gate::WaitAndEnter() {
  pkram::MutexLock lock(&mu_);
  for (;;) {
    while (resting_) changed_.Wait(&mu_);
    if (!closed_ || (abandoned_ && abandoned_())) break;
    changed_.WaitUntil(&mu_, std::chrono::steady_clock::now() + std::chrono::seconds(1));
  }
  // The thread that shuts the gate waits for this lock.
  Mine().fetch_add(1);
}

}  // namespace pkramfs
