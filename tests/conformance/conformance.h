// The rules of a filesystem, one test each, run on tmpfs, on a mount of pkramfs and on its
// core.  tmpfs is the oracle: a test that it fails is wrong.
//
// Every test has a directory of its own, at which its paths start.  Settle() stands
// between what a test arranges and what it asks: with --remount, the filesystem is killed
// and mounted again there, so that every rule is also one of what was preserved.
#ifndef TESTS_CONFORMANCE_CONFORMANCE_H_
#define TESTS_CONFORMANCE_CONFORMANCE_H_

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/conformance/subject.h"
#include "tests/eventually.h"

namespace pkramfs {

// Of a system call: 0, or why it failed.
inline int ErrnoOf(ssize_t result) { return result < 0 ? errno : 0; }

// What main() was asked for.
struct ConformanceRun {
  Subject* subject = nullptr;
  bool remount = false;
};
ConformanceRun& TheRun();

inline const User kRoot{0, 0};
inline const User kOwner{1001, 1001};
inline const User kMember{1003, 1003, {1001}};  // of kOwner's group
inline const User kOther{1002, 1002};

using Names = std::set<std::string>;

// The kinds of things that a name can lead to.
inline const std::vector<std::string> kKinds = {"file",     "dir",  "full",   "symlink",
                                                "dangling", "fifo", "socket", "char"};

class Conformance : public testing::Test {
 public:
  void SetUp() override {
    const auto* const info = testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(info->test_suite_name()) + "-" + info->name();
    std::replace(name.begin(), name.end(), '/', '-');
    root_ = fs().base;
    fs().Become(kRoot);
    fs().Umask(022);
    ASSERT_EQ(fs().Mkdir(name, 0777), 0) << name;
    fs().base += "/" + name;
    ASSERT_EQ(fs().Chmod(".", 0777), 0);
  }
  void TearDown() override {
    fs().Become(kRoot);
    fs().Umask(022);
    fs().base = root_;
  }

  static Subject& fs() { return *TheRun().subject; }
  std::string Path(const std::string& name) { return fs().base + "/" + name; }

  void Settle() {
    if (!TheRun().remount) return;
    const std::string base = fs().base;
    fs().Become(kRoot);
    fs().Remount();
    fs().Become(user_);
  }
  void Become(const User& user) {
    user_ = user;
    fs().Become(user);
  }

  // --- What is there ---
  struct stat Of(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(fs().Lstat(path, &st), 0) << path;
    return st;
  }
  bool Exists(const std::string& path) {
    struct stat st;
    return fs().Lstat(path, &st) == 0;
  }
  mode_t ModeOf(const std::string& path) { return Of(path).st_mode & 07777; }
  std::string Text(const std::string& path) {
    const int fd = fs().Open(path, O_RDONLY);
    EXPECT_GE(fd, 0) << path << ": " << std::strerror(-fd);
    std::string bytes;
    EXPECT_GE(fs().Read(fd, &bytes, 1 << 20, 0), 0);
    fs().Close(fd);
    return bytes;
  }
  Names List(const std::string& path) {
    Names names;
    EXPECT_EQ(fs().List(path, &names), 0) << path;
    names.erase(".");
    names.erase("..");
    return names;
  }

  // --- What is arranged ---
  void MakeFile(const std::string& path, const std::string& bytes = "", mode_t mode = 0644) {
    const int fd = fs().Open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    ASSERT_GE(fd, 0) << path << ": " << std::strerror(-fd);
    if (!bytes.empty()) {
      ASSERT_EQ(fs().Write(fd, bytes, 0), static_cast<ssize_t>(bytes.size()));
    }
    fs().Close(fd);
    ASSERT_EQ(fs().Chmod(path, mode), 0);
  }
  // One of kKinds.
  void Make(const std::string& kind, const std::string& path) {
    int made = 0;
    if (kind == "file") return MakeFile(path, "contents");
    if (kind == "dir" || kind == "full") made = fs().Mkdir(path, 0755);
    if (kind == "full") MakeFile(path + "/in");
    if (kind == "symlink") {
      MakeFile(path + "-target", "contents");
      made = fs().Symlink(path.substr(path.rfind('/') + 1) + "-target", path);
    }
    if (kind == "dangling") made = fs().Symlink("nowhere", path);
    if (kind == "loop") made = fs().Symlink(path.substr(path.rfind('/') + 1), path);
    if (kind == "fifo") made = fs().Mknod(path, S_IFIFO | 0644, 0);
    if (kind == "socket") made = fs().Mknod(path, S_IFSOCK | 0644, 0);
    // Everybody may make the device 0:0, which is a whiteout.
    if (kind == "char") made = fs().Mknod(path, S_IFCHR | 0644, geteuid() == 0 ? 0x103 : 0);
    ASSERT_EQ(made, 0) << kind << " " << path;
  }
  static bool IsDirectory(const std::string& kind) { return kind == "dir" || kind == "full"; }
  static bool IsSymlink(const std::string& kind) {
    return kind == "symlink" || kind == "dangling" || kind == "loop";
  }

  // An open file; closed by the test or by a Settle.
  int Open(const std::string& path, int flags = O_RDWR, mode_t mode = 0644) {
    const int fd = fs().Open(path, flags, mode);
    EXPECT_GE(fd, 0) << path << ": " << std::strerror(-fd);
    return fd;
  }
  int MakeOpen(const std::string& path) { return Open(path, O_CREAT | O_EXCL | O_RDWR); }

  // tmpfs tells the time by ticks of the kernel.
  void Tick() {
    if (!fs().is_core()) WaitForTheFileClock();
  }

 private:
  std::string root_;
  User user_;
};

// For tests of what only a kernel does.
#define NEEDS_KERNEL() \
  if (fs().is_core()) GTEST_SKIP() << "decided by the kernel"
#define ON_A_KERNEL() \
  if (IsSkipped()) return
// For rules that a mount cannot keep; docs/semantics.md lists them.
#define DIFFERS_ON_A_MOUNT(reason) \
  if (!fs().is_tmpfs() && !fs().is_core()) GTEST_SKIP() << "differs: " << (reason)

// Names of table rows may have any characters.
inline std::string TestName(std::string text) {
  for (char& c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return text;
}

// A rule that is one of a table: a name and what to do.
template <typename Fixture>
void Register(const char* suite, const std::string& name, std::function<void(Fixture&)> body) {
  class Row : public Fixture {
   public:
    explicit Row(std::function<void(Fixture&)> b) : body_(std::move(b)) {}
    void TestBody() override { body_(*this); }

   private:
    std::function<void(Fixture&)> body_;
  };
  testing::RegisterTest(suite, TestName(name).c_str(), nullptr, nullptr, __FILE__, __LINE__,
                        [body = std::move(body)]() -> Fixture* { return new Row(body); });
}

}  // namespace pkramfs

#endif  // TESTS_CONFORMANCE_CONFORMANCE_H_
