// A mount, and an image of it on a disk: of one moment, whole, and restored when the region is
// gone.
#include <gmock/gmock.h>
#include <sys/xattr.h>

#include <filesystem>

#include "pkram/image.h"
#include "tests/killer.h"
#include "tests/manifest.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CheckpointTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    image_ = dir_ + "/image";
  }
  Ran Checkpoint(const std::string& file) {
    return Shell(Pkramctl() + " checkpoint " + region_ + " " + file);
  }
  void MakeTree() {
    ASSERT_EQ(mkdir((mount_ + "/d").c_str(), 0750), 0);
    Spill(mount_ + "/d/small", "a few bytes");
    Spill(mount_ + "/large", std::string(3'000'001, 'l'));
    ASSERT_EQ(truncate((mount_ + "/sparse").c_str(), 0), -1);
    const int fd = open((mount_ + "/sparse").c_str(), O_CREAT | O_WRONLY, 0600);
    ASSERT_EQ(pwrite(fd, "behind a hole", 13, 1 << 20), 13);
    close(fd);
    ASSERT_EQ(link((mount_ + "/large").c_str(), (mount_ + "/d/link").c_str()), 0);
    ASSERT_EQ(symlink("small", (mount_ + "/d/symlink").c_str()), 0);
    ASSERT_EQ(setxattr((mount_ + "/large").c_str(), "user.a", "value", 5, 0), 0);
    ASSERT_EQ(chown((mount_ + "/large").c_str(), 7, 8), 0);
    const timespec times[2] = {{1000, 1}, {2000, 2}};
    ASSERT_EQ(utimensat(AT_FDCWD, (mount_ + "/large").c_str(), times, 0), 0);
  }
  // After a power loss.
  void LoseRegion() {
    Kill();
    WaitUntilFree();
    ASSERT_EQ(unlink(region_.c_str()), 0);
  }
  std::string image_;
};

TEST_F(CheckpointTest, AnImageIsTheTreeOfAMoment) {
  Mount();
  MakeTree();
  const Manifest then = ManifestOf(mount_);
  for (int i = 0; i < 2; ++i) {
    const Ran made = Checkpoint(image_);
    ASSERT_EQ(made.status, 0) << made.err;
    EXPECT_THAT(made.out, HasSubstr(i == 0 ? " KiB of it written" : ", 0 of it written"));
    EXPECT_EQ(made.err, "");
  }
  struct stat st;
  ASSERT_EQ(stat(image_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_LT(st.st_blocks * 512, 8 << 20) << "free pages are in it";
  EXPECT_EQ(Shell(Pkramctl() + " check " + image_).status, 0);
  // Later changes are not in the image.
  Spill(mount_ + "/large", "another");
  unlink((mount_ + "/d/small").c_str());
  Spill(mount_ + "/later", "later");
  Unmount();
  unlink(region_.c_str());
  ASSERT_EQ(Shell(Pkramctl() + " restore " + image_ + " " + region_).status, 0);
  Mount();
  EXPECT_EQ(ManifestOf(mount_), then);
}

// Only pages that have changed are written, and the result is a whole image.
TEST_F(CheckpointTest, TheNextOneIsAChangeOfTheLastOne) {
  Mount("size=64m");
  MakeTree();
  Spill(mount_ + "/big", std::string(16 << 20, 'b'));
  const auto written = [&] {
    return Statistics()["checkpoint"]["last"]["written"].get<uint64_t>();
  };
  ASSERT_EQ(Checkpoint(image_).status, 0);
  EXPECT_GT(written(), 4096u);
  const std::string restored = region_ + "-restored", elsewhere = dir_ + "/elsewhere";
  mkdir(elsewhere.c_str(), 0700);
  for (int round = 0; round < 4; ++round) {
    const int fd = open((mount_ + "/big").c_str(), O_WRONLY);
    ASSERT_EQ(pwrite(fd, "changed", 7, round * 1'000'000), 7);
    close(fd);
    if (round == 1) unlink((mount_ + "/large").c_str());
    if (round == 2) Spill(mount_ + "/d/new", std::string(100'000, 'n'));
    if (round == 3) rename((mount_ + "/big").c_str(), (mount_ + "/d/bigger").c_str());
    ASSERT_EQ(Checkpoint(image_).status, 0);
    EXPECT_GT(written(), 0u);
    EXPECT_LT(written(), 200u);
    EXPECT_EQ(Shell(Pkramctl() + " check " + image_).status, 0);
    ASSERT_EQ(Shell(Pkramctl() + " restore " + image_ + " " + restored).status, 0);
    const Ran ran = Shell(Pkramfs() + " " + restored + " " + elsewhere);
    ASSERT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(ManifestOf(elsewhere), ManifestOf(mount_)) << round;
    ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
    ASSERT_TRUE(WaitUntilRegionIsFree(restored));
    unlink(restored.c_str());
  }
  EXPECT_LT(Statistics()["checkpoint"]["changed_since"], 10);
  Spill(mount_ + "/d/more", std::string(400'000, 'm'));
  EXPECT_GT(Statistics()["checkpoint"]["changed_since"], 97);
  // To another file it is a whole one, and after that to this one, too.
  for (const std::string& file : {dir_ + "/other", image_}) {
    ASSERT_EQ(Checkpoint(file).status, 0);
    EXPECT_GT(written(), 4096u);
  }
  // So is the first checkpoint of another server, which does not know which pages have changed.
  ASSERT_TRUE(KillOne(Victim::kServer, region_));
  ASSERT_EQ(Checkpoint(image_).status, 0);
  EXPECT_GT(written(), 4096u);
}

TEST_F(CheckpointTest, ARegionThatIsGoneIsRestored) {
  const std::string options = "size=256m,checkpoint=" + image_;
  Mount(options);  // there is no image yet
  MakeTree();
  const Manifest then = ManifestOf(mount_);
  ASSERT_EQ(Checkpoint("").status, 0);
  LoseRegion();
  Mount(options);
  EXPECT_EQ(ManifestOf(mount_), then);
  // So is one that was only just made.
  LoseRegion();
  ASSERT_EQ(Shell(MKFS_BINARY " " + region_ + " -o size=256m").status, 0);
  Mount(options);
  EXPECT_EQ(ManifestOf(mount_), then);
  // No other is filled, nor would its images be those of this one.
  const auto refused = [&] {
    const Ran ran = TryMount(options);
    EXPECT_NE(ran.status, 0);
    EXPECT_THAT(ran.err, HasSubstr("an image of another filesystem: choose another name"));
    Mount("size=256m");
  };
  // But not one in which something was saved, be it nothing.
  Unmount();
  unlink(region_.c_str());
  ASSERT_EQ(Shell(Pkramfs() + " " + region_ + " " + mount_ + " -o size=256m").status, 0);
  Unmount();
  ASSERT_EQ(Shell(Pkramctl() + " put " + region_ + " saved </dev/null").status, 0);
  refused();
  EXPECT_EQ(Shell("ls " + mount_).out, "");
  // Nor one with anything in it, although it was used once only.
  Unmount();
  unlink(region_.c_str());
  Mount("size=256m");
  Spill(mount_ + "/other", "other");
  Unmount();
  refused();
  EXPECT_EQ(Slurp(mount_ + "/other"), "other");
  Unmount();
  unlink(region_.c_str());
  Mount(options);
  EXPECT_EQ(ManifestOf(mount_), then);
  // One that is there wins.
  Spill(mount_ + "/later", "later");
  Kill();
  WaitUntilFree();
  Mount(options);
  EXPECT_EQ(Slurp(mount_ + "/later"), "later");
  // Another size is taken, as for any region.
  ASSERT_EQ(Checkpoint("").status, 0);
  LoseRegion();
  Mount("size=300m,checkpoint=" + image_);
  EXPECT_EQ(Slurp(mount_ + "/later"), "later");
  EXPECT_GT(Statistics()["pages"]["total"], 300u << 8);
}

// Of a smaller size pages in use may lie beyond the end.
TEST_F(CheckpointTest, ItFollowsTheSize) {
  Mount("size=64m");
  Spill(mount_ + "/first", std::string(50 << 20, 'f'));
  Spill(mount_ + "/behind", std::string(8 << 20, 'b'));
  ASSERT_EQ(Checkpoint(image_).status, 0);
  unlink((mount_ + "/first").c_str());
  for (const char* size : {"16m", "100m"}) {
    ASSERT_EQ(Shell(Pkramctl() + " resize " + region_ + " size=" + size).status, 0);
    Spill(mount_ + "/last", size);
    const Ran ran = Checkpoint(image_);
    ASSERT_EQ(ran.status, 0) << ran.err;
    const Manifest then = ManifestOf(mount_);
    Unmount();
    unlink(region_.c_str());
    ASSERT_EQ(Shell(Pkramctl() + " restore " + image_ + " " + region_).status, 0);
    Mount(std::string("size=") + size);
    EXPECT_EQ(ManifestOf(mount_), then);
  }
}

TEST_F(CheckpointTest, TheLastOneIsMadeAtTheEnd) {
  Mount("size=16m,checkpoint=" + image_);
  Spill(mount_ + "/file", "one");
  Unmount();
  unlink(region_.c_str());
  Mount("size=16m,checkpoint_at_exit=no,checkpoint=" + image_);
  EXPECT_EQ(Slurp(mount_ + "/file"), "one");
  Spill(mount_ + "/file", "two");
  Unmount();
  unlink(region_.c_str());
  Mount("size=16m,checkpoint=" + image_);
  EXPECT_EQ(Slurp(mount_ + "/file"), "one");
  // SIGTERM, as at a shutdown.
  Spill(mount_ + "/file", "three");
  kill(DaemonPid(), SIGTERM);
  ASSERT_TRUE(Eventually([&] { return !IsMounted(mount_); }));
  WaitUntilFree();
  unlink(region_.c_str());
  Mount("size=16m,checkpoint=" + image_);
  EXPECT_EQ(Slurp(mount_ + "/file"), "three");
  // One that never came about makes none.
  Unmount();
  const std::string before = Slurp(image_);
  EXPECT_NE(
      Shell(Pkramfs() + " " + region_ + " " + dir_ + "/nowhere -o checkpoint=" + image_).status, 0);
  EXPECT_TRUE(Slurp(image_) == before);
}

TEST_F(CheckpointTest, ByItselfEveryNowAndThen) {
  Mount("size=16m,checkpoint_every=1s,checkpoint_at_exit=no,checkpoint=" + image_);
  Spill(mount_ + "/file", "bytes");
  // The second one began after that.
  int64_t first = 0;
  ASSERT_TRUE(Eventually([&] {
    const nlohmann::json last = Statistics()["checkpoint"]["last"];
    if (!last.is_object()) return false;
    if (first == 0) first = last["seconds"];
    return last["seconds"] > first;
  }));
  // It goes on below a takeover.
  ASSERT_TRUE(KillOne(Victim::kServer, region_));
  ASSERT_TRUE(Eventually([&] { return Statistics()["checkpoint"]["last"].is_object(); }));
  LoseRegion();
  Mount("size=16m,checkpoint=" + image_);
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

TEST_F(CheckpointTest, WhatCannotBeAnImageIsRefusedAndLeftAlone) {
  Mount("size=16m");
  Spill(mount_ + "/file", "bytes");
  Spill(dir_ + "/text", "no image");
  std::filesystem::create_directory(dir_ + "/directory");
  std::filesystem::create_symlink(region_, dir_ + "/region");
  const std::pair<std::string, std::string> rows[] = {
      {"", "say which file: the mount has no option checkpoint=FILE"},
      {mount_ + "/image", "it is on the mount itself: choose a file on a disk"},
      {region_, "it is the region itself: choose another file"},
      {dir_ + "/region", "it is the region itself: choose another file"},
      {dir_ + "/text", "not an image of a region"},
      {dir_ + "/directory", "not an image of a region: no file"},
      {dir_ + "/nowhere/image", "No such file or directory: make the directory first"},
      {"/proc/image", "/proc/image"},
  };
  for (const auto& [file, why] : rows) {
    const Ran ran = Checkpoint(file);
    EXPECT_EQ(ran.status, 2) << file;
    EXPECT_THAT(ran.err, HasSubstr(why)) << file;
    EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
  }
  EXPECT_EQ(Slurp(dir_ + "/text"), "no image");
  // Of another filesystem.
  ASSERT_EQ(Checkpoint(image_).status, 0);
  Unmount();
  unlink(region_.c_str());
  Mount("size=16m");
  const Ran other = Checkpoint(image_);
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.err, HasSubstr("an image of another filesystem: choose another name"));
  // A disk that has no room.
  std::filesystem::create_directory(dir_ + "/full");
  ASSERT_EQ(mount("none", (dir_ + "/full").c_str(), "tmpfs", 0, "size=64k"), 0);
  Spill(mount_ + "/file", std::string(1 << 20, 'b'));
  const Ran full = Checkpoint(dir_ + "/full/image");
  EXPECT_EQ(full.status, 2);
  EXPECT_THAT(full.err,
              AllOf(HasSubstr("beside what is there, and the disk has 64 KiB: choose another")));
  EXPECT_TRUE(std::filesystem::is_empty(dir_ + "/full"));
  umount2((dir_ + "/full").c_str(), 0);
  // A disk that has room for the changed pages, also after an attempt that failed.
  ASSERT_EQ(::mount("none", (dir_ + "/full").c_str(), "tmpfs", 0, "size=2m"), 0);
  ASSERT_EQ(Checkpoint(dir_ + "/full/image").status, 0);
  EXPECT_EQ(Checkpoint(dir_ + "/text").status, 2);
  Spill(mount_ + "/other", "small");
  const Ran change = Checkpoint(dir_ + "/full/image");
  EXPECT_EQ(change.status, 0) << change.err;
  umount2((dir_ + "/full").c_str(), 0);
  // Only root and the user who mounted may do this.
  ASSERT_EQ(Shell("install -m 755 " + Pkramctl() + " " + dir_ + "/ctl").status, 0);
  EXPECT_EQ(Shell("setpriv --reuid 65534 --regid 65534 --clear-groups " + dir_ +
                  "/ctl checkpoint " + region_ + " /tmp/pkramfs-never")
                .status,
            2);
  // Root of a container may not, because its names mean other files.
  for (const char* as : {"unshare --pid --fork ", "setpriv --bounding-set=-sys_admin "}) {
    const Ran contained =
        Shell(as + dir_ + "/ctl checkpoint " + region_ + " " + dir_ + "/contained");
    EXPECT_EQ(contained.status, 2) << as;
    EXPECT_THAT(contained.err, HasSubstr("Operation not permitted")) << as;
    EXPECT_NE(access((dir_ + "/contained").c_str(), F_OK), 0) << as;
  }
}

TEST_F(CheckpointTest, DamageIsNamedAndNothingIsMadeOfIt) {
  Mount("size=16m,checkpoint_at_exit=no,checkpoint=" + image_);
  Spill(mount_ + "/file", std::string(10000, 'f'));
  ASSERT_EQ(Checkpoint("").status, 0);
  // A page of the file.
  const std::string bytes = Slurp(image_);
  const size_t at = bytes.find(std::string(4096, 'f'));
  ASSERT_NE(at, std::string::npos);
  {
    std::fstream file(image_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at + 100));
    file << "x";
  }
  const std::string page = "page " + std::to_string(at / 4096);
  const Ran check = Shell(Pkramctl() + " check " + image_);
  EXPECT_EQ(check.status, 1);
  EXPECT_THAT(check.out, AllOf(HasSubstr(page + " (of /file): its checksum is wrong"),
                               HasSubstr("1 pages are damaged")));
  const Ran restore = Shell(Pkramctl() + " restore " + image_ + " " + region_ + "-2");
  EXPECT_EQ(restore.status, 2);
  EXPECT_THAT(restore.err, HasSubstr(page + " is damaged"));
  EXPECT_NE(access((region_ + "-2").c_str(), F_OK), 0);
  LoseRegion();
  const Ran ran = TryMount("size=16m,checkpoint=" + image_);
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr(page + " is damaged"));
  EXPECT_NE(access(region_.c_str(), F_OK), 0);
  // Without the option, or the image, it is a new filesystem.
  Mount("size=16m");
}

// Whatever the page: its file is named, or none where it is nobody's.
TEST_F(CheckpointTest, DamageIsNamedByPath) {
  Mount("size=16m,checkpoint_at_exit=no,checkpoint=" + image_);
  const std::string dir = mount_ + "/dir", file = dir + "/file";
  ASSERT_EQ(mkdir(dir.c_str(), 0755), 0);
  Spill(file, std::string(10000, 'f'));
  ASSERT_EQ(setxattr(file.c_str(), "user.x", std::string(5000, 'x').data(), 5000, 0), 0);
  for (int i = 0; i < 40; ++i) Spill(dir + "/" + std::to_string(i) + std::string(200, 'n'), "");
  // Open and without a name.
  const int fd = open((mount_ + "/gone").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(pwrite(fd, std::string(8192, 'g').data(), 8192, 0), 8192);
  ASSERT_EQ(unlink((mount_ + "/gone").c_str()), 0);
  ASSERT_EQ(Checkpoint("").status, 0);
  close(fd);
  const std::string whole = Slurp(image_);
  const std::string empty(4096, '\0');
  std::map<std::string, int> seen;
  std::fstream image(image_, std::ios::binary | std::ios::in | std::ios::out);
  for (size_t page = 0; page < whole.size(); page += 4096) {
    if (whole.compare(page, 4096, empty) == 0) continue;
    // A byte near its end: what structure begins with tells how to go on.
    const size_t at = page + 4000;
    image.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(whole[at] ^ 1)).flush();
    const std::string out = Shell(Pkramctl() + " check " + image_).out;
    image.seekp(static_cast<std::streamoff>(at)).put(whole[at]).flush();
    const size_t of = out.find("(of ");
    if (of != std::string::npos) ++seen[out.substr(of + 4, out.find(')') - of - 4)];
  }
  EXPECT_GE(seen["/dir/file"], 3 + 2 + 1) << "its bytes, attribute and inode";
  EXPECT_GE(seen["/dir"], 2) << "its names and inode";
  EXPECT_EQ(seen["/dir/7" + std::string(200, 'n')], 1) << "its inode";
  EXPECT_GE(seen["/"], 1);
  for (const auto& [path, count] : seen) EXPECT_THAT(path, testing::Not(HasSubstr("gone")));
}

TEST_F(CheckpointTest, ARestoreThatWasInterruptedIsDoneAnew) {
  Mount("size=16m,checkpoint=" + image_);
  Spill(mount_ + "/file", "bytes");
  Unmount();
  // As Restore leaves it until it is done.
  Spill(region_, std::string(100 * 4096, 'r'));
  {
    std::fstream file(region_, std::ios::binary | std::ios::in | std::ios::out);
    file.write(reinterpret_cast<const char*>(&pkram::format::kRestoring), 8);
  }
  const Ran without = TryMount("size=16m");
  EXPECT_NE(without.status, 0);
  EXPECT_THAT(without.err,
              HasSubstr("an image was restored to it in part: delete it, and restore"));
  Mount("size=16m,checkpoint=" + image_);
  EXPECT_EQ(Slurp(mount_ + "/file"), "bytes");
}

// It is a region from then on.
TEST_F(CheckpointTest, AnImageCanBeMountedWhereItLies) {
  Mount("size=64m");
  MakeTree();
  const Manifest then = ManifestOf(mount_);
  ASSERT_EQ(Checkpoint(image_).status, 0);
  Unmount();
  const std::string elsewhere = dir_ + "/elsewhere";
  mkdir(elsewhere.c_str(), 0700);
  ASSERT_EQ(Shell(Pkramfs() + " " + image_ + " " + elsewhere).status, 0);
  EXPECT_EQ(ManifestOf(elsewhere), then);
  Spill(elsewhere + "/new", "new");
  ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
  ASSERT_TRUE(WaitUntilRegionIsFree(image_));
  EXPECT_EQ(Shell(Pkramctl() + " check " + image_).status, 0);
  const Ran restore = Shell(Pkramctl() + " restore " + image_ + " " + region_ + "-2");
  EXPECT_EQ(restore.status, 2);
  EXPECT_THAT(restore.err, HasSubstr("it was cut off, or has been mounted for writing"));
}

// An image that is mounted read-only does not change, whatever somebody tries, and whichever
// process dies.
TEST_F(CheckpointTest, AnImageThatIsMountedReadOnlyStaysOne) {
  Mount("size=64m");
  MakeTree();
  const Manifest then = ManifestOf(mount_);
  ASSERT_EQ(Checkpoint(image_).status, 0);
  Unmount();
  const std::string bytes = Slurp(image_), elsewhere = dir_ + "/elsewhere";
  chmod(image_.c_str(), 0400);
  mkdir(elsewhere.c_str(), 0700);
  const std::string mounts = Pkramfs() + " " + image_ + " " + elsewhere + " -o ";
  const Ran both = Shell(mounts + "ro,checkpoint=" + image_ + ".2");
  EXPECT_NE(both.status, 0);
  EXPECT_THAT(both.err, HasSubstr("leave one of them out"));
  const Ran ran = Shell(mounts + "ro");
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ManifestOf(elsewhere), then);
    EXPECT_EQ(open((elsewhere + "/large").c_str(), O_RDWR), -1);
    EXPECT_EQ(errno, EROFS);
    const Ran remount = Shell(Pkramfs() + " " + image_ + " " + elsewhere + " -o remount,rw");
    EXPECT_NE(remount.status, 0);
    EXPECT_THAT(remount.err, HasSubstr("an image is mounted there, which does not change"));
    ASSERT_TRUE(KillOne(Victim::kServer, image_));
  }
  // Past the helper.
  ASSERT_EQ(mount("none", elsewhere.c_str(), nullptr, MS_REMOUNT, nullptr), 0);
  const int file = open((elsewhere + "/large").c_str(), O_RDWR);
  const int source = open((elsewhere + "/sparse").c_str(), O_RDONLY);
  const auto refused = [&](const char* what, int64_t result) {
    EXPECT_EQ(result, -1) << what;
    EXPECT_EQ(errno, EROFS) << what;
  };
  const auto at = [&](const char* name) { return elsewhere + "/" + name; };
  refused("write", pwrite(file, "x", 1, 0));
  refused("ftruncate", ftruncate(file, 1));
  refused("fallocate", fallocate(file, 0, 0, 8 << 20));
  refused("copy_file_range", copy_file_range(source, nullptr, file, nullptr, 4096, 0));
  refused("fchmod", fchmod(file, 0600));
  refused("futimens", futimens(file, nullptr));
  refused("fsetxattr", fsetxattr(file, "user.b", "value", 5, 0));
  refused("fremovexattr", fremovexattr(file, "user.a"));
  refused("open", open(at("new").c_str(), O_CREAT | O_WRONLY, 0600));
  refused("mknod", mknod(at("new").c_str(), S_IFIFO | 0600, 0));
  refused("mkdir", mkdir(at("new").c_str(), 0700));
  refused("symlink", symlink("a", at("new").c_str()));
  refused("link", link(at("large").c_str(), at("new").c_str()));
  refused("rename", rename(at("large").c_str(), at("new").c_str()));
  refused("unlink", unlink(at("large").c_str()));
  refused("rmdir", rmdir(at("d").c_str()));
  close(file);
  close(source);
  EXPECT_EQ(ManifestOf(elsewhere), then);
  ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
  EXPECT_TRUE(Slurp(image_) == bytes);
  EXPECT_EQ(Shell(Pkramctl() + " check " + image_).status, 0);
  // The same by a descriptor.  And a checkpoint does not replace the image that the mount shows.
  ASSERT_EQ(Shell(Pkramfs() + " fd=3 " + elsewhere + " -o ro 3<" + image_).status, 0);
  EXPECT_EQ(ManifestOf(elsewhere), then);
  EXPECT_EQ(Shell(Pkramctl() + " info " + image_ + " >/dev/null").status, 0);
  const Ran replaces = Shell(Pkramctl() + " checkpoint " + image_ + " " + image_);
  EXPECT_NE(replaces.status, 0);
  EXPECT_THAT(replaces.err, HasSubstr("an image is there: choose another name"));
  ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
  EXPECT_TRUE(Slurp(image_) == bytes);
  // One that others may write to, or of a later format, is refused, and not opened as a region.
  chmod(image_.c_str(), 0664);
  const Ran unsafe = Shell(Pkramfs() + " fd=3 " + elsewhere + " -o ro 3<>" + image_);
  EXPECT_NE(unsafe.status, 0);
  chmod(image_.c_str(), 0600);
  {
    const pkram::Descriptor fd(open(image_.c_str(), O_RDWR));
    const auto where =
        static_cast<off_t>(bytes.size() - 4096 + offsetof(pkram::format::ImageFooter, version));
    const decltype(pkram::format::ImageFooter::version) later = pkram::format::kImageVersion + 1;
    ASSERT_EQ(pwrite(fd.get(), &later, sizeof(later), where), static_cast<ssize_t>(sizeof(later)));
    const Ran newer = Shell(mounts + "ro");
    EXPECT_NE(newer.status, 0);
    EXPECT_THAT(newer.err, HasSubstr("an image of format"));
    ASSERT_EQ(pwrite(fd.get(), bytes.data() + where, sizeof(later), where),
              static_cast<ssize_t>(sizeof(later)));
  }
  EXPECT_TRUE(Slurp(image_) == bytes);
  // One that is damaged is not shown as if it were whole.
  const int fd = open(image_.c_str(), O_RDWR);
  ASSERT_EQ(pwrite(fd, "damage", 6, 4096 + 3000), 6);
  close(fd);
  const Ran damaged = Shell(mounts + "ro");
  EXPECT_NE(damaged.status, 0);
  EXPECT_THAT(damaged.err, HasSubstr("is damaged"));
}

// To memory, and mounted beside the one that goes on.
TEST_F(CheckpointTest, OneInMemoryIsASnapshot) {
  Mount("size=64m");
  MakeTree();
  const Manifest then = ManifestOf(mount_);
  const std::string snapshot = region_ + "-snapshot", elsewhere = dir_ + "/elsewhere";
  ASSERT_EQ(Checkpoint(snapshot).status, 0);
  Spill(mount_ + "/large", "another");
  mkdir(elsewhere.c_str(), 0700);
  ASSERT_EQ(Shell(Pkramfs() + " " + snapshot + " " + elsewhere).status, 0);
  EXPECT_EQ(ManifestOf(elsewhere), then);
  Spill(elsewhere + "/large", "a third");
  EXPECT_EQ(Slurp(mount_ + "/large"), "another");
  ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
  ASSERT_TRUE(WaitUntilRegionIsFree(snapshot));
}

// The changed pages are on the disk, in the delta, but cannot be written to their places.  The
// image is the new one.
TEST_F(CheckpointTest, AChangeBesideTheImageIsPartOfIt) {
  Mount("size=64m");
  Spill(mount_ + "/file", "one");
  ASSERT_EQ(Checkpoint(image_).status, 0);
  Spill(mount_ + "/file", "two");
  chmod(image_.c_str(), 0400);  // the daemon has no right to more
  const Ran ran = Checkpoint(image_);
  EXPECT_EQ(ran.status, 2);
  EXPECT_THAT(ran.err, HasSubstr("image: open: Permission denied"));
  EXPECT_EQ(access((image_ + ".delta").c_str(), F_OK), 0);
  EXPECT_EQ(Shell(Pkramctl() + " check " + image_).status, 0);
  mkdir((dir_ + "/elsewhere").c_str(), 0700);
  const std::string elsewhere = dir_ + "/elsewhere";
  const Ran as_it_lies = Shell(Pkramfs() + " " + image_ + " " + elsewhere);
  EXPECT_NE(as_it_lies.status, 0);
  EXPECT_THAT(as_it_lies.err, HasSubstr("an image of which a part is in"));
  ASSERT_EQ(Shell(Pkramfs() + " " + image_ + " " + elsewhere + " -o ro").status, 0);
  EXPECT_EQ(Slurp(elsewhere + "/file"), "two");
  ASSERT_EQ(umount2(elsewhere.c_str(), 0), 0);
  // The next one is a whole one.
  Spill(mount_ + "/file", "three");
  ASSERT_EQ(Checkpoint(image_).status, 0);
  EXPECT_NE(access((image_ + ".delta").c_str(), F_OK), 0);
  for (const char* text : {"three", "two"}) {
    Kill();
    WaitUntilFree();
    unlink(region_.c_str());
    Mount("size=64m,checkpoint=" + image_);
    EXPECT_EQ(Slurp(mount_ + "/file"), text);
    if (text == std::string("two")) break;
    // And of one that was left so a region is made, too.
    Spill(mount_ + "/file", "one");
    ASSERT_EQ(Checkpoint("").status, 0);
    Spill(mount_ + "/file", "two");
    chmod(image_.c_str(), 0400);
    EXPECT_EQ(Checkpoint("").status, 2);
  }
}

TEST_F(CheckpointTest, ItIsMadeBelowATakeoverAndOfAFrozenFilesystem) {
  Mount("size=256m");
  Spill(mount_ + "/file", std::string(64 << 20, 'f'));
  Ran ran;
  std::thread makes([&] { ran = Checkpoint(image_); });
  ASSERT_TRUE(Eventually([&] { return Statistics().contains("checkpoint"); }));
  ASSERT_TRUE(KillOne(Victim::kServer, region_));
  makes.join();
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(Shell(Pkramctl() + " check " + image_).status, 0);
  ASSERT_EQ(Shell(Pkramctl() + " freeze " + region_).status, 0);
  EXPECT_EQ(Checkpoint(image_).status, 0);
  EXPECT_THAT(Shell(Pkramctl() + " freeze " + region_).err, HasSubstr("frozen already"));
  ASSERT_EQ(Shell(Pkramctl() + " thaw " + region_).status, 0);
  Spill(mount_ + "/file", "not frozen");
  EXPECT_EQ(Slurp(mount_ + "/file"), "not frozen");
}

TEST_F(CheckpointTest, OptionsThatCannotChangeAreRefusedByName) {
  for (const char* wrong : {"checkpoint=image", "checkpoint=/", "checkpoint=", "checkpoint_every=x",
                            "checkpoint_every=", "checkpoint_at_exit=maybe"}) {
    const Ran ran = TryMount(wrong);
    EXPECT_EQ(ran.status, 1) << wrong;
    EXPECT_THAT(ran.err, HasSubstr(std::string("option ") + wrong + ": not ")) << wrong;
  }
  // Nothing is mounted that could never make one.
  Spill(dir_ + "/text", "no image");
  ASSERT_EQ(mkfifo((dir_ + "/fifo").c_str(), 0600), 0);
  const std::pair<std::string, std::string> rows[] = {
      {"checkpoint_every=1h", "option checkpoint_every: say where to, too: checkpoint=FILE"},
      {"checkpoint=" + dir_ + "/nowhere/image", "No such file or directory: make the directory"},
      {"checkpoint=" + dir_ + "/text", "not an image of a region"},
      {"checkpoint=" + dir_ + "/fifo", "not an image of a region: no file"},
      {"checkpoint=" + region_, region_ + ": not an image of a region"},
  };
  for (const auto& [list, why] : rows) {
    const Ran ran = TryMount("size=16m," + list);
    EXPECT_NE(ran.status, 0) << list;
    EXPECT_THAT(ran.err, HasSubstr(why)) << list;
    EXPECT_FALSE(IsMounted(mount_));
    EXPECT_NE(access(region_.c_str(), F_OK), 0) << list;
  }
  const std::string options = "size=16m,checkpoint_every=1h,checkpoint=" + image_;
  Mount(options);
  const auto remount = [&](const std::string& list) {
    return Shell(Pkramfs() + " " + region_ + " " + mount_ + " -o remount," + list);
  };
  EXPECT_EQ(remount(options).status, 0);
  EXPECT_THAT(remount("checkpoint=" + image_ + "2").err, HasSubstr("image2: cannot change"));
  EXPECT_THAT(remount("checkpoint_every=2h").err, HasSubstr("checkpoint_every: cannot change"));
  EXPECT_THAT(remount("checkpoint_at_exit=no").err, HasSubstr("checkpoint_at_exit=no: cannot"));
}

}  // namespace
}  // namespace pkramfs
