// What a path leads to is what open(2) finds, where no link is another user's.
#include "pkram/place.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace pkram {
namespace {

class PlaceTest : public testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/pkramfs-test-XXXXXX";
    dir_ = mkdtemp(dir);
    before_ = std::filesystem::current_path();
    std::filesystem::current_path(dir_);
    std::filesystem::create_directories("a/b");
    close(open("a/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    for (const auto& [target, link] : {std::pair{"a/file", "to-file"},
                                       {"to-file", "to-link"},
                                       {"a/b", "to-dir"},
                                       {"a/b/", "to-dir-slash"},
                                       {"nothing", "dangling"},
                                       {"loop", "loop"},
                                       {"../file", "a/b/up"},
                                       {"/proc/self/fd", "fds"}}) {
      ASSERT_EQ(symlink(target, link), 0);
    }
    ASSERT_EQ(symlink((dir_ + "/a").c_str(), "absolute"), 0);
  }
  void TearDown() override {
    std::filesystem::current_path(before_);
    std::filesystem::remove_all(dir_);
  }
  std::string dir_;
  std::filesystem::path before_;
};

TEST_F(PlaceTest, IsWhatOpenFinds) {
  const int open_file = open("a/file", O_RDONLY | O_CLOEXEC);
  const std::string number = std::to_string(open_file);
  for (const std::string& path : {std::string("a"),
                                  std::string("a/"),
                                  std::string("a/file"),
                                  std::string("a//./b/../file"),
                                  std::string("a/file/"),
                                  std::string("a/file/x"),
                                  std::string("to-file"),
                                  std::string("to-link"),
                                  std::string("to-dir/up"),
                                  std::string("to-dir-slash"),
                                  std::string("to-dir-slash/up"),
                                  std::string("to-dir/.."),
                                  std::string("to-file/"),
                                  std::string("absolute/b/up"),
                                  std::string("dangling"),
                                  std::string("loop"),
                                  std::string("none"),
                                  std::string("none/x"),
                                  std::string(""),
                                  std::string("/"),
                                  std::string("//"),
                                  std::string("."),
                                  std::string(".."),
                                  dir_ + "/to-dir/up",
                                  "/proc/self/fd/" + number,
                                  "fds/" + number,
                                  "/dev/fd/" + number,
                                  std::string("/proc/self/cwd/a/file"),
                                  std::string("/proc/self/cwd")}) {
    SCOPED_TRACE(path);
    const int expected = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const int error = errno;
    const absl::StatusOr<Place> place = FindPlace(path);
    const int found = place.ok() ? OpenPlace(*place, O_RDONLY | O_CLOEXEC) : -1;
    struct stat one, other;
    if (expected < 0) {
      EXPECT_LT(found, 0);
      EXPECT_EQ(place.ok() ? OpenStatus(path, errno) : place.status(), OpenStatus(path, error));
    } else if (found >= 0 && fstat(expected, &one) == 0 && fstat(found, &other) == 0) {
      EXPECT_EQ(one.st_ino, other.st_ino);
      EXPECT_EQ(one.st_dev, other.st_dev);
    } else {
      ADD_FAILURE() << place.status() << ", errno " << errno;
    }
    close(expected);
    close(found);
  }
  close(open_file);
}

// Where it is to be made, there is nothing, or where a link leads that leads to nothing.
TEST_F(PlaceTest, IsWhereAFileIsMade) {
  for (const char* path : {"to-dir/new", "dangling"}) {
    const absl::StatusOr<Place> place = FindPlace(path);
    ASSERT_TRUE(place.ok()) << place.status();
    close(OpenPlace(*place, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  }
  EXPECT_EQ(access("a/b/new", F_OK), 0);
  EXPECT_EQ(access("nothing", F_OK), 0);
}

// A name that has become a link since then is not followed.
TEST_F(PlaceTest, IsNotWhatALinkLeadsToThatCameLater) {
  const absl::StatusOr<Place> place = FindPlace("a/new");
  ASSERT_TRUE(place.ok());
  ASSERT_EQ(symlink("file", "a/new"), 0);
  EXPECT_EQ(OpenPlace(*place, O_RDONLY | O_CLOEXEC), -1);
  EXPECT_EQ(errno, ELOOP);
}

}  // namespace
}  // namespace pkram
