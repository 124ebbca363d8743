#include "mount/region/progress_line.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/region/units.h"
#include "pkram/types.h"

namespace pkramfs {
namespace {

constexpr std::chrono::milliseconds kPause{100};
// A rate that was measured for less than this says nothing.
constexpr double kLongEnough = 1;

std::atomic<bool> silenced{false};

// Of the terminal.
size_t Columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return 80;
  return size.ws_col;
}

}  // namespace

std::string DescribeProgress(const std::string& what, bool in_bytes, uint64_t done, uint64_t of,
                             double seconds) {
  const auto amount = [&](uint64_t n) { return in_bytes ? Rounded(n) : absl::StrCat(n); };
  std::string text = absl::StrCat(what, ": ", amount(done));
  if (of != 0) {
    done = std::min(done, of);
    const auto percent =
        static_cast<int>(static_cast<double>(done) / static_cast<double>(of) * 100);
    absl::StrAppend(&text, " of ", amount(of), ", ", percent, " %");
  }
  if (seconds < kLongEnough || done == 0) return text;
  const double rate = static_cast<double>(done) / seconds;
  absl::StrAppend(&text, ", ", amount(static_cast<uint64_t>(rate)), "/s");
  if (of != 0) {
    const double left = static_cast<double>(of - done) / rate;
    absl::StrAppend(&text, ", ", Duration(static_cast<uint64_t>(left + 0.5)), " left");
  }
  return text;
}

void ProgressLine::Silence() { silenced = true; }

bool ProgressLine::IsSeen() { return !silenced && isatty(STDERR_FILENO) != 0; }

ProgressLine::ProgressLine(std::string what, Unit unit)
    : what_(std::move(what)), unit_(unit), is_seen_(IsSeen()) {}

ProgressLine::~ProgressLine() { Clear(); }

void ProgressLine::Clear() {
  if (std::exchange(shown_, false)) std::fputs("\r\033[K", stderr);
}

void ProgressLine::Show(uint64_t done, uint64_t of) {
  if (!is_seen_) return;
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + kPause;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const uint64_t scale = unit_ == Unit::kPages ? pkram::kPageSize : 1;
  std::string text =
      DescribeProgress(what_, unit_ != Unit::kPlain, done * scale, of * scale, seconds);
  // A line that is wider than the terminal would leave rows behind.
  text.resize(std::min(text.size(), Columns() - 1));
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  shown_ = true;
}

}  // namespace pkramfs
