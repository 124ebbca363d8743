// Becoming a daemon, so that whoever started it learns whether it serves.
//
// The parent forks before anything is opened and waits; the child opens, mounts
// and tells.  Standard error is the child's until then, so errors and warnings
// come out where they should.
#ifndef MOUNT_DAEMON_STARTUP_H_
#define MOUNT_DAEMON_STARTUP_H_

namespace pkramfs {

// From the terminal and the directory that it was started in.  False when there is no root.
bool Detach();

class Startup {
 public:
  // Forks, unless `foreground`.  Returns in the child only; the parent ends with
  // status 0 once Ready was called, or with the child's when it ended without.
  explicit Startup(bool foreground);
  ~Startup();
  Startup(const Startup&) = delete;
  Startup& operator=(const Startup&) = delete;

  // The mount serves: lets the parent go and detaches from the terminal.  False
  // when the parent is gone (the start was interrupted).
  bool Ready();
  // Another process, which this one has started, will say so.
  void LeaveToAnother();

 private:
  int pipe_ = -1;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_STARTUP_H_
