#include "mount/daemon/threads.h"

#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/daemon/log.h"
#include "mount/serve/caller.h"
#include "mount/serve/request_name.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

constexpr size_t kMaxThreads = 10000;
constexpr unsigned kIdleThreads = 16;
// How long a thread may take for a request until it counts as one that waits.
constexpr auto kPatience = std::chrono::milliseconds(2);
// If there are more threads than this, as in a freeze, each keeps no more memory than its request
// takes.
constexpr unsigned kManyThreads = 64;
constexpr uint64_t kMostFaults = 2;

// SIGUSR1 is ours: the session has ended by itself.
constexpr int kEndSignals[] = {SIGTERM, SIGINT, SIGHUP};

// The signals that a crash of this process raises.
constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
struct sigaction fault_actions[NSIG];

// Notes in the request's slot that it has crashed the process, and lets the crash happen.
void OnFault(int number) {
  if (InFlight::Slot* const slot = CurrentRequest::Get()) ++slot->faults;
  sigaction(number, &fault_actions[number], nullptr);
  if (number == SIGABRT) raise(number);
}

// Kernels want no answer to these, so nobody waits for them.
bool IsForget(const fuse_in_header& header) {
  return header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET;
}

}  // namespace

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

void TakeEndSignals() {
  sigset_t set = EndSignals();
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // The reader of an answer may be gone.
  signal(SIGPIPE, SIG_IGN);
}

void TakeFaults() {
  struct sigaction action {};
  action.sa_handler = OnFault;
  action.sa_flags = SA_ONSTACK;
  for (const int number : kFaults) sigaction(number, &action, &fault_actions[number]);
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
  const auto starter = [](void* self) -> void* {
    static_cast<Threads*>(self)->StartMore();
    return nullptr;
  };
  pkram::MutexLock lock(&mu_);
  int error = pthread_create(&starter_, nullptr, starter, this);
  has_starter_ = error == 0;
  for (InFlight::Slot* const slot : in_flight_->left()) {
    if (IsAnswered(slot)) slot->Clear();
    if (error == 0) error = StartOne(slot);
  }
  if (error == 0) error = StartOne(in_flight_->Take());
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot start a thread: ", std::strerror(error)));
}

// If no thread is idle: how many threads must be started so that `enough` serve.  A thread serves
// if it has taken a request since the last look; otherwise it waits for something.
size_t Threads::TooFew(size_t enough) const {
  const auto stuck = static_cast<size_t>(std::ranges::count_if(
      running_, [](const Worker& worker) { return worker.requests == worker.seen; }));
  const size_t serving = running_.size() - stuck;
  if (idle_ > 0 || serving >= enough) return 0;
  // When all wait (in a freeze, say), many more may be about to ask.  But each thread has a MiB.
  const size_t many = std::min<size_t>(stuck / 4, kIdleThreads);
  const size_t more = serving > 0 ? enough - serving : std::max(enough, many);
  return std::min(more, kMaxThreads - running_.size());
}

// Makes sure that a thread is left to take the next request, unless there can be no more threads.
// That no thread is idle says little: most have answered and will be idle in a moment, because the
// program that got an answer asks again before the thread comes back.  With so many threads that
// some were always idle, each request would go to another thread, whose caches have nothing of it.
void Threads::StartMore() {
  pthread_setname_np(pthread_self(), "pkramfs-starter");
  const size_t cpus = std::thread::hardware_concurrency();
  const size_t enough = std::max({size_t{4}, std::min<size_t>(2 * cpus, kIdleThreads), cpus});
  pkram::MutexLock lock(&mu_);
  while (!ends_) {
    if (idle_ > 0 || running_.size() >= kMaxThreads) {
      starter_waits_ = true;
      none_idle_.Wait(&mu_);
      starter_waits_ = false;
      continue;
    }
    for (Worker& worker : running_) worker.seen = worker.requests;
    none_idle_.WaitUntil(&mu_, std::chrono::steady_clock::now() + kPatience);
    if (ends_) break;
    for (size_t more = TooFew(enough); more > 0; --more) {
      if (StartOne(in_flight_->Take()) != 0) break;
    }
  }
}

void Threads::JoinRetired() {
  for (const pthread_t thread : retired_) pthread_join(thread, nullptr);
  retired_.clear();
}

int Threads::StartOne(InFlight::Slot* slot) {
  if (slot == nullptr) return ENOMEM;
  JoinRetired();
  // This is asked now, because the slot belongs to the thread from its start on.
  const bool is_idle = slot->is_free();
  running_.push_back({this, slot});
  Worker* const worker = &running_.back();
  const int error = pthread_create(&worker->thread, nullptr, Run, worker);
  if (error != 0) {
    running_.pop_back();
    if (is_idle) in_flight_->Return(slot);
  } else if (is_idle) {
    ++idle_;
  }
  return error;
}

void* Threads::Run(void* worker) {
  // Otherwise the thread would have the name of the thread that started it.
  pthread_setname_np(pthread_self(), "pkramfs");
  // Only while it waits for a request may it be cancelled.
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  auto* const self = static_cast<Worker*>(worker);
  self->threads->Work(self);
  return nullptr;
}

// False when there will be no more.
bool Threads::Receive(Worker* worker) {
  InFlight::Slot* const slot = worker->slot;
  const int connection = fuse_session_fd(session_);
  if (!std::exchange(worker->is_present, true)) InFlight::MakePresent(slot);
  while (fuse_session_exited(session_) == 0) {
    slot->Prepare();
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
    const ssize_t size = read(connection, slot->request(), InFlight::kRequestBytes);
    const int error = errno;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    if (size > 0) return true;
    // The kernel has answered it.
    slot->Clear();
    // ENOENT: the program that asked was interrupted.
    if (size < 0 && (error == EINTR || error == EAGAIN || error == ENOENT)) continue;
    fuse_session_exit(session_);
    kill(getpid(), SIGUSR1);
  }
  return false;
}

// A request that has killed servers gets an error, and everything else goes on.  The log has it
// first, so that nobody gets an error of which it does not know.
void Threads::Refuse(InFlight::Slot* slot) {
  Log(LOG_ERR,
      absl::StrCat("a request (", NameOfRequest(slot->header()), ") has ended ", slot->faults,
                   " servers by a fault of theirs: it is answered with EIO; please report "
                   "it"));
  const fuse_out_header answer{sizeof(answer), -EIO, slot->header().unique};
  // The kernel does not take it from whoever asks no more.
  static_cast<void>(write(fuse_session_fd(session_), &answer, sizeof(answer)) < 0);
  slot->Clear();
}

// Whether nobody waits any more for the answer to a request that a predecessor has left.  The
// predecessor may have sent the answer, and died before it could note that.  To find out, this
// answers an interruption of the request (FUSE_INTERRUPT), which has no effect: Linux then says
// whether it knows the request.
bool Threads::IsAnswered(InFlight::Slot* slot) const {
  constexpr uint64_t kOfInterruption = 1;
  const fuse_in_header& header = slot->header();
  if (IsForget(header) || header.opcode == FUSE_INTERRUPT) return false;
  const fuse_out_header probe{sizeof(probe), -EINTR, header.unique | kOfInterruption};
  return write(fuse_session_fd(session_), &probe, sizeof(probe)) < 0 && errno == ENOENT;
}

void Threads::Answer(InFlight::Slot* slot) {
  fuse_buf request{};
  request.mem = slot->request();
  request.size = slot->header().len;
  // A FORGET is not executed again: the kernel's count may be lower than ours, but not higher.
  if (IsForget(slot->header())) slot->Clear();
  if (slot->faults >= kMostFaults) {
    Refuse(slot);
    return;
  }
  const CurrentRequest current(slot);
  fuse_session_process_buf(session_, &request);
  slot->Clear();
}

void Threads::Work(Worker* worker) {
  InFlight::Slot* const slot = worker->slot;
  bool was_idle = slot->is_free();
  while (!slot->is_free() || Receive(worker)) {
    const bool is_forget = IsForget(slot->header());
    if (was_idle && !is_forget) {
      pkram::MutexLock lock(&mu_);
      ++worker->requests;
      if (--idle_ == 0 && starter_waits_) none_idle_.NotifyOne();
      if (running_.size() > kManyThreads) {
        in_flight_->Trim(slot);
        worker->is_present = false;
      }
    }
    Answer(slot);
    if (was_idle && is_forget) continue;
    was_idle = true;
    pkram::MutexLock lock(&mu_);
    if (++idle_ > kIdleThreads && fuse_session_exited(session_) == 0) {
      --idle_;
      in_flight_->Return(slot);
      retired_.push_back(worker->thread);
      running_.remove_if([worker](const Worker& other) { return &other == worker; });
      break;
    }
  }
}

Threads::Wake Threads::WaitToEnd(int link, int timeout) {
  sigset_t set = EndSignals();
  sigaddset(&set, SIGUSR1);
  const pkram::Descriptor signals(signalfd(-1, &set, SFD_CLOEXEC));
  while (fuse_session_exited(session_) == 0) {
    pollfd events[] = {{signals.get(), POLLIN, 0}, {link, 0, 0}};
    const int ready = poll(events, 2, timeout);
    if (ready == 0) return Wake::kTimeout;
    if (ready < 0) continue;
    if (events[0].revents == 0) return Wake::kLinkClosed;
    signalfd_siginfo info;
    if (read(signals.get(), &info, sizeof(info)) == sizeof(info) && info.ssi_signo != SIGUSR1) {
      fuse_session_exit(session_);
    }
  }
  return Wake::kEnd;
}

Threads::~Threads() {
  if (has_starter_) {
    {
      pkram::MutexLock lock(&mu_);
      ends_ = true;
      none_idle_.NotifyOne();
    }
    pthread_join(starter_, nullptr);
  }
  for (;;) {
    pthread_t thread;
    {
      pkram::MutexLock lock(&mu_);
      if (running_.empty()) {
        JoinRetired();
        return;
      }
      // The worker's, which it may still use.
      ended_.splice(ended_.begin(), running_, running_.begin());
      thread = ended_.front().thread;
    }
    pthread_cancel(thread);
    pthread_join(thread, nullptr);
  }
}

}  // namespace pkramfs
