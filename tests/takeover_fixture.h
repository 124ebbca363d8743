// A fixture for takeovers: a mount whose processes are killed, and which goes on.
#ifndef TESTS_TAKEOVER_FIXTURE_H_
#define TESTS_TAKEOVER_FIXTURE_H_

#include <string>

#include "tests/killer.h"
#include "tests/mount_fixture.h"

namespace pkramfs {

class TakeoverTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    Mount("size=64m");
  }
  pid_t Server() const { return ProcessOf("pkramfs", region_); }
  pid_t Keeper() const { return ProcessOf("pkramfs-keeper", region_); }
  // Waits until another server is there.
  void KillServer() {
    ASSERT_TRUE(KillOne(Victim::kServer, region_));
    ASSERT_TRUE(Eventually([&] { return Server() != 0; }));
  }
  void KillKeeper() {
    ASSERT_TRUE(KillOne(Victim::kKeeper, region_));
    ASSERT_TRUE(Eventually([&] { return Keeper() != 0; }));
  }
  void ExpectNobody() {
    EXPECT_TRUE(Eventually([&] { return Server() == 0 && Keeper() == 0; }));
  }
  bool IsSealed() {
    return Shell(Pkramctl() + " info --json " + region_).out.find("\"sealed\"") !=
           std::string::npos;
  }
};

}  // namespace pkramfs

#endif  // TESTS_TAKEOVER_FIXTURE_H_
