// How the commands of pkramctl say what has come of them.
#ifndef MOUNT_CTL_OUTPUT_H_
#define MOUNT_CTL_OUTPUT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace pkramfs {

// In the order in which the fields were added.
using Json = nlohmann::ordered_json;

// Exit statuses of pkramctl.
inline constexpr int kProblems = 1;  // the region that was looked at has problems
inline constexpr int kCannot = 2;    // the command could not do what it was asked for

// Says on standard error what went wrong, and returns kCannot.
int Fail(const absl::Status& status);

// Writes to standard output.  Returns 0, or kCannot if the output is gone.
int Print(const Json& json);
int Print(const std::string& text);
// Returns 0 if everything that was printed by now is written.  Otherwise says so, once, and returns
// kCannot.
int Flush();

}  // namespace pkramfs

#endif  // MOUNT_CTL_OUTPUT_H_
