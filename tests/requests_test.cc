// The noise-free measure of speed: how many requests the kernel sends.
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

class RequestsTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    Mount();
    // The first of each kind, and the answers "never ask again".
    for (int i = 0; i < 3; ++i) CreateAndWrite(i);
    Slurp(Path(0));
    struct stat st;
    stat(Path(0).c_str(), &st);
    unlink(Path(1).c_str());
  }
  std::string Path(int i) const { return mount_ + "/file" + std::to_string(i); }
  void CreateAndWrite(int i) {
    const int fd = open(Path(i).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(write(fd, std::string(1024, 'x').data(), 1024), 1024);
    ASSERT_EQ(close(fd), 0);
  }
  // Requests that somebody waits for, by kind.
  std::map<std::string, int> Synchronous() {
    std::map<std::string, int> counts = Statistics()["requests"];
    for (const char* kind : {"forget", "release", "releasedir", "ioctl"}) counts.erase(kind);
    return counts;
  }
  // How many `run` costs, of each of `times`.
  double Cost(int times, const std::function<void(int)>& run) {
    const auto before = Synchronous();
    for (int i = 0; i < times; ++i) run(i);
    auto after = Synchronous();
    int total = 0;
    for (const auto& [kind, n] : after) {
      const int was = before.contains(kind) ? before.at(kind) : 0;
      if (n != was) std::printf("  %s: %d\n", kind.c_str(), n - was);
      total += n - was;
    }
    return static_cast<double>(total) / times;
  }
};

// Among them the kernel's question for security.capability, before the first write of a file.
TEST_F(RequestsTest, ACreateWithAKilobyteWrittenCostsFive) {
  EXPECT_LE(Cost(50, [&](int i) { CreateAndWrite(100 + i); }), 5);
}

TEST_F(RequestsTest, AnUnlinkCostsTwo) {
  for (int i = 0; i < 50; ++i) CreateAndWrite(100 + i);
  EXPECT_LE(Cost(50, [&](int i) { unlink(Path(100 + i).c_str()); }), 2);
}

TEST_F(RequestsTest, OpenReadCloseOfACachedFileCostsNothing) {
  EXPECT_EQ(Slurp(Path(0)).size(), 1024u);
  EXPECT_EQ(Cost(50, [&](int) { Slurp(Path(0)); }), 0);
}

TEST_F(RequestsTest, RepeatedStatCostsNothing) {
  struct stat st;
  stat(Path(0).c_str(), &st);
  EXPECT_EQ(Cost(50, [&](int) { stat(Path(0).c_str(), &st); }), 0);
  // Asking again for a name that does not exist takes none either.
  stat(Path(999).c_str(), &st);
  EXPECT_EQ(Cost(50, [&](int) { stat(Path(999).c_str(), &st); }), 0);
}

TEST_F(RequestsTest, AWriteOfACachedFileCostsOne) {
  const int fd = open(Path(0).c_str(), O_RDWR);
  char page[4096] = {};
  ASSERT_EQ(pwrite(fd, page, sizeof(page), 0), 4096);
  EXPECT_EQ(Cost(50, [&](int i) { std::ignore = pwrite(fd, page, sizeof(page), 4096 * i); }), 1);
  close(fd);
}

TEST_F(RequestsTest, WithWritebackSmallWritesGoTogether) {
  Unmount();
  Mount("writeback");
  const int fd = open(Path(0).c_str(), O_RDWR);
  const std::string page(4096, 'w');
  EXPECT_LE(Cost(512, [&](int i) { std::ignore = pwrite(fd, page.data(), page.size(), 4096 * i); }),
            0.1);
  const auto before = Synchronous();
  ASSERT_EQ(close(fd), 0);
  auto after = Synchronous();
  EXPECT_LE(after["write"] - (before.contains("write") ? before.at("write") : 0), 8);
}

// The kernel does not take them away any more, so it must not go by what it knows.
TEST_F(RequestsTest, AWriteTakesPrivilegesAwayBeforeTheFileIsRun) {
  const std::string path = mount_ + "/id";
  const std::string user = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
  for (const char* write :
       {"printf x >>", "printf x | dd conv=notrunc bs=1 seek=99999 status=none of=",
        "truncate -s 99999 ", "fallocate -o 99000 -l 9000 "}) {
    ASSERT_EQ(Shell("cp /usr/bin/id " + path + " && chmod 4777 " + path).status, 0);
    const Ran before = Shell(user + path + " -u");
    ASSERT_EQ(before.out, "0\n") << before.err;
    ASSERT_EQ(Shell(user + "sh -c '" + write + path + "'").status, 0);
    EXPECT_EQ(Shell(user + path + " -u").out, "65534\n") << write;
  }
}

}  // namespace
}  // namespace pkramfs
