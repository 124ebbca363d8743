// A program that stops at each system call that matters, so that something may happen to it, or
// around it, at every step of its work.
#ifndef TESTS_TRACED_H_
#define TESTS_TRACED_H_

#include <elf.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>

// (glibc's header for ptrace does not go with the kernel's.)
extern "C" long ptrace(int request, ...) noexcept;

namespace pkramfs {

class Traced {
 public:
  // Forks, and runs `body` in the child.  It stops at its first step.  Only the steps of the main
  // thread count.
  explicit Traced(const std::function<int()>& body) : pid_(fork()) {
    if (pid_ == 0) {
      // Leaks cannot be looked for in a process that is traced.
      setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
      ptrace(kTraceMe, 0, 0, 0);
      raise(SIGSTOP);
      _exit(body());
    }
    if (waitpid(pid_, &status_, 0) != pid_ || !WIFSTOPPED(status_)) {
      throw std::runtime_error("cannot trace");
    }
    ptrace(PTRACE_SETOPTIONS, pid_, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  }
  // Runs a command, whose output goes to `output`.
  Traced(const std::string& command, const std::string& output)
      : Traced([&] {
          const int fd = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
          dup2(fd, STDOUT_FILENO);
          dup2(fd, STDERR_FILENO);
          execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
          return 127;
        }) {}
  ~Traced() {
    if (!ended_) Kill();
  }
  Traced(const Traced&) = delete;
  Traced& operator=(const Traced&) = delete;

  // Goes on to the beginning or the end of the next call that matters.  False if it ends before.
  bool Next() {
    for (int signal = 0; !ended_;) {
      ptrace(PTRACE_SYSCALL, pid_, 0, signal);
      Await();
      if (ended_) break;
      signal = WSTOPSIG(status_);
      if (signal == SIGTRAP) signal = 0;  // of execve
      if (signal != (SIGTRAP | 0x80)) continue;
      signal = 0;
      if (IsStep()) return true;
    }
    return false;
  }
  // Goes on to its end.  Returns its exit status, or 128 and the signal.
  int Finish() {
    for (int signal = 0; !ended_;) {
      ptrace(PTRACE_CONT, pid_, 0, signal);
      Await();
      if (!ended_) signal = WSTOPSIG(status_) == SIGTRAP ? 0 : WSTOPSIG(status_);
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  void Kill() {
    kill(pid_, SIGKILL);
    while (!ended_) Await();
  }
  // The call that it stands in.
  const std::string& step() const { return step_; }

 private:
  static constexpr int kTraceMe = 0;

  void Await() {
    if (waitpid(pid_, &status_, 0) != pid_) throw std::runtime_error("a child is lost");
    ended_ = WIFEXITED(status_) || WIFSIGNALED(status_);
  }
  // Whether the call changes anything that others may see, or is about another process.
  bool IsStep() {
    ptrace_syscall_info info{};
    ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof(info), &info);
    if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
      if (!in_step_) return false;
      in_step_ = false;
      step_ = "behind " + step_.substr(step_.find(' ') + 1);
      return true;
    }
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return false;
    const auto number = static_cast<long>(info.entry.nr);
    const uint64_t command = info.entry.args[1];
    static const std::set<long> kOthers = {SYS_pwritev,   SYS_pwrite64,  SYS_fallocate,
                                           SYS_renameat2, SYS_unlinkat,  SYS_fchmod,
                                           SYS_fchown,    SYS_fsetxattr, SYS_wait4};
    in_step_ = number == SYS_ioctl   ? (command >> 8 & 0xff) == 'P'
               : number == SYS_clone ? (info.entry.args[0] & CLONE_THREAD) == 0
               : number == SYS_fcntl ? command == F_OFD_SETLK
                                     : kOthers.contains(number);
    if (in_step_) {
      step_ = "before call " + std::to_string(number) +
              (number == SYS_ioctl ? " " + std::to_string(command & 0xff) : "");
    }
    return in_step_;
  }

  const pid_t pid_;
  int status_ = 0;
  bool ended_ = false, in_step_ = false;
  std::string step_;
};

}  // namespace pkramfs

#endif  // TESTS_TRACED_H_
