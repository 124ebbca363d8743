// A service whose region crosses a kexec.  The kernel is a fake one, and systemd's part is the
// test's; .ci/liveupdate has real ones.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <atomic>
#include <optional>
#include <thread>

#include "mount/region/handover.h"
#include "mount/region/memfd.h"
#include "tests/fake_kernel.h"
#include "tests/service_manager_fixture.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

class HandoverServiceTest : public ServiceManagerTest {
 protected:
  void SetUp() override {
    ServiceManagerTest::SetUp();
    if (IsSkipped()) return;
    file_ = region_;
    region_ = "memfd:" + dir_.substr(5);
    kernel_.emplace(dir_ + "/kernel");
    // What ExecStopPost= asks.
    ASSERT_EQ(mkdir((dir_ + "/bin").c_str(), 0755), 0);
    Spill(dir_ + "/bin/systemctl", "#!/bin/sh\ncd " + dir_ +
                                       "\necho \"$*\" >>asked\n"
                                       "case \"$*\" in\n*Version*) cat version ;;\n"
                                       "*Job*) cat job ;;\nesac\n");
    Spill(dir_ + "/version", "262.1-1\n");
    ASSERT_EQ(chmod((dir_ + "/bin/systemctl").c_str(), 0755), 0);
    Spill(dir_ + "/job", "4711\n");
  }
  void TearDown() override {
    kernel_.reset();
    kept_.clear();
    if (!dir_.empty() && !IsMounted(mount_)) {
      EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
      region_ = file_;
    }
    ServiceManagerTest::TearDown();
  }
  // The end of the unit, with its ExecStopPost=.
  Ran StopService() {
    Unmount();
    std::optional<Ran> ran;
    std::atomic<bool> is_done = false;
    std::thread post([&] {
      ran = Shell("export NOTIFY_SOCKET=" + Path() + " FDSTORE=8 PATH=" + dir_ +
                  "/bin:$PATH; exec " + Pkramctl() + " preserve --if-kexec " + region_);
      is_done = true;
    });
    EXPECT_TRUE(Eventually([&] {
      TakeAll();
      return is_done.load();
    }));
    post.join();
    TakeAll();
    return *ran;
  }
  // The region's memory goes to the next kernel, and systemd gives the session back.
  void Kexec() {
    const std::string session = SessionOf(region_).value();
    Spill(kernel_->file("in/" + session), Slurp(FindMemfd(region_)));
    kept_.clear();
    EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
    kept_.insert_or_assign(
        "pkramfs-session",
        pkram::Descriptor(open(kernel_->file("in/" + session).c_str(), O_RDWR | O_CLOEXEC)));
  }

  std::string file_;
  std::optional<FakeKernel> kernel_;
};

TEST_F(HandoverServiceTest, AServiceGoesOnAfterTheKexec) {
  ASSERT_TRUE(Start());
  for (int kexec = 0; kexec < 2; ++kexec) {
    Spill(mount_ + "/file", "bytes " + std::to_string(kexec));
    const Ran ran = StopService();
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_TRUE(kept_.contains("pkramfs-session"));
    EXPECT_TRUE(kept_.contains("pkramfs-region"));
    Kexec();
    ASSERT_TRUE(Start());
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes " + std::to_string(kexec));
    EXPECT_EQ(kept_.size(), 4u);
    EXPECT_FALSE(kept_.contains("pkramfs-session"));
  }
  Unmount();
}

// Whoever changes the unit's file does not lose what systemd has for it.
TEST_F(HandoverServiceTest, AnotherRegionIsRefusedAsLongAsThereIsThisOne) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  EXPECT_EQ(StopService().status, 0);
  Kexec();
  const std::string region = region_;
  for (const std::string& other : {region + "-other", file_}) {
    region_ = other;
    EXPECT_FALSE(Start());
    EXPECT_NE(Ended(), 0);
    EXPECT_TRUE(kept_.contains("pkramfs-session"));
    unlink(file_.c_str());
  }
  region_ = region;
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  Unmount();
}

// systemd preserves what it keeps by itself, if nobody else has.
TEST_F(HandoverServiceTest, AMemfdWithoutItsNameIsTakenForTheRegion) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  Spill(dir_ + "/job", "\n");
  const Ran ran = StopService();
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_FALSE(kept_.contains("pkramfs-session"));
  const std::string bytes = Slurp(FindMemfd(region_));
  kept_.clear();
  EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
  pkram::Descriptor memfd(memfd_create("", MFD_CLOEXEC));
  ASSERT_EQ(write(memfd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  kept_.insert_or_assign("pkramfs-region", std::move(memfd));
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  Unmount();
}

TEST_F(HandoverServiceTest, AKexecThatWouldLoseTheFilesIsCalledOff) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  Spill(dir_ + "/version", "257.8-1~deb13u2\n");
  Ran ran = StopService();
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("systemd 257 brings nothing over a kexec, 261 does"));
  Spill(dir_ + "/version", "262.1-1\n");
  ASSERT_TRUE(Start());
  kernel_->Fail("preserve", ENOMEM);
  ran = StopService();
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("Cannot allocate memory: the kexec is called off"));
  EXPECT_THAT(Slurp(dir_ + "/asked"), HasSubstr("cancel\n--no-block isolate default.target\n"));
  kernel_->Recover();
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  // And if it was something else that called it off: the memory is the unit's again, and grows.
  ran = StopService();
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_TRUE(kept_.contains("pkramfs-session"));
  ASSERT_TRUE(Start());
  EXPECT_FALSE(kept_.contains("pkramfs-session"));
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  Spill(mount_ + "/more", std::string(8 << 20, 'x'));
  EXPECT_EQ(Slurp(mount_ + "/more").size(), size_t{8} << 20);
  Unmount();
}

}  // namespace
}  // namespace pkramfs
