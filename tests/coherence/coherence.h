// The rule: no reader sees bytes that are older than a write which was acknowledged before the read
// began, or bytes that nobody wrote, or a file that is shorter than it was.  Many processes at once
// try every way to write beside every way to read.
#ifndef TESTS_COHERENCE_COHERENCE_H_
#define TESTS_COHERENCE_COHERENCE_H_

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace pkramfs {

// What processes of a test share: memory of a type whose members are atomics and arrays.
template <typename T>
class Shared {
 public:
  Shared() {
    void* const at =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    it_ = new (at) T;
  }
  ~Shared() { munmap(static_cast<void*>(it_), sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T* operator->() const { return it_; }
  T& operator*() const { return *it_; }

 private:
  T* it_;
};

// The first fault that was found.  All processes stop then.
class Fault {
 public:
  void Say(const std::string& what) {
    if (said_.exchange(1) == 0) std::snprintf(text_, sizeof(text_), "%s", what.c_str());
    stop_ = 1;
  }
  bool stop() const { return stop_ != 0; }
  std::string text() const { return said_ != 0 ? text_ : ""; }

 private:
  std::atomic<int> said_{0}, stop_{0};
  char text_[400] = {};
};

// Runs each function in a process of its own, and waits.  An exception is a fault.
inline void RunAll(const std::vector<std::function<void()>>& processes, Fault* fault) {
  std::vector<pid_t> pids;
  for (const auto& process : processes) {
    const pid_t pid = fork();
    if (pid == 0) {
      try {
        process();
      } catch (const std::exception& e) {
        fault->Say(e.what());
      }
      _exit(0);
    }
    if (pid < 0) fault->Say("fork");
    pids.push_back(pid);
  }
  for (const pid_t pid : pids) {
    int status = 0;
    if (pid > 0 && waitpid(pid, &status, 0) == pid && status != 0) {
      fault->Say("a process ended with status " + std::to_string(status));
    }
  }
}

using Deadline = std::chrono::steady_clock::time_point;

inline bool IsOver(Deadline deadline) { return std::chrono::steady_clock::now() >= deadline; }

inline Deadline In(double seconds) {
  return std::chrono::steady_clock::now() +
         std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6));
}

// Whether each byte of `number` is one of a number from `least` to `most`.  A kernel copies bytes,
// not words, and may be interrupted within one: on tmpfs, too, a reader can see half of each of
// two.
inline bool IsMadeOf(uint64_t number, uint64_t least, uint64_t most) {
  if (number >= least && number <= most) return true;
  for (unsigned shift = 0; shift < 64; shift += 8) {
    uint64_t i = least;
    while (i <= most && ((number ^ i) >> shift & 0xff) != 0) ++i;
    if (i > most) return false;
  }
  return true;
}

// The tests.  Each says at once what is wrong, and returns whether nothing was.
bool CheckContents(const std::string& directory, double seconds);
bool CheckBatches(const std::string& directory, double seconds);
// `exact`: also that a file is never shorter than its size says (docs/semantics.md, "Modes").
bool CheckLogs(const std::string& directory, double seconds, bool exact);

}  // namespace pkramfs

#endif  // TESTS_COHERENCE_COHERENCE_H_
