// What becomes of requests that a server has received and not answered when it dies (G9): each is
// done once, and each is answered.
#include <dirent.h>
#include <gmock/gmock.h>
#include <sys/syscall.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "mount/serve/in_flight.h"
#include "tests/takeover_fixture.h"

namespace pkramfs {
namespace {

class TakeoverRequestsTest : public TakeoverTest {};

TEST_F(TakeoverRequestsTest, AServerThatWasStoppedGoesOnOrIsReplaced) {
  const pid_t server = Server();
  ASSERT_TRUE(Stop(server));
  std::thread asks([&] { Spill(mount_ + "/file", "asked"); });
  kill(server, SIGCONT);
  asks.join();
  EXPECT_EQ(Server(), server);
  ASSERT_TRUE(Stop(server));
  KillServer();
  EXPECT_EQ(Slurp(mount_ + "/file"), "asked");
}

// A descriptor of another process, by what it leads to; -1 without the right.
int DescriptorOf(pid_t pid, const std::string& what) {
  const std::string dir = "/proc/" + std::to_string(pid) + "/fd";
  const pkram::Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  int found = -1;
  DIR* const fds = opendir(dir.c_str());
  while (const dirent* const entry = fds == nullptr ? nullptr : readdir(fds)) {
    char link[4096] = {};
    if (readlink((dir + "/" + entry->d_name).c_str(), link, sizeof(link) - 1) < 0) continue;
    if (found < 0 && std::string(link).find(what) == 0) {
      found =
          static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), std::atoi(entry->d_name), 0));
    }
  }
  if (fds != nullptr) closedir(fds);
  return found;
}

// A server that dies after its answer, and before it could note that it has sent it.
TEST_F(TakeoverRequestsTest, WhatWasAnsweredIsNotDoneAgain) {
  const pid_t server = Server();
  const int connection = DescriptorOf(server, "/dev/fuse");
  const int memory = DescriptorOf(server, "/memfd:pkramfs in flight");
  if (connection < 0 || memory < 0) GTEST_SKIP() << "no right to another process's descriptors";
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  int error = 0;
  std::thread asks([&] {
    if (mkdir((mount_ + "/dir").c_str(), 0755) != 0) error = errno;
  });
  uint64_t unique = 0;
  ASSERT_TRUE(Eventually([&] {
    const auto in_flight = InFlight::Adopt(pkram::Descriptor(dup(memory))).value();
    for (InFlight::Slot* const slot : in_flight->left()) {
      if (slot->header().opcode == FUSE_MKDIR) unique = slot->header().unique;
    }
    return unique != 0;
  }));
  // In its name.  The kernel copies a request into its slot first, and takes answers to it then.
  const fuse_out_header answer{sizeof(answer), -EDQUOT, unique};
  ASSERT_TRUE(Eventually([&] {
    return write(connection, &answer, sizeof(answer)) == static_cast<ssize_t>(sizeof(answer));
  }));
  asks.join();
  EXPECT_EQ(error, EDQUOT);
  close(connection);
  close(memory);
  KillServer();
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  // Whatever is in flight is done before that is over.
  Unmount();
  Mount();
  EXPECT_EQ(access((mount_ + "/dir").c_str(), F_OK), -1);
}

// How many of a process's threads have that name.
size_t ThreadsCalled(const std::string& name, pid_t process) {
  size_t count = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
    count += Slurp(task.path() / "comm") == name + "\n";
  }
  return count;
}

// A thread is named after its work, and not after the thread that has started it.
TEST_F(TakeoverRequestsTest, OneThreadIsTheStarter) {
  const pid_t server = Server();
  // Each changes a file of its own: of two changes of one, the kernel would keep the second back.
  constexpr size_t kAsking = 6;
  const auto file = [&](size_t i) { return mount_ + "/file" + std::to_string(i); };
  for (size_t i = 0; i < kAsking; ++i) Spill(file(i), "");
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  std::vector<std::thread> ask;
  for (size_t i = 0; i < kAsking; ++i) {
    ask.emplace_back([&, i] { EXPECT_EQ(chmod(file(i).c_str(), 0600), 0); });
  }
  EXPECT_TRUE(Eventually([&] {
    return ThreadsCalled("pkramfs", server) > kAsking &&
           ThreadsCalled("pkramfs-starter", server) == 1;
  }));
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  for (std::thread& thread : ask) thread.join();
}

// The thread of the server that executes a request: of those that take requests it alone waits for
// another thread.
pid_t ThreadAtWork(pid_t server) {
  const std::string tasks = "/proc/" + std::to_string(server) + "/task";
  pid_t found = 0;
  DIR* const dir = opendir(tasks.c_str());
  if (dir == nullptr) return 0;
  while (const dirent* const entry = readdir(dir)) {
    if (Slurp(tasks + "/" + entry->d_name + "/comm") == "pkramfs-starter\n") continue;
    const std::string call = Slurp(tasks + "/" + entry->d_name + "/syscall");
    if (call.rfind(std::to_string(SYS_futex) + " ", 0) == 0) found = std::atoi(entry->d_name);
  }
  closedir(dir);
  return found;
}

// A request on which servers crash: the third server answers it, with an error.
TEST_F(TakeoverRequestsTest, ARequestThatKillsIsAnsweredWithEio) {
  Unmount();
  const std::string log = dir_ + "/log";
  ASSERT_EQ(
      Shell("setsid " + Pkramfs() + " -f " + region_ + " " + mount_ + " 2>" + log + " &").status,
      0);
  ASSERT_TRUE(Eventually([&] { return IsMounted(mount_) && Keeper() != 0 && Server() != 0; }));
  Spill(mount_ + "/other", "other");
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  int error = 0;
  std::atomic<bool> is_answered = false;
  std::thread victim([&] {
    if (mkdir((mount_ + "/killer").c_str(), 0755) != 0) error = errno;
    is_answered = true;
  });
  // A thread of a server that only starts may wait, too: its death is not the request's doing.
  EXPECT_TRUE(Eventually([&] {
    const pid_t server = Server();
    const pid_t thread = server == 0 ? 0 : ThreadAtWork(server);
    if (thread != 0 && syscall(SYS_tgkill, server, thread, SIGABRT) == 0) {
      Eventually([&] { return IsGone(server); });
    }
    return is_answered.load();
  }));
  victim.join();
  EXPECT_EQ(error, EIO);
  EXPECT_EQ(Slurp(mount_ + "/other"), "other");
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  EXPECT_EQ(mkdir((mount_ + "/killer").c_str(), 0755), 0);
  Unmount();
  ExpectNobody();
  EXPECT_THAT(
      Slurp(log),
      testing::AllOf(testing::HasSubstr("the server ended by signal 6 (Aborted), and another "
                                        "took over: requests that were in flight: 1"),
                     testing::HasSubstr("a request (MKDIR, inode 1) has ended 2 servers"),
                     testing::HasSubstr(mount_ + ": unmounted")));
}

TEST_F(TakeoverRequestsTest, FrozenStaysFrozen) {
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  std::atomic<bool> written = false;
  std::thread writer([&] {
    Spill(mount_ + "/file", "bytes");
    written = true;
  });
  // Its request is in flight.
  ASSERT_TRUE(Eventually([&] { return Statistics()["requests"].contains("create"); }));
  for (int death = 0; death < 2; ++death) {
    KillServer();
    EXPECT_THAT(Shell(Pkramctl() + " freeze " + region_).err, testing::HasSubstr("frozen already"));
    EXPECT_FALSE(written);
  }
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  writer.join();
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

// What a successor has to put in order waits, too: whoever copies the region meanwhile has one
// state of it.
TEST_F(TakeoverRequestsTest, NothingOfAFrozenRegionChanges) {
  const int fd = open((mount_ + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(pwrite(fd, "bytes", 5, 0), 5);
  ASSERT_EQ(unlink((mount_ + "/file").c_str()), 0);
  const auto free_pages = [&] { return Statistics()["pages"]["free"].get<uint64_t>(); };
  const uint64_t held = free_pages();
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  const uint64_t forgotten = Statistics()["requests"].value("forget", uint64_t{0});
  close(fd);
  ASSERT_TRUE(Eventually(
      [&] { return Statistics()["requests"].value("forget", uint64_t{0}) > forgotten; }));
  const std::string before = Slurp(region_);
  KillServer();
  Statistics();  // another one answers
  // Except pages behind the last one in use, which a successor gives back.
  std::string after = Slurp(region_);
  ASSERT_LE(after.size(), before.size());
  after.resize(before.size());
  EXPECT_TRUE(after == before);
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  EXPECT_GT(free_pages(), held);
}

// To freeze what is frozen is an error, and so it is to thaw twice.  A server dies that has done it
// and not answered: this process is that server.
TEST_F(TakeoverRequestsTest, FreezeAndThawAreDoneOnce) {
  const int root = open(mount_.c_str(), O_RDONLY | O_DIRECTORY);
  for (const unsigned command : {kControlFreeze, kControlThaw}) {
    const pid_t server = Server();
    const int connection = DescriptorOf(server, "/dev/fuse");
    const int memory = DescriptorOf(server, "/memfd:pkramfs in flight");
    if (connection < 0 || memory < 0) {
      close(root);
      GTEST_SKIP() << "no right to another process's descriptors";
    }
    ASSERT_TRUE(Stop(server));
    int error = 0;
    std::thread asks([&] {
      if (ioctl(root, command) != 0) error = errno;
    });
    {
      const auto in_flight = InFlight::Adopt(pkram::Descriptor(memory)).value();
      InFlight::Slot* const slot = in_flight->Take();
      slot->Prepare();
      EXPECT_GT(read(connection, slot->request(), InFlight::kRequestBytes), 0);
      EXPECT_EQ(slot->header().opcode, FUSE_IOCTL);
      const uint64_t unique = slot->header().unique;
      command == kControlFreeze ? in_flight->NoteFrozen(unique) : in_flight->NoteThawed(unique);
    }
    close(connection);
    KillServer();
    asks.join();
    EXPECT_EQ(error, 0) << std::strerror(error);
  }
  close(root);
  Spill(mount_ + "/file", "not frozen");
  EXPECT_EQ(Slurp(mount_ + "/file"), "not frozen");
}

// A test that hangs ends after the same time as others.
TEST_F(TakeoverRequestsTest, AMountIsEndedWhoseTestHangs) {
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  int error = 0;
  std::thread waits([&] {
    if (mkdir((mount_ + "/dir").c_str(), 0755) != 0) error = errno;
  });
  EXPECT_TRUE(Eventually([&] { return Statistics()["requests"].contains("mkdir"); }));
  {
    const LastResort ends(mount_, std::chrono::milliseconds(0));
    waits.join();
  }
  EXPECT_NE(error, 0);
  ExpectNobody();
}

}  // namespace
}  // namespace pkramfs
