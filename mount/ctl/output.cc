#include "mount/ctl/output.h"

#include <cstdio>
#include <utility>

#include "mount/tools/command_line.h"

namespace pkramfs {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "pkramctl: %s\n", Printable(std::string(status.message())).c_str());
  return kCannot;
}

int Print(const Json& json) {
  return Print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

int Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return Flush();
}

int Flush() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
  static bool is_said = false;
  if (!std::exchange(is_said, true)) {
    std::fprintf(stderr, "pkramctl: the output cannot be written\n");
  }
  return kCannot;
}

}  // namespace pkramfs
