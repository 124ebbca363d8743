// How far long work has come, for a person at a terminal.
#ifndef MOUNT_REGION_PROGRESS_LINE_H_
#define MOUNT_REGION_PROGRESS_LINE_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace pkramfs {

// "check: 1.20 GiB of 4.00 GiB, 30 %, 1.10 GiB/s, 3 s left".  `of` is 0 if nobody knows the whole.
std::string DescribeProgress(const std::string& what, bool in_bytes, uint64_t done, uint64_t of,
                             double seconds);

// A line on standard error, if that is a terminal and nobody has silenced it.  It is written anew
// as the work goes on, and is gone in the end.
class ProgressLine {
 public:
  enum class Unit { kBytes, kPages, kPlain };  // pages are shown as bytes
  ProgressLine(std::string what, Unit unit);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // From now on this process shows no line (--quiet).
  static void Silence();
  // Whether a line would be shown.
  static bool IsSeen();

  // `done` of `of` units; `of` is 0 if nobody knows the whole.  Cheap: it writes ten times a second
  // at most.
  void Show(uint64_t done, uint64_t of);
  // Takes the line away, until it is shown again: before another line is printed.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;

  const std::string what_;
  const Unit unit_;
  const bool is_seen_;
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point next_ = begin_;
  bool shown_ = false;
};

}  // namespace pkramfs

#endif  // MOUNT_REGION_PROGRESS_LINE_H_
