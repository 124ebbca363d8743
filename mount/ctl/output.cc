#include "mount/ctl/output.h"

#include <cstdio>

namespace pkramfs {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "pkramctl: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

int Print(const Json& json) {
  return Print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

int Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  return std::fflush(stdout) == 0 ? 0 : kFailed;
}

}  // namespace pkramfs
