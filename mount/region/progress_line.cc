#include "mount/region/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace pkramfs {

bool ProgressLine::IsSeen() { return isatty(STDERR_FILENO) != 0; }

ProgressLine::ProgressLine(std::string what) : what_(std::move(what)), is_seen_(IsSeen()) {}

ProgressLine::~ProgressLine() {
  if (shown_ >= 0) std::fputs("\r\033[K", stderr);
}

void ProgressLine::Show(uint64_t done, uint64_t of) {
  if (!is_seen_ || of == 0) return;
  const int percent = static_cast<int>(std::min(done, of) * 100 / of);
  if (percent == std::exchange(shown_, percent)) return;
  std::fprintf(stderr, "\r%s: %d %%", what_.c_str(), percent);
}

}  // namespace pkramfs
