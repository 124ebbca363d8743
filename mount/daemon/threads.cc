#include "mount/daemon/threads.h"

#include <linux/fuse.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "mount/serve/caller.h"

namespace pkramfs {
namespace {

constexpr unsigned kMaxThreads = 10000;
constexpr unsigned kIdleThreads = 16;

// SIGUSR1 is ours: the session has ended by itself.
constexpr int kEndSignals[] = {SIGTERM, SIGINT, SIGHUP};

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : kEndSignals) {
    struct sigaction action;
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
      sigaddset(&set, number);
    }
  }
  return set;
}

// Kernels want no answer to these, so nobody waits for them.
bool IsForget(const fuse_buf& request) {
  fuse_in_header header;
  if ((request.flags & FUSE_BUF_IS_FD) != 0 || request.size < sizeof(header)) return false;
  std::memcpy(&header, request.mem, sizeof(header));
  return header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET;
}

}  // namespace

void TakeEndSignals() {
  sigset_t set = EndSignals();
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // Who reads an answer may be gone.
  signal(SIGPIPE, SIG_IGN);
}

bool IsToldToEnd() {
  const sigset_t set = EndSignals();
  sigset_t pending;
  sigpending(&pending);
  for (const int number : kEndSignals) {
    if (sigismember(&set, number) != 0 && sigismember(&pending, number) != 0) return true;
  }
  return false;
}

absl::Status Threads::Start() {
  pkram::MutexLock lock(&mu_);
  const int error = StartOne();
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot start a thread: ", std::strerror(error)));
}

void Threads::JoinRetired() {
  for (const pthread_t thread : retired_) pthread_join(thread, nullptr);
  retired_.clear();
}

int Threads::StartOne() {
  JoinRetired();
  running_.emplace_back();
  const int error = pthread_create(&running_.back(), nullptr, Run, this);
  if (error != 0) {
    running_.pop_back();
  } else {
    ++idle_;
  }
  return error;
}

void* Threads::Run(void* self) {
  // Only while it waits for a request may it be cancelled.
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  static_cast<Threads*>(self)->Work();
  return nullptr;
}

void Threads::Work() {
  fuse_buf request{};
  // Runs when the thread is cancelled, too.
  pthread_cleanup_push([](void* buf) { std::free(static_cast<fuse_buf*>(buf)->mem); }, &request);
  while (fuse_session_exited(session_) == 0) {
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
    const int received = fuse_session_receive_buf(session_, &request);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    if (received == -EINTR || received == -EAGAIN) continue;
    if (received <= 0) {
      fuse_session_exit(session_);
      kill(getpid(), SIGUSR1);
      break;
    }
    const bool is_forget = IsForget(request);
    if (!is_forget) {
      pkram::MutexLock lock(&mu_);
      // Somebody is always left to take the next one, unless there can be no more threads.
      if (--idle_ == 0 && running_.size() < kMaxThreads) StartOne();
    }
    {
      const CurrentRequest current(request.mem, request.size);
      fuse_session_process_buf(session_, &request);
    }
    if (is_forget) continue;
    pkram::MutexLock lock(&mu_);
    if (++idle_ > kIdleThreads && fuse_session_exited(session_) == 0) {
      --idle_;
      running_.remove(pthread_self());
      retired_.push_back(pthread_self());
      break;
    }
  }
  pthread_cleanup_pop(1);
}

void Threads::WaitToEnd() {
  sigset_t set = EndSignals();
  sigaddset(&set, SIGUSR1);
  int number = 0;
  while (fuse_session_exited(session_) == 0 && sigwait(&set, &number) == 0) {
    if (number != SIGUSR1) fuse_session_exit(session_);
  }
}

Threads::~Threads() {
  for (;;) {
    pthread_t thread;
    {
      pkram::MutexLock lock(&mu_);
      if (running_.empty()) {
        JoinRetired();
        return;
      }
      thread = running_.front();
      running_.pop_front();
    }
    pthread_cancel(thread);
    pthread_join(thread, nullptr);
  }
}

}  // namespace pkramfs
