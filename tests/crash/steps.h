// The steps that are tried at every store: each operation of the filesystem, with every kind of
// argument.  A step's name begins with the method that it calls, and has its flags.  The registry
// compares these with the headers.
#ifndef TESTS_CRASH_STEPS_H_
#define TESTS_CRASH_STEPS_H_

#include <fcntl.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/crash/points.h"

namespace pkramfs {

struct Step {
  std::string name;
  // Both run with lookups counted as the kernel's would be.
  std::function<void(Filesystem&, const Context&)> run;
  Mask mask;
  bool changes = true;      // what can be seen
  bool one_request = true;  // as the kernel sends them: so it may be sent to a successor, too
};

inline const Context kNow{.uid = 0, .gid = 0, .now = {5000, 1}};

// Of the region of Start.
inline constexpr uint64_t kStartPages = 4096;

// The state from which every step starts.  It has something of every kind.
const Image& Start();

std::vector<Step> AllSteps();

Step Unlink(const std::string& parent, const std::string& name);
Step Rename(const std::string& from, const std::string& name, const std::string& to,
            const std::string& new_name, uint32_t flags = 0);
Step Write(const std::string& path, uint64_t offset, size_t size);
Step Truncate(const std::string& path, uint64_t size);
Step MakeFile(const std::string& parent, const std::string& name, uint32_t mode = S_IFREG | 0644);
Step CopyRange(const std::string& from, uint64_t from_offset, const std::string& to,
               uint64_t to_offset, size_t size, Mask mask = {});
Step SetXattr(const std::string& path, const std::string& name, size_t size);
Step AdoptTree(const std::string& parent, const std::string& name, Filesystem::Placing placing);

}  // namespace pkramfs

#endif  // TESTS_CRASH_STEPS_H_
