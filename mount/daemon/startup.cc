#include "mount/daemon/startup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace pkramfs {

namespace {

constexpr int kSystemError = 2;  // mount(8)'s
constexpr int kInterrupted = 8;
constexpr int kInterruptions[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
volatile pid_t starting_child = 0;

volatile sig_atomic_t interrupted = 0;

void Forward(int number) {
  interrupted = 1;
  kill(starting_child, number);
}

}  // namespace

Startup::Startup(bool foreground) {
  if (foreground) return;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    std::perror("pkramfs: pipe");
    std::exit(kSystemError);
  }
  const pid_t child = fork();
  if (child < 0) {
    std::perror("pkramfs: fork");
    std::exit(kSystemError);
  }
  if (child == 0) {
    close(ends[0]);
    pipe_ = ends[1];
    signal(SIGPIPE, SIG_IGN);
    return;
  }
  close(ends[1]);
  // A signal that interrupts this process is meant for the child.
  starting_child = child;
  for (const int number : kInterruptions) signal(number, Forward);
  char byte;
  ssize_t n;
  do {
    n = read(ends[0], &byte, 1);
  } while (n < 0 && errno == EINTR);
  if (n == 1) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  if (interrupted) _exit(kInterrupted);
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) _exit(WEXITSTATUS(status));
  if (WIFSIGNALED(status)) {
    std::fprintf(stderr, "pkramfs: ended by signal %d before it was ready\n", WTERMSIG(status));
  } else {
    std::fprintf(stderr, "pkramfs: unmounted before it was ready\n");
  }
  _exit(kSystemError);
}

bool Startup::Ready() {
  if (pipe_ < 0) return true;
  const char byte = 0;
  if (write(pipe_, &byte, 1) != 1) return false;
  LeaveToAnother();
  return Detach();
}

void Startup::LeaveToAnother() {
  if (pipe_ >= 0) close(pipe_);
  pipe_ = -1;
}

bool Detach() {
  setsid();
  if (chdir("/") != 0) return false;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
    close(null);
  }
  return true;
}

Startup::~Startup() { LeaveToAnother(); }

}  // namespace pkramfs
