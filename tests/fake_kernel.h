// A kernel that hands memory over, for tests (see fake_liveupdate.cc).
#ifndef TESTS_FAKE_KERNEL_H_
#define TESTS_FAKE_KERNEL_H_

#include <sys/stat.h>

#include <cstdlib>
#include <string>

#include "tests/mount_fixture.h"

namespace pkramfs {

// A kernel for the programs that a test starts.
class FakeKernel {
 public:
  explicit FakeKernel(const std::string& directory) : directory_(directory) {
    for (const char* const name : {"", "/in", "/out"}) mkdir((directory_ + name).c_str(), 0700);
    Spill(directory_ + "/device", "");
    setenv("PKRAMFS_FAKE_LIVEUPDATE", directory_.c_str(), 1);
    setenv("LD_PRELOAD", FAKE_LIVEUPDATE, 1);
    // (Otherwise a sanitizer's library wants to be the first.)
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
  }
  ~FakeKernel() {
    for (const char* const name : {"PKRAMFS_FAKE_LIVEUPDATE", "LD_PRELOAD", "ASAN_OPTIONS"}) {
      unsetenv(name);
    }
  }
  void Fail(const std::string& call, int error) const {
    Spill(directory_ + "/fail-" + call, std::to_string(error));
  }
  void Recover() const { Shell("rm -f " + directory_ + "/fail-*"); }
  std::string file(const std::string& name) const { return directory_ + "/" + name; }

 private:
  const std::string directory_;
};

}  // namespace pkramfs

#endif  // TESTS_FAKE_KERNEL_H_
