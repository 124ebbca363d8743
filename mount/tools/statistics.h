// What the daemon of a mount reports about itself, checked.
#ifndef MOUNT_TOOLS_STATISTICS_H_
#define MOUNT_TOOLS_STATISTICS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace pkramfs {

// Parses the document that a daemon sends (Describe in mount/serve/server.h).  Any user may serve a
// mount, so nothing in it is believed: every field that this program reads has the type that it
// expects, numbers are not negative and have 53 bits at most, and names of counters are words.
// Fields that are not known are kept.  INVALID_ARGUMENT.
absl::StatusOr<nlohmann::ordered_json> ParseStatistics(std::string_view text);

// Asks the daemon of the mount that this directory is on.  An empty object if nobody answers.
nlohmann::ordered_json AskStatistics(int directory);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_STATISTICS_H_
