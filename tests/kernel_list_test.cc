// What docs/semantics.md calls the kernel's doing: libfuse's own example of a filesystem that only
// passes requests on (passthrough_ll) answers as we do.  What tmpfs answers is printed beside it.
#include <gmock/gmock.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include <array>
#include <functional>

#include "pkram/descriptor.h"
#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

// Newer kernels' (include/uapi/linux/fs.h): a length and 16 bytes.
#ifndef FS_IOC_GETFSUUID
#define FS_IOC_GETFSUUID _IOC(_IOC_READ, 0x15, 0, 17)
#endif
#ifndef FIOQSIZE
#define FIOQSIZE 0x5460
#endif

constexpr size_t kPage = 4096;

// 0, or the errno.
int ErrnoOf(long result) { return result < 0 ? errno : 0; }

// What a call says of a directory with a file "f".
struct Probe {
  const char* name;
  std::function<std::string(const std::string& directory)> ask;
};

// Of "f" there, opened to read and write.
auto OfAFile(std::function<std::string(int)> ask) {
  return [ask](const std::string& directory) {
    const pkram::Descriptor fd(open((directory + "/f").c_str(), O_RDWR));
    EXPECT_GE(fd.get(), 0) << std::strerror(errno);
    return ask(fd.get());
  };
}
template <typename Argument>
auto AnIoctl(unsigned long command) {
  return OfAFile([command](int fd) {
    Argument argument{};
    return std::string(strerrorname_np(ErrnoOf(ioctl(fd, command, &argument))));
  });
}

// The answer to `register_it` of a shared mapping.
auto OfAMapping(std::function<int(void*)> register_it) {
  return OfAFile([register_it](int fd) {
    void* const at = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT_NE(at, MAP_FAILED);
    const int result = register_it(at);
    munmap(at, kPage);
    return std::string(strerrorname_np(result));
  });
}

int RegisterWithUserfaultfd(void* at) {
  const pkram::Descriptor fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC)));
  uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  if (fd.get() < 0 || ioctl(fd.get(), UFFDIO_API, &api) != 0) return ENOSYS;
  uffdio_register memory{};
  memory.range = {.start = reinterpret_cast<uint64_t>(at), .len = kPage};
  memory.mode = UFFDIO_REGISTER_MODE_MISSING;
  return ErrnoOf(ioctl(fd.get(), UFFDIO_REGISTER, &memory));
}

int RegisterWithIoUring(void* at) {
  io_uring_params params{};
  const pkram::Descriptor ring(static_cast<int>(syscall(SYS_io_uring_setup, 1, &params)));
  if (ring.get() < 0) return ENOSYS;
  const iovec buffer{at, kPage};
  return ErrnoOf(syscall(SYS_io_uring_register, ring.get(), IORING_REGISTER_BUFFERS, &buffer, 1));
}

// Whether events can be had that name files by their handles.
auto MarkedForFanotify(unsigned what) {
  return [what](const std::string& directory) -> std::string {
    const pkram::Descriptor fd(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, 0));
    if (fd.get() < 0) return "not here";
    return strerrorname_np(ErrnoOf(
        fanotify_mark(fd.get(), FAN_MARK_ADD | what, FAN_MODIFY, AT_FDCWD, directory.c_str())));
  };
}

std::vector<Probe> Probes() {
  return {
      {"fanotify of an inode", MarkedForFanotify(FAN_MARK_INODE)},
      {"fanotify of a mount", MarkedForFanotify(FAN_MARK_MOUNT)},
      {"fanotify of a filesystem", MarkedForFanotify(FAN_MARK_FILESYSTEM)},
      {"f_fsid",
       [](const std::string& directory) -> std::string {
         struct statvfs st {};
         EXPECT_EQ(statvfs(directory.c_str(), &st), 0);
         return st.f_fsid == 0 ? "0" : "a number";
       }},
      {"epoll", OfAFile([](int fd) {
         const pkram::Descriptor poll(epoll_create1(0));
         epoll_event event{.events = EPOLLIN, .data = {}};
         return std::string(
             strerrorname_np(ErrnoOf(epoll_ctl(poll.get(), EPOLL_CTL_ADD, fd, &event))));
       })},
      {"F_GET_SEALS", OfAFile([](int fd) {
         return std::string(strerrorname_np(ErrnoOf(fcntl(fd, F_GET_SEALS))));
       })},
      {"FIBMAP", AnIoctl<int>(FIBMAP)},
      {"FS_IOC_GETFLAGS", AnIoctl<long>(FS_IOC_GETFLAGS)},
      {"FS_IOC_FSGETXATTR", AnIoctl<fsxattr>(FS_IOC_FSGETXATTR)},
      {"FS_IOC_GETFSUUID", AnIoctl<std::array<uint8_t, 17>>(FS_IOC_GETFSUUID)},
      {"FIOQSIZE", OfAFile([](int fd) {
         // As it was when attributes were asked for.
         struct statx now {};
         statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BLOCKS, &now);
         loff_t bytes = -1;
         const int error = ErrnoOf(ioctl(fd, FIOQSIZE, &bytes));
         return error == 0 ? std::to_string(bytes) + " bytes" : std::string(strerrorname_np(error));
       })},
      {"userfaultfd", OfAMapping(RegisterWithUserfaultfd)},
      {"io_uring's registered buffers", OfAMapping(RegisterWithIoUring)},
  };
}

class KernelListTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) return;
    const std::string source = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c";
    if (access(source.c_str(), R_OK) != 0) GTEST_SKIP() << "no " << source;
    const Ran made = Shell("cc -w -D_GNU_SOURCE " + source + " -o " + dir_ +
                           "/passthrough $(pkg-config --cflags --libs fuse3)");
    if (made.status != 0) GTEST_SKIP() << "it cannot be compiled here: " << made.err;
    for (const std::string& directory : {tmpfs(), passthrough()}) {
      ASSERT_EQ(mkdir(directory.c_str(), 0755), 0);
    }
    ASSERT_EQ(mount("none", tmpfs().c_str(), "tmpfs", 0, "size=16m"), 0);
    const Ran ran = Shell(dir_ + "/passthrough -o source=" + tmpfs() + " " + passthrough());
    ASSERT_EQ(ran.status, 0) << ran.err;
    Mount("size=16m");
    Spill(tmpfs() + "/f", std::string(kPage, 'f'));
    Spill(mount_ + "/f", std::string(kPage, 'f'));
  }
  void TearDown() override {
    umount2(passthrough().c_str(), MNT_DETACH);
    umount2(tmpfs().c_str(), MNT_DETACH);
    MountTest::TearDown();
  }
  std::string tmpfs() const { return dir_ + "/tmpfs"; }
  std::string passthrough() const { return dir_ + "/passed"; }
};

TEST_F(KernelListTest, APassthroughFilesystemDoesTheSame) {
  for (const Probe& probe : Probes()) {
    const std::string plain = probe.ask(passthrough());
    EXPECT_EQ(probe.ask(mount_), plain) << probe.name;
    std::printf("%-30s tmpfs %-12s a FUSE filesystem %s\n", probe.name, probe.ask(tmpfs()).c_str(),
                plain.c_str());
  }
}

// `umount -f` ends the connection, and programs with open files get an error.
TEST_F(KernelListTest, UnmountingByForceEndsTheConnection) {
  const auto forced = [](const std::string& directory) {
    const pkram::Descriptor fd(open((directory + "/f").c_str(), O_RDONLY));
    const int unmounted = ErrnoOf(umount2(directory.c_str(), MNT_FORCE));
    // Which the kernel cannot answer from its cache.
    return std::make_pair(unmounted, ErrnoOf(mkdir((directory + "/d").c_str(), 0755)));
  };
  EXPECT_EQ(forced(tmpfs()), std::make_pair(EBUSY, 0));
  const auto plain = forced(passthrough());
  EXPECT_EQ(plain, std::make_pair(EBUSY, ENOTCONN));
  EXPECT_EQ(forced(mount_), plain);
}

}  // namespace
}  // namespace pkramfs
