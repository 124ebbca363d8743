#include "mount/command_line.h"

#include <cstdio>

namespace pkramfs {

std::optional<int> ParseCommandLine(CLI::App* app, int argc, char** argv, int wrong_usage) {
  const std::string name = app->get_name();
  app->set_version_flag("--version,-V", name + " " PKRAMFS_VERSION);
  try {
    app->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app->help().c_str(), stdout);
    return 0;
  } catch (const CLI::CallForAllHelp&) {
    std::fputs(app->help("", CLI::AppFormatMode::All).c_str(), stdout);
    return 0;
  } catch (const CLI::CallForVersion& e) {
    std::printf("%s\n", e.what());
    return 0;
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "%s: %s: see %s --help\n", name.c_str(), e.what(), name.c_str());
    return wrong_usage;
  }
}

bool ApplyLists(const std::string& program, const std::vector<std::string>& lists,
                MountOptions* options) {
  for (const std::string& list : lists) {
    if (absl::Status s = ApplyMountOptions(list, PhysicalMemory(), options); !s.ok()) {
      std::fprintf(stderr, "%s: %s\n", program.c_str(), std::string(s.message()).c_str());
      return false;
    }
  }
  return true;
}

}  // namespace pkramfs
