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
#include <limits>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "mount/region/memory_limit.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// As <linux/liveupdate.h> has them, which is not on every machine that builds this.
constexpr unsigned kType = 0xBA;
constexpr unsigned long kCreateSession = _IO(kType, 0x00), kRetrieveSession = _IO(kType, 0x01),
                        kPreserve = _IO(kType, 0x40), kRetrieve = _IO(kType, 0x41),
                        kFinish = _IO(kType, 0x42), kGetName = _IO(kType, 0x43);
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
struct OfName {
  uint32_t size;
  uint32_t reserved;
  char name[kMostSessionBytes + 1];
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
    const int error = errno;
    const std::string why = absl::StrCat(kLiveUpdateDevice, ": ", std::strerror(error));
    switch (error) {
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

constexpr int kKilled = std::numeric_limits<int>::min();

// What `call` returns in a child outside of all limits, which has the same descriptors: a number,
// or minus an error.  kKilled if the child was.  Memory is charged to the process that asks for it.
template <typename Call>
int OutsideOfLimits(const Call& call) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
  const Descriptor answer(ends[0]), question(ends[1]);
  const auto child = static_cast<pid_t>(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    LeaveCgroups();
    const int result = call();
    _exit(write(question.get(), &result, sizeof(result)) == sizeof(result) ? 0 : 1);
  }
  if (child < 0) return -errno;
  int status = 0, result = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return kKilled;
  return read(answer.get(), &result, sizeof(result)) == sizeof(result) ? result : kKilled;
}

}  // namespace

absl::StatusOr<Descriptor> CreateSession(const std::string& name) {
  int error;
  absl::StatusOr<Descriptor> session = AskDevice(kCreateSession, name, &error);
  if (error == EEXIST) {
    return absl::AlreadyExistsError("is preserved already, or systemd has its session");
  }
  return session;
}

absl::Status PutInto(const Descriptor& session, int memfd) {
  const int result = OutsideOfLimits([&] {
    OfSession asked{sizeof(asked), memfd, kToken};
    return ioctl(session.get(), kPreserve, &asked) == 0 ? 0 : -errno;
  });
  switch (result) {
    case 0:
      return absl::OkStatus();
    case kKilled:
      return absl::ResourceExhaustedError("the process that filled the holes was killed");
    case -EBUSY:
    case -EEXIST:
      return absl::AlreadyExistsError("is preserved already, by another session");
    case -ENOMEM:
    case -ENOSPC:
    case -EFBIG:
      return absl::ResourceExhaustedError(std::strerror(-result));
    default:
      return Error("the kernel does not preserve it", -result);
  }
}

absl::Status CheckLiveUpdate() { return OpenDevice().status(); }

absl::StatusOr<Descriptor> FindSession(const std::string& name) {
  int error;
  absl::StatusOr<Descriptor> session = AskDevice(kRetrieveSession, name, &error);
  if (error == ENOENT) return absl::NotFoundError("there is no session of that name");
  if (error == EINVAL) return absl::AbortedError("another process has taken the session");
  return session;
}

std::string NameOfSession(const Descriptor& session) {
  OfName asked{sizeof(asked), 0, {}};
  if (ioctl(session.get(), kGetName, &asked) != 0) return "";
  return std::string(asked.name, strnlen(asked.name, sizeof(asked.name)));
}

bool IsOfKernelBefore(const Descriptor& session) {
  // What asking for a token that no session has tells: ENOENT, or EINVAL of one that was made here.
  OfSession asked{sizeof(asked), -1, ~kToken};
  return ioctl(session.get(), kRetrieve, &asked) != 0 && errno != EINVAL;
}

absl::Status CheckLimits() {
  const std::optional<MemoryLimit> limit = LowestMemoryLimit();
  if (!limit) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      limit->file,
      " is a limit that this process cannot leave, and that might end it while it takes "
      "the memory back: start it outside, or without ProtectControlGroups="));
}

absl::StatusOr<Descriptor> TakeOutOf(const Descriptor& session, In where) {
  if (!IsOfKernelBefore(session)) {
    return absl::FailedPreconditionError("the session is of this kernel");
  }
  const auto take = [&] {
    OfSession asked{sizeof(asked), -1, kToken};
    return ioctl(session.get(), kRetrieve, &asked) == 0 ? asked.fd : -errno;
  };
  const int result = where == In::kThisProcess
                         ? take()
                         : OutsideOfLimits([&] { return CheckLimits().ok() ? take() : -EPERM; });
  if (result >= 0) return Descriptor(result);
  switch (result) {
    case -EPERM:
      return absl::PermissionDeniedError(
          "this process has a limit of memory that it cannot leave, and that might end it while it "
          "takes the memory back: leave out ProtectControlGroups=");
    case -ENOENT:
      return absl::NotFoundError("the memory was taken back already");
    case kKilled:
      return absl::InternalError("the process that took the memory back was killed");
    default:
      return Error("the kernel does not give the memory back", -result);
  }
}

void Finish(const Descriptor& session) {
  OfFinish finish{sizeof(finish), 0};
  // (If this fails, the memory is ours all the same, and closing the session tries again.)
  (void)ioctl(session.get(), kFinish, &finish);
}

}  // namespace pkramfs
