// What the programs' command lines have in common.
#ifndef MOUNT_COMMAND_LINE_H_
#define MOUNT_COMMAND_LINE_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mount/options.h"

namespace pkramfs {

// Parses, with --help and --version added.  The status to end with, because one of these was
// asked for or the command line is wrong (`wrong_usage`), which is said; or nothing.
std::optional<int> ParseCommandLine(CLI::App* app, int argc, char** argv, int wrong_usage);

// Applies the lists that -o was given.  False when one is wrong, which is said in `program`'s name.
bool ApplyLists(const std::string& program, const std::vector<std::string>& lists,
                MountOptions* options);

}  // namespace pkramfs

#endif  // MOUNT_COMMAND_LINE_H_
