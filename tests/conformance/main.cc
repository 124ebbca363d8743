// conformance core|mount|writeback|user|tmpfs [--remount] [gtest flags]
#include <sys/mount.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "tests/conformance/conformance.h"
#include "tests/manifest.h"

namespace pkramfs {

ConformanceRun& TheRun() {
  static ConformanceRun run;
  return run;
}

namespace {

// All that the tests have left is there after a kill as it was before.
class EverythingIsPreserved : public testing::Environment {
 public:
  void TearDown() override {
    Subject& fs = *TheRun().subject;
    // Without knowing holes, files of all sizes would be read byte by byte.
    if (fs.is_core() || fs.is_tmpfs() || fs.writes_back()) return;
    const Manifest before = ManifestOf(fs.base);
    fs.Remount();
    const Manifest after = ManifestOf(fs.base);
    EXPECT_GT(before.size(), 1u);
    EXPECT_EQ(before.size(), after.size());
    for (const auto& [path, text] : before) {
      const auto it = after.find(path);
      ASSERT_NE(it, after.end()) << path;
      ASSERT_EQ(it->second, text) << path;
    }
  }
};

int Main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (geteuid() != 0 || access("/dev/fuse", F_OK) != 0) {
    std::puts("skipped: needs root and /dev/fuse");
    return 0;
  }
  const std::string which = argc > 1 ? argv[1] : "";
  TheRun().remount = argc > 2 && std::strcmp(argv[2], "--remount") == 0;
  std::unique_ptr<Subject> subject;
  if (which == "core") subject = MakeCoreSubject();
  if (which == "mount") subject = MakeMountSubject();
  if (which == "writeback") subject = MakeWritebackSubject();
  if (which == "user") subject = MakeUserMountSubject();
  if (which == "tmpfs") subject = MakeTmpfsSubject();
  if (subject == nullptr) {
    std::fputs("usage: conformance core|mount|writeback|user|tmpfs [--remount] [gtest flags]\n",
               stderr);
    return 2;
  }
  TheRun().subject = subject.get();
  testing::AddGlobalTestEnvironment(new EverythingIsPreserved);
  const int result = RUN_ALL_TESTS();
  subject.reset();
  return result;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) { return pkramfs::Main(argc, argv); }
