// A service whose two processes die at once goes on at its next start: what systemd does for that,
// done by this process.  (.ci/systemd has it done by systemd.)
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <map>

#include "mount/region/memfd.h"
#include "pkram/descriptor.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

class ServiceManagerTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    socket_ = Descriptor(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    Path().copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    // Nobody's answer is waited for longer than a test may take.
    const timeval limit{120, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  void TearDown() override {
    kept_.clear();
    MountTest::TearDown();
  }
  std::string Path() const { return dir_ + "/notify"; }

  // Starts the unit, and receives its messages until it is ready (true) or has ended (false).
  bool Start(const std::string& options = "size=16m") {
    std::vector<Descriptor> handed;
    std::string names;
    for (const auto& [name, fd] : kept_) {
      names += (names.empty() ? "" : ":") + name;
      handed.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 100));
    }
    main_ = fork();
    if (main_ == 0) {
      int next = 3;
      for (const Descriptor& fd : handed) dup2(fd.get(), next++);
      setenv("NOTIFY_SOCKET", Path().c_str(), 1);
      setenv("FDSTORE", "8", 1);
      setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
      setenv("LISTEN_FDS", std::to_string(handed.size()).c_str(), 1);
      setenv("LISTEN_FDNAMES", names.c_str(), 1);
      execl(Pkramfs().c_str(), "pkramfs", "-f", region_.c_str(), mount_.c_str(), "-o",
            options.c_str(), nullptr);
      _exit(127);
    }
    handed.clear();
    while (Take()) {
      if (is_ready_) return !(is_ready_ = false);
    }
    return false;
  }
  // Receives the next message.  False when none comes.
  bool Take() {
    char text[4096];
    iovec bytes{text, sizeof(text)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (size < 0) return false;
    const std::string said(text, static_cast<size_t>(size));
    Descriptor fd(-1);
    if (const cmsghdr* const header = CMSG_FIRSTHDR(&message)) {
      int number;
      std::memcpy(&number, CMSG_DATA(header), sizeof(number));
      fd = Descriptor(number);
    }
    const size_t at = said.find("FDNAME=");
    const std::string name =
        at == std::string::npos ? "" : said.substr(at + 7, said.find('\n', at) - at - 7);
    if (said.rfind("FDSTORE=1", 0) == 0) kept_.insert_or_assign(name, std::move(fd));
    if (said.rfind("FDSTOREREMOVE=1", 0) == 0) kept_.erase(name);
    is_ready_ |= said.rfind("READY=1", 0) == 0;
    // (With BARRIER=1 comes a descriptor whose end says that all is taken.)
    return true;
  }
  int Ended() {
    int status = 0;
    waitpid(main_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void KillEverybody() {
    KillBoth(mount_);
    Ended();
  }

  std::map<std::string, Descriptor> kept_;
  Descriptor socket_{-1};
  pid_t main_ = 0;
  bool is_ready_ = false;
};

TEST_F(ServiceManagerTest, AServiceGoesOnWhereBothDied) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  const int gone = open((mount_ + "/gone").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(unlink((mount_ + "/gone").c_str()), 0);
  ASSERT_EQ(pwrite(gone, "nameless", 8, 0), 8);
  for (int death = 0; death < 3; ++death) {
    KillEverybody();
    ASSERT_TRUE(Start());
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
    char bytes[8];
    EXPECT_EQ(pread(gone, bytes, 8, 0), 8);
    EXPECT_EQ(Statistics()["takeovers"]["last"], "ended, and its keeper");
    EXPECT_EQ(kept_.size(), 4u) << "the connection, the region, the requests, the mount";
  }
  close(gone);
  ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
  EXPECT_EQ(Ended(), 0);
}

// A program that calls meanwhile waits for the next start.
TEST_F(ServiceManagerTest, WhatIsUnderWayIsDoneOnce) {
  ASSERT_TRUE(Start());
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  int error = -1;
  std::thread maker([&] { error = mkdir((mount_ + "/dir").c_str(), 0755) == 0 ? 0 : errno; });
  ASSERT_TRUE(Eventually([&] { return Statistics()["requests"].contains("mkdir"); }));
  KillEverybody();
  ASSERT_TRUE(Start());
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  maker.join();
  EXPECT_EQ(error, 0);
}

// Of a mount that is over nothing is used, and its region is free.
TEST_F(ServiceManagerTest, WhatIsKeptOfAMountThatIsOverIsGivenBack) {
  ASSERT_TRUE(Start());
  Spill(mount_ + "/file", "bytes");
  ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
  EXPECT_EQ(Ended(), 0);
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  EXPECT_FALSE(Statistics()["takeovers"].is_object());
  EXPECT_EQ(kept_.size(), 4u);
  // And after that it goes on as the first did.
  KillEverybody();
  ASSERT_TRUE(Start());
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

// A region in a memfd is what the manager keeps when the mount is over.
TEST_F(ServiceManagerTest, AMemfdIsKeptWhileTheServiceIsStopped) {
  const std::string file = region_;
  region_ = "memfd:" + dir_.substr(5);
  ASSERT_TRUE(Start());
  for (int stop = 0; stop < 3; ++stop) {
    Spill(mount_ + "/file", "bytes " + std::to_string(stop));
    ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
    EXPECT_EQ(Ended(), 0);
    const timeval soon{1, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
    while (kept_.size() > 1 && Take()) continue;
    ASSERT_EQ(kept_.size(), 1u);
    EXPECT_TRUE(kept_.contains("pkramfs-region"));
    const timeval limit{120, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ASSERT_TRUE(Start());
    EXPECT_EQ(kept_.size(), 4u);
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes " + std::to_string(stop));
    // Both may die, too.
    KillEverybody();
    ASSERT_TRUE(Start());
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes " + std::to_string(stop));
  }
  ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
  EXPECT_EQ(Ended(), 0);
  const timeval soon{1, 0};
  setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
  while (Take()) continue;
  kept_.clear();
  EXPECT_TRUE(Eventually([this] { return FindMemfd(region_).empty(); }));
  region_ = file;
}

// Scribbled on while nobody served.
TEST_F(ServiceManagerTest, ARegionThatIsRefusedEndsTheService) {
  ASSERT_TRUE(Start());
  KillEverybody();
  const int fd = open(region_.c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, "scribble", 8, 0), 8);
  close(fd);
  const timeval soon{1, 0};
  setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
  EXPECT_FALSE(Start());
  EXPECT_EQ(Ended(), 32);
  // The manager keeps neither the mount nor the region's lock.
  EXPECT_TRUE(kept_.empty());
}

}  // namespace
}  // namespace pkramfs
