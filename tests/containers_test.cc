// What containers do with a mount: shift its owners, and keep its daemon in a pid namespace.
#include <gmock/gmock.h>
#include <grp.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "pkram/descriptor.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

class ContainersTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    tmpfs_ = dir_ + "/tmpfs";
    mkdir(tmpfs_.c_str(), 0755);
    ASSERT_EQ(mount("none", tmpfs_.c_str(), "tmpfs", 0, "size=16m,mode=1777"), 0);
  }
  void TearDown() override {
    umount2((mount_ + "-mapped").c_str(), MNT_DETACH);
    umount2((tmpfs_ + "-mapped").c_str(), MNT_DETACH);
    umount2(tmpfs_.c_str(), MNT_DETACH);
    MountTest::TearDown();
  }
  std::string tmpfs_;
};

// Whose ids from 0 on are 10000 and so on.
int UserNamespace() {
  int ready[2];
  if (pipe(ready) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWUSER) != 0 || write(ready[1], "x", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  close(ready[1]);
  char byte;
  const bool there = read(ready[0], &byte, 1) == 1;
  close(ready[0]);
  const std::string proc = "/proc/" + std::to_string(child);
  if (there) {
    Spill(proc + "/uid_map", "0 10000 1000");
    Spill(proc + "/gid_map", "0 10000 1000");
  }
  const int fd = there ? open((proc + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC) : -1;
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return fd;
}

// 0, or an errno.
int MountIdmapped(const std::string& from, const std::string& to) {
  constexpr unsigned kOpenTreeClone = 1, kMoveEmptyPath = 4;
  constexpr uint64_t kIdmap = 0x00100000;
  struct {
    uint64_t set, clear, propagation, user_namespace;
  } attributes{kIdmap, 0, 0, 0};
  const Descriptor user(UserNamespace());
  if (user.get() < 0) return ENOSYS;
  attributes.user_namespace = static_cast<uint64_t>(user.get());
  mkdir(to.c_str(), 0755);
  const Descriptor tree(
      static_cast<int>(syscall(428, AT_FDCWD, from.c_str(), kOpenTreeClone | O_CLOEXEC)));
  if (tree.get() < 0) return errno;
  if (syscall(442, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) != 0) {
    return errno;
  }
  return syscall(429, tree.get(), "", AT_FDCWD, to.c_str(), kMoveEmptyPath) == 0 ? 0 : errno;
}

// What a user does on the mount, and the results.
Ran As(const std::string& user, const std::string& directory, const std::string& script) {
  return Shell("cd " + directory + " && setpriv " + user + " sh -c '" + script + "'");
}

TEST_F(ContainersTest, AnIdmappedMountIsAsOneOfTmpfs) {
  Mount("size=64m");
  const int error = MountIdmapped(mount_, mount_ + "-mapped");
  if (error == EINVAL || error == ENOSYS) GTEST_SKIP() << "no idmapped mounts of FUSE here";
  ASSERT_EQ(error, 0) << std::strerror(error);
  ASSERT_EQ(MountIdmapped(tmpfs_, tmpfs_ + "-mapped"), 0);
  const auto run = [](const std::string& plain) {
    const std::string mapped = plain + "-mapped",
                      user = "--reuid=10001 --regid=10001 --clear-groups";
    std::string all;
    const auto add = [&](const Ran& ran) { all += ran.out + std::to_string(ran.status) + "\n"; };
    add(As(
        user, mapped,
        "umask 022; echo hello >f && mkdir d && ln -s f l && ln f h && cat f; stat -c \"%n %u %g "
        "%a\" f d l; chmod 4755 f; stat -c %a f; echo x >>f; stat -c %a f; truncate -s 3 f; mv f "
        "g; rm h; setfattr -n user.a -v 1 g; getfattr --only-values -n user.a g"));
    add(Shell("cd " + plain + " && stat -c '%n %u %g %a' g d l"));
    // Root, which has no id on this mount.
    add(Shell("cd " + mapped +
              " && echo more >>g; cat g; stat -c '%u %a' g; touch made 2>&1 | "
              "sed s/.*made//"));
    // Root's own way: nothing that is root's goes.
    add(Shell("cd " + plain +
              " && chmod 6755 g && echo y >>g && stat -c %a g && fallocate -l 9999 "
              "g && stat -c %a g && truncate -s 5 g && stat -c %a g && chown 7:8 g && stat -c '%a "
              "%u %g' g && setfattr -n trusted.t -v 1 g && getfattr -m - g"));
    // Others in the file's group, with and without its right to execute.
    add(Shell("cd " + plain + " && echo z >k && chown 0:77 k && chmod 2664 k"));
    add(As("--reuid=1234 --regid=1234 --groups=77", plain, "echo w >>k; stat -c %a k"));
    add(Shell("cd " + plain + " && chmod 2674 k"));
    add(As("--reuid=1234 --regid=1234 --groups=77", plain, "echo w >>k; stat -c %a k"));
    return all;
  };
  EXPECT_EQ(run(mount_), run(tmpfs_));
  EXPECT_EQ(Shell(Pkramctl() + " resize " + region_ + " size=65m").status, 0);
  EXPECT_NE(Shell("setpriv --reuid=1234 " + Pkramctl() + " resize " + region_ + " size=66m").status,
            0);
}

// /proc knows nobody by a number that the daemon is told: the kernel's word is what there is.
TEST_F(ContainersTest, ADaemonInAPidNamespaceKnowsWhoMayKeepSetIds) {
  ASSERT_EQ(Shell("unshare --pid --fork " + Pkramfs() + " -f " + region_ + " " + mount_ +
                  " -o size=64m >/dev/null 2>&1 &")
                .status,
            0);
  ASSERT_TRUE(Eventually([&] { return IsMounted(mount_); }));
  const auto run = [](const std::string& plain) {
    const std::string member = "--reuid=1234 --regid=1234 --groups=77";
    const std::string stranger = "--reuid=1234 --regid=1234 --clear-groups";
    std::string all;
    const auto add = [&](const Ran& ran) { all += ran.out + std::to_string(ran.status) + "\n"; };
    for (const char* mode : {"2666", "2676", "6666", "6777"}) {
      for (const char* change : {"echo w >>k", "truncate -s 1 k", "truncate -s 99999 k"}) {
        for (const std::string& user : {member, std::string("--reuid=0")}) {
          add(Shell("cd " + plain + " && echo z >k && chown 0:77 k && chmod " + mode + " k"));
          add(As(user, plain, std::string(change) + "; stat -c %a k"));
        }
      }
    }
    // Given to a group by an owner who is a member of it, and of the one that it had.
    for (const char* mode : {"2666", "2676", "6666", "6777"}) {
      add(Shell("cd " + plain + " && echo z >k && chown 1234:77 k && chmod " + mode + " k"));
      add(As(member, plain, "chgrp 1234 k; stat -c \"%a %g\" k"));
    }
    // Where the group may not execute, the bit stays a member's.
    for (const char* change : {"fallocate -l 9999 k", "fallocate -p -l 4096 k"}) {
      add(Shell("cd " + plain + " && echo z >k && chown 0:77 k && chmod 2666 k"));
      add(As(member, plain, std::string(change) + "; stat -c %a k"));
    }
    // Made by a member in a directory of the group.
    add(Shell("cd " + plain + " && mkdir -p d && chown 0:77 d && chmod 2777 d"));
    add(As(member, plain + "/d", "umask 0; rm -f n; install -m 2755 /dev/null n; stat -c %a n"));
    // Nobody gains by an access list.
    add(Shell("cd " + plain + " && echo z >a && chown 1234:77 a && chmod 2755 a"));
    add(As(stranger, plain, "setfacl -m u:5:r a; stat -c %a a"));
    return all;
  };
  EXPECT_EQ(run(mount_), run(tmpfs_));
  // What docs/semantics.md lists.
  const auto mode_after = [](const std::string& plain, const std::string& mode,
                             const std::string& user, const std::string& change) {
    Shell("cd " + plain + " && rm k && echo z >k && chown 1234:77 k && chmod " + mode + " k");
    return As(user, plain, change + "; stat -c %a k").out;
  };
  const std::string member = "--reuid=1234 --regid=1234 --groups=77";
  const std::string stranger = "--reuid=1234 --regid=1234 --clear-groups";
  EXPECT_EQ(mode_after(mount_, "2755", member, "setfacl -m u:5:r k"), "755\n");
  EXPECT_EQ(mode_after(tmpfs_, "2755", member, "setfacl -m u:5:r k"), "2755\n");
  EXPECT_EQ(mode_after(mount_, "2666", stranger, "echo w >>k"), "2666\n");
  EXPECT_EQ(mode_after(tmpfs_, "2666", stranger, "echo w >>k"), "666\n");
  ASSERT_EQ(umount2(mount_.c_str(), 0), 0);
}

}  // namespace
}  // namespace pkramfs
