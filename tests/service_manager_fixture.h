// What systemd does for a service of Type=notify, done by the test's process.
#ifndef TESTS_SERVICE_MANAGER_FIXTURE_H_
#define TESTS_SERVICE_MANAGER_FIXTURE_H_

#include <sys/socket.h>
#include <sys/un.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pkram/descriptor.h"
#include "tests/mount_fixture.h"

namespace pkramfs {

class ServiceManagerTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    socket_ = pkram::Descriptor(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    Path().copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void TearDown() override {
    kept_.clear();
    MountTest::TearDown();
  }
  std::string Path() const { return dir_ + "/notify"; }

  // Starts the unit, and receives its messages until it is ready (true) or has ended (false).
  bool Start(const std::string& options = "size=16m") {
    std::vector<pkram::Descriptor> handed;
    std::string names;
    for (const auto& [name, fd] : kept_) {
      names += (names.empty() ? "" : ":") + name;
      handed.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 100));
    }
    main_ = fork();
    if (main_ == 0) {
      int next = 3;
      for (const pkram::Descriptor& fd : handed) dup2(fd.get(), next++);
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
    EXPECT_TRUE(Eventually([this] {
      const bool has_ended = HasEnded();
      TakeAll();
      return is_ready_ || has_ended;
    }));
    return std::exchange(is_ready_, false);
  }
  // Receives the next message that has been sent.  False when there is none.
  bool Take() {
    char text[4096];
    iovec bytes{text, sizeof(text)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0) return false;
    const std::string said(text, static_cast<size_t>(size));
    pkram::Descriptor fd(-1);
    if (const cmsghdr* const header = CMSG_FIRSTHDR(&message)) {
      int number;
      std::memcpy(&number, CMSG_DATA(header), sizeof(number));
      fd = pkram::Descriptor(number);
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
  // Receives what has been sent by now.
  void TakeAll() {
    while (Take()) continue;
  }
  bool HasEnded() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(main_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid != 0;
  }
  int Ended() {
    int status = 0;
    waitpid(main_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // Unmounts, and receives what the processes of the mount have sent until their end.
  void Unmount() {
    ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
    EXPECT_EQ(Ended(), 0);
    TakeAll();
  }
  void KillEverybody() {
    KillBoth(mount_);
    Ended();
  }

  std::map<std::string, pkram::Descriptor> kept_;
  pkram::Descriptor socket_{-1};
  pid_t main_ = 0;
  bool is_ready_ = false;
};

}  // namespace pkramfs

#endif  // TESTS_SERVICE_MANAGER_FIXTURE_H_
