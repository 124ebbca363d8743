#include "tests/conformance/kernel_rules.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

namespace pkramfs {
namespace {

// Whether an ordinary user, who owns a file of that type, may set that attribute of it.  A
// filesystem that has no such attributes says so later than the kernel says no.
bool OwnerMay(mode_t type, const char* name) {
  const std::string path = "/dev/shm/pkramfs-test-rule-" + std::to_string(getpid());
  const pid_t child = fork();
  if (child == 0) {
    if (getuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(1);
    if (mknod(path.c_str(), type | 0600, 0) != 0) _exit(1);
    const bool may = setxattr(path.c_str(), name, "", 0, 0) == 0 || errno == EOPNOTSUPP;
    unlink(path.c_str());
    _exit(may ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0;
}

}  // namespace

bool SocketsHaveUserAttributes() {
  static const bool have = OwnerMay(S_IFSOCK, "user.a");
  return have;
}

bool AnybodySetsSecurityAttributes() {
  static const bool may = OwnerMay(S_IFREG, "security.a");
  return may;
}

}  // namespace pkramfs
