// Becoming a daemon, in such a way that the caller learns whether the mount serves.
//
// The parent forks before anything is opened, and waits.  The child opens and mounts, and tells the
// parent. The child has the standard error until then, so its errors and warnings reach the user.
#ifndef MOUNT_DAEMON_STARTUP_H_
#define MOUNT_DAEMON_STARTUP_H_

namespace pkramfs {

// Detaches from the terminal, and from the directory in which the process was started.  False when
// there is no root directory.
bool Detach();

class Startup {
 public:
  // Forks, unless `foreground`.  Returns in the child only.  The parent ends with status 0 once the
  // child has called Ready, or with the child's status when the child ends without.
  explicit Startup(bool foreground);
  ~Startup();
  Startup(const Startup&) = delete;
  Startup& operator=(const Startup&) = delete;

  // Says that the mount serves: lets the parent end, and detaches from the terminal.  False when
  // the parent is gone because the start was interrupted.
  bool Ready();
  // Leaves it to another process, which this one has started, to call Ready.
  void LeaveToAnother();

 private:
  int pipe_ = -1;
};

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_STARTUP_H_
