// A model of a filesystem that knows nothing of pages, and what can be seen of either.
#ifndef TESTS_CRASH_MODEL_H_
#define TESTS_CRASH_MODEL_H_

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tests/crash/points.h"

namespace pkramfs {

struct Node {
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  uint64_t rdev = 0;
  uint32_t names = 0;
  std::string data;  // or a symlink's target
  std::map<std::string, std::string> xattrs;
  std::map<std::string, std::shared_ptr<Node>> children;
  bool directory() const { return S_ISDIR(mode); }
};
using NodePtr = std::shared_ptr<Node>;

// What can be seen at a path.  Hard links are told by the first path of the file.
struct Seen {
  std::string first, text, data;
};
using View = std::map<std::string, Seen>;

View ViewOf(const NodePtr& root);
View ViewOf(Filesystem* fs);

// The first difference, or nothing.  Bytes of `mask` may be anything; what is done in parts
// (a copy: pages that are shared, and bytes at the ends) may have come to any of them.
std::string Differ(const View& wanted, const View& found, const Mask& mask);

}  // namespace pkramfs

#endif  // TESTS_CRASH_MODEL_H_
