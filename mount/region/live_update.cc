#include "mount/region/live_update.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// As <linux/liveupdate.h> has them, which is not on every machine that builds this.
constexpr unsigned kType = 0xBA;
constexpr unsigned long kCreateSession = _IO(kType, 0x00), kRetrieveSession = _IO(kType, 0x01),
                        kPreserve = _IO(kType, 0x40), kRetrieve = _IO(kType, 0x41),
                        kFinish = _IO(kType, 0x42);
struct OfDevice {
  uint32_t size;
  int32_t fd;
  char name[kMostSessionBytes + 1];
};
struct OfSession {
  uint32_t size;
  int32_t fd;
  uint64_t token;
};
struct OfFinish {
  uint32_t size;
  uint32_t reserved;
};
constexpr uint64_t kToken = 1;  // the session's only memfd

constexpr auto kPatienceWithDevice = std::chrono::seconds(10);

absl::Status Error(const char* what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

// The kernel lets one process at a time open the device.
absl::StatusOr<Descriptor> OpenDevice() {
  const auto deadline = std::chrono::steady_clock::now() + kPatienceWithDevice;
  for (;;) {
    const int fd = open(kLiveUpdateDevice, O_RDWR | O_CLOEXEC);
    if (fd >= 0) return Descriptor(fd);
    const std::string why = absl::StrCat(kLiveUpdateDevice, ": ", std::strerror(errno));
    switch (errno) {
      case EINTR:
        continue;
      case ENOENT:
      case ENXIO:
      case ENODEV:
        return absl::NotFoundError(why);
      case EACCES:
      case EPERM:
        return absl::PermissionDeniedError(why);
      case EBUSY:
        if (std::chrono::steady_clock::now() >= deadline) {
          return absl::UnavailableError(absl::StrCat(why, ": another program has it open"));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        continue;
      default:
        return absl::InternalError(why);
    }
  }
}

absl::StatusOr<Descriptor> AskDevice(unsigned long call, const std::string& name, int* error) {
  *error = 0;
  const absl::StatusOr<Descriptor> device = OpenDevice();
  if (!device.ok()) return device.status();
  OfDevice asked{sizeof(asked), -1, {}};
  name.copy(asked.name, kMostSessionBytes);
  if (ioctl(device->get(), call, &asked) == 0) return Descriptor(asked.fd);
  *error = errno;
  return Error(kLiveUpdateDevice, *error);
}

// Moves this process to the topmost cgroup, which has no limit.
void LeaveLimits() {
  for (const char* const file :
       {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"}) {
    const int procs = open(file, O_WRONLY | O_CLOEXEC);
    if (procs >= 0 && write(procs, "0", 1) != 1) continue;
    if (procs >= 0) close(procs);
  }
}

// A new process with the same descriptors.
pid_t ForkWithDescriptors() {
  return static_cast<pid_t>(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
}

}  // namespace

absl::StatusOr<Descriptor> CreateSession(const std::string& name) {
  int error;
  absl::StatusOr<Descriptor> session = AskDevice(kCreateSession, name, &error);
  if (error == EEXIST) return absl::AlreadyExistsError("there is a session of that name");
  return session;
}

absl::Status PutInto(const Descriptor& session, int memfd) {
  OfSession asked{sizeof(asked), memfd, kToken};
  if (ioctl(session.get(), kPreserve, &asked) == 0) return absl::OkStatus();
  const char* const why = std::strerror(errno);
  switch (errno) {
    case EBUSY:
    case EEXIST:
      return absl::AlreadyExistsError("a session has it already");
    case ENOMEM:
    case ENOSPC:
    case EFBIG:
      return absl::ResourceExhaustedError(why);
    default:
      return Error("the kernel does not preserve it", errno);
  }
}

absl::StatusOr<Descriptor> FindSession(const std::string& name) {
  int error;
  absl::StatusOr<Descriptor> session = AskDevice(kRetrieveSession, name, &error);
  if (error == ENOENT) return absl::NotFoundError("there is no session of that name");
  if (error == EINVAL) return absl::AbortedError("another process has taken the session");
  return session;
}

absl::StatusOr<Descriptor> TakeOutOf(const Descriptor& session) {
  // The memory is charged to the process that asks for it: to a child, which shares descriptors.
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Error("pipe", errno);
  const Descriptor answer(ends[0]), question(ends[1]);
  struct Answer {
    int fd, error;
  } result{-1, EIO};
  const pid_t child = ForkWithDescriptors();
  if (child == 0) {
    LeaveLimits();
    OfSession asked{sizeof(asked), -1, kToken};
    Answer mine{-1, 0};
    if (ioctl(session.get(), kRetrieve, &asked) == 0) {
      mine.fd = asked.fd;
    } else {
      mine.error = errno;
    }
    _exit(write(question.get(), &mine, sizeof(mine)) == sizeof(mine) ? 0 : 1);
  }
  if (child < 0) return Error("fork", errno);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 ||
      read(answer.get(), &result, sizeof(result)) != sizeof(result)) {
    return absl::InternalError("the process that took the memory back was killed");
  }
  if (result.error == EINVAL) {
    return absl::FailedPreconditionError("the session is of this kernel");
  }
  if (result.fd < 0) return Error("the kernel does not give the memory back", result.error);
  return Descriptor(result.fd);
}

void Finish(const Descriptor& session) {
  OfFinish finish{sizeof(finish), 0};
  // (If this fails, the memory is ours all the same, and closing the session tries again.)
  (void)ioctl(session.get(), kFinish, &finish);
}

}  // namespace pkramfs
