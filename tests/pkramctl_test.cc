#include <gmock/gmock.h>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class PkramctlTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    Mount("size=64m");
    Spill(mount_ + "/small", "x");
    Spill(mount_ + "/large", std::string(1 << 20, 'l'));
  }
  Ran Ctl(const std::string& arguments) { return Shell(Pkramctl() + " " + arguments); }
  void UnmountAndWait() {
    Unmount();
    WaitUntilFree();
  }
};

TEST_F(PkramctlTest, AnyBytesGoInAndComeOut) {
  UnmountAndWait();
  std::string bytes;
  for (unsigned i = 0; i < 3000000; ++i) bytes.push_back(static_cast<char>(i * i / 7));
  Spill(dir_ + "/in", bytes);
  for (const char* input : {"/in", "/empty"}) {
    Spill(dir_ + "/empty", "");
    const std::string name = std::string("node-of") + (input + 1);
    ASSERT_EQ(Ctl("put " + region_ + " " + name + " < " + dir_ + input).status, 0);
    ASSERT_EQ(Ctl("get " + region_ + " " + name + " > " + dir_ + "/out").status, 0);
    EXPECT_TRUE(Slurp(dir_ + "/out") == Slurp(dir_ + input));
    // It is still there, until it is removed.
    ASSERT_EQ(Ctl("get " + region_ + " " + name + " > " + dir_ + "/out").status, 0);
    EXPECT_TRUE(Slurp(dir_ + "/out") == Slurp(dir_ + input));
    ASSERT_EQ(Ctl("rm " + region_ + " " + name).status, 0);
    EXPECT_EQ(Ctl("get " + region_ + " " + name).status, 2);
  }
  EXPECT_EQ(Ctl("check " + region_).status, 0);
  // The filesystem beside it has not noticed.
  Mount();
  EXPECT_EQ(Slurp(mount_ + "/small"), "x");
}

TEST_F(PkramctlTest, InfoOfAMountedRegionAsksTheDaemon) {
  const json info = json::parse(Ctl("info --json " + region_).out);
  EXPECT_EQ(info["pid"], DaemonPid());
  EXPECT_EQ(info["mounted_on"], mount_);
  EXPECT_EQ(info["node"], "pkramfs");
  EXPECT_EQ(info["requests"]["create"], 2);
  EXPECT_EQ(info["inodes"], 3);
  EXPECT_EQ(info["pages"]["data"], 256);
  EXPECT_EQ(info["pages"]["limbo"], 0);
  EXPECT_TRUE(info.contains("journal_waits"));
  EXPECT_THAT(Ctl("info " + region_).out, HasSubstr("mounted_on: " + mount_));
}

TEST_F(PkramctlTest, InfoOfAnUnmountedRegionLooksIntoIt) {
  UnmountAndWait();
  const json info = json::parse(Ctl("info --json " + region_).out);
  EXPECT_EQ(info["sealed"], true);
  EXPECT_EQ(info["nodes"][0]["name"], "pkramfs");
  EXPECT_EQ(info["nodes"][0]["state"], "live");
  EXPECT_EQ(info["pages"]["object"], 3);
  EXPECT_EQ(info["pages"]["data"], 256);
  EXPECT_EQ(info["problems"], 0);
  EXPECT_THAT(Ctl("info " + region_).out, HasSubstr("sealed: true"));
}

TEST_F(PkramctlTest, AKilledDaemonsRegionIsNotSealedAndCanBeRead) {
  Kill();
  WaitUntilFree();
  const json info = json::parse(Ctl("info --json " + region_).out);
  EXPECT_EQ(info["sealed"], false);
  EXPECT_EQ(Ctl("check " + region_).status, 0);
}

TEST_F(PkramctlTest, CheckChangesNothing) {
  Kill();
  WaitUntilFree();
  const std::string before = Slurp(region_);
  EXPECT_THAT(Ctl("check " + region_).out, HasSubstr(": 0 problems"));
  EXPECT_TRUE(Slurp(region_) == before);
}

TEST_F(PkramctlTest, AFilesystemCanBeRemovedAsANode) {
  UnmountAndWait();
  ASSERT_EQ(Ctl("rm " + region_ + " pkramfs").status, 0);
  Mount();
  EXPECT_NE(access((mount_ + "/small").c_str(), F_OK), 0);
}

TEST_F(PkramctlTest, APutThatDoesNotFitLeavesNoTrace) {
  UnmountAndWait();
  const Ran put = Ctl("put " + region_ + " big < /dev/zero");
  EXPECT_EQ(put.status, 2);
  EXPECT_THAT(put.err, HasSubstr("full"));
  EXPECT_EQ(Ctl("check " + region_).status, 0);
  EXPECT_EQ(json::parse(Ctl("info --json " + region_).out)["nodes"].size(), 1u);
}

}  // namespace
}  // namespace pkramfs
