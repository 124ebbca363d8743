#include "mount/daemon/log.h"

#include <cstdio>

namespace pkramfs {
namespace {

bool to_standard_error = false;

}  // namespace

void LogToStandardError() { to_standard_error = true; }

void Log(int priority, const std::string& line) {
  if (to_standard_error) {
    std::fprintf(stderr, "pkramfs: %s\n", line.c_str());
  } else {
    openlog("pkramfs", LOG_PID, LOG_DAEMON);
    syslog(LOG_DAEMON | priority, "%s", line.c_str());
  }
}

}  // namespace pkramfs
