// How far something is that takes long, for who sits at a terminal.
#ifndef MOUNT_REGION_PROGRESS_LINE_H_
#define MOUNT_REGION_PROGRESS_LINE_H_

#include <cstdint>
#include <string>

namespace pkramfs {

// A line on standard error, if that is a terminal; it is gone in the end.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Whether anybody sees one.
  static bool IsSeen();
  void Show(uint64_t done, uint64_t of);

 private:
  const std::string what_;
  const bool is_seen_;
  int shown_ = -1;  // percent
};

}  // namespace pkramfs

#endif  // MOUNT_REGION_PROGRESS_LINE_H_
