// What a program writes may come from any memory: such as cannot be pinned, and such as is not
// there yet.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <fstream>
#include <thread>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

constexpr size_t kPage = 4096;

class MemoryRules : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    NEEDS_KERNEL();
  }

  static int ErrnoOf(ssize_t result) { return result < 0 ? errno : 0; }

  // What is written from there can be read; in each way that a file is opened.
  void ExpectWritten(const char* from, size_t size) {
    int i = 0;
    for (const int flags : {O_CREAT | O_WRONLY, O_CREAT | O_RDWR, O_CREAT | O_WRONLY | O_APPEND,
                            O_CREAT | O_WRONLY | O_SYNC}) {
      const std::string name = "f" + std::to_string(i++);
      const int fd = Open(name, flags);
      EXPECT_EQ(write(fd, from, size), static_cast<ssize_t>(size)) << std::strerror(errno);
      fs().Close(fd);
      EXPECT_EQ(Of(name).st_size, static_cast<off_t>(size));
    }
  }
};

#define ON_A_KERNEL() \
  if (IsSkipped()) return

// The kernel's own page in each program; what is there changes all the time.
TEST_F(MemoryRules, FromThePageOfTheClock) {
  ON_A_KERNEL();
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("[vvar]") == std::string::npos) continue;
    // (A number, and not a pointer of this program's.)
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    ExpectWritten(reinterpret_cast<const char*>(std::stoull(line, nullptr, 16)), kPage);
    return;
  }
  GTEST_SKIP() << "no [vvar] here";
}

TEST_F(MemoryRules, FromSecretMemory) {
  ON_A_KERNEL();
  const int secret = static_cast<int>(syscall(SYS_memfd_secret, 0));
  if (secret < 0) GTEST_SKIP() << "no memfd_secret here: " << std::strerror(errno);
  constexpr size_t kSize = 3 * kPage;
  ASSERT_EQ(ftruncate(secret, kSize), 0);
  void* const at = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, secret, 0);
  ASSERT_NE(at, MAP_FAILED) << std::strerror(errno);
  std::memset(at, 's', kSize);
  ExpectWritten(static_cast<const char*>(at), kSize);
  EXPECT_EQ(Text("f0"), std::string(kSize, 's'));
  EXPECT_EQ(Text("f3"), std::string(kSize, 's'));
  // As on disks; tmpfs copies then, too.
  if (!fs().is_tmpfs()) {
    const int fd = Open("direct", O_CREAT | O_WRONLY | O_DIRECT);
    EXPECT_EQ(ErrnoOf(write(fd, at, kSize)), EFAULT);
    fs().Close(fd);
  }
  munmap(at, kSize);
  close(secret);
}

// Memory whose last page comes only when Let() is called: whoever touches it before waits.
class LateMemory {
 public:
  explicit LateMemory(size_t size) : size_(size) {
    at_ = static_cast<char*>(
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::memset(at_, 'x', size - kPage);
    fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
    uffdio_register last{};
    last.range = Last();
    last.mode = UFFDIO_REGISTER_MODE_MISSING;
    works_ = fd_ >= 0 && ioctl(fd_, UFFDIO_API, &api) == 0 && ioctl(fd_, UFFDIO_REGISTER, &last) == 0;
  }
  ~LateMemory() {
    close(fd_);
    munmap(at_, size_);
  }
  LateMemory(const LateMemory&) = delete;
  LateMemory& operator=(const LateMemory&) = delete;

  bool works() const { return works_; }
  const char* at() const { return at_; }
  // Until somebody waits for the page.
  bool Wait() const {
    pollfd waits{.fd = fd_, .events = POLLIN, .revents = 0};
    return poll(&waits, 1, 60000) == 1;
  }
  void Let() const {
    const std::string bytes(kPage, 'x');
    uffdio_copy copy{};
    copy.dst = Last().start;
    copy.src = reinterpret_cast<uint64_t>(bytes.data());
    copy.len = kPage;
    EXPECT_EQ(ioctl(fd_, UFFDIO_COPY, &copy), 0) << std::strerror(errno);
  }

 private:
  uffdio_range Last() const {
    return {.start = reinterpret_cast<uint64_t>(at_) + size_ - kPage, .len = kPage};
  }
  const size_t size_;
  char* at_ = nullptr;
  int fd_ = -1;
  bool works_ = false;
};

// Somebody has read to the end, and reads on while a write is under way.
TEST_F(MemoryRules, APageThatComesLateIsNeverReadAsZeros) {
  ON_A_KERNEL();
  constexpr size_t kAdded = 1 << 20;
  int i = 0;
  for (const int flags : {O_WRONLY | O_APPEND, O_RDWR | O_APPEND, O_WRONLY | O_APPEND | O_SYNC}) {
    const LateMemory memory(kAdded);
    if (!memory.works()) GTEST_SKIP() << "no userfaultfd for the kernel's own faults here";
    const std::string name = "log" + std::to_string(i++);
    const int writer = Open(name, O_CREAT | O_EXCL | flags);
    const int reader = Open(name, O_RDONLY);
    ASSERT_EQ(write(writer, "begin", 5), 5);
    std::string seen(100, '\0');
    ASSERT_EQ(read(reader, seen.data(), seen.size()), 5);

    std::thread adds([&] {
      EXPECT_EQ(write(writer, memory.at(), kAdded), static_cast<ssize_t>(kAdded))
          << std::strerror(errno);
    });
    EXPECT_TRUE(memory.Wait());
    seen.assign(2 * kAdded, '\0');
    const ssize_t early = read(reader, seen.data(), seen.size());
    EXPECT_GE(early, 0);
    EXPECT_EQ(seen.substr(0, early), std::string(early, 'x'));
    memory.Let();
    adds.join();

    seen.assign(2 * kAdded, '\0');
    const ssize_t late = read(reader, seen.data(), seen.size());
    EXPECT_EQ(early + late, static_cast<ssize_t>(kAdded));
    EXPECT_EQ(seen.substr(0, late), std::string(late, 'x'));
    fs().Close(reader);
    fs().Close(writer);
  }
}

}  // namespace
}  // namespace pkramfs
