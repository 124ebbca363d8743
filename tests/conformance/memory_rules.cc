// What a program writes may come from any memory: such as cannot be pinned, and such as is not
// there yet.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

constexpr size_t kPageSize = 4096;

class MemoryRules : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    NEEDS_KERNEL();
  }

  // Bytes that are written from that memory can be read, in each way to open a file.
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

// The page that the kernel maps into each program; its contents change all the time.
TEST_F(MemoryRules, FromThePageOfTheClock) {
  ON_A_KERNEL();
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("[vvar]") == std::string::npos) continue;
    // (A number, and not a pointer of this program's.)
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    ExpectWritten(reinterpret_cast<const char*>(std::stoull(line, nullptr, 16)), kPageSize);
    return;
  }
  GTEST_SKIP() << "no [vvar] here";
}

TEST_F(MemoryRules, FromSecretMemory) {
  ON_A_KERNEL();
  const int secret = static_cast<int>(syscall(SYS_memfd_secret, 0));
  if (secret < 0) GTEST_SKIP() << "no memfd_secret here: " << std::strerror(errno);
  constexpr size_t kSize = 3 * kPageSize;
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

// Memory whose last page comes only when Let() is called.  A thread that touches it before waits.
class LateMemory {
 public:
  explicit LateMemory(size_t size) : size_(size) {
    at_ = static_cast<char*>(
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::memset(at_, 'x', size - kPageSize);
    fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
    uffdio_register last{};
    last.range = Last();
    last.mode = UFFDIO_REGISTER_MODE_MISSING;
    works_ =
        fd_ >= 0 && ioctl(fd_, UFFDIO_API, &api) == 0 && ioctl(fd_, UFFDIO_REGISTER, &last) == 0;
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
    const std::string bytes(kPageSize, 'x');
    uffdio_copy copy{};
    copy.dst = Last().start;
    copy.src = reinterpret_cast<uint64_t>(bytes.data());
    copy.len = kPageSize;
    EXPECT_EQ(ioctl(fd_, UFFDIO_COPY, &copy), 0) << std::strerror(errno);
  }

 private:
  uffdio_range Last() const {
    return {.start = reinterpret_cast<uint64_t>(at_) + size_ - kPageSize, .len = kPageSize};
  }
  const size_t size_;
  char* at_ = nullptr;
  int fd_ = -1;
  bool works_ = false;
};

// Somebody asks for the size while a write is under way: it may be the new one already, but then it
// does not become the old one again.
TEST_F(MemoryRules, ASizeThatWasSeenNeverGoesBack) {
  ON_A_KERNEL();
  constexpr size_t kAdded = 3 << 20;  // several requests
  const LateMemory memory(kAdded);
  if (!memory.works()) GTEST_SKIP() << "no userfaultfd for the kernel's own faults here";
  MakeFile("log", "begin");
  const int writer = Open("log", O_WRONLY | O_APPEND);
  EXPECT_EQ(Of("log").st_size, 5);
  std::thread adds([&] {
    EXPECT_EQ(write(writer, memory.at(), kAdded), static_cast<ssize_t>(kAdded))
        << std::strerror(errno);
  });
  EXPECT_TRUE(memory.Wait());
  struct statx now {};
  EXPECT_TRUE(Eventually([&] {
    return statx(AT_FDCWD, Path("log").c_str(), AT_STATX_FORCE_SYNC, STATX_SIZE, &now) == 0 &&
           now.stx_size > 5;
  }));
  EXPECT_GE(Of("log").st_size, static_cast<off_t>(now.stx_size));
  memory.Let();
  adds.join();
  EXPECT_EQ(Of("log").st_size, static_cast<off_t>(5 + kAdded));
  fs().Close(writer);
}

// The same of every call that makes a file longer.  But Linux from 6.12 on takes what it has of a
// file for valid a moment before it has taken it from the answer to an ftruncate
// (docs/semantics.md): there the second look asks the daemon, too.
TEST_F(MemoryRules, NoCallMakesASizeGoBack) {
  ON_A_KERNEL();
  constexpr off_t kTimes = 3000;
  MakeFile("from", std::string(kPageSize, 'f'));
  const int from = Open("from", O_RDONLY);
  const std::pair<const char*, std::function<bool(int fd, off_t size)>> calls[] = {
      {"write", [](int fd, off_t size) { return pwrite(fd, "x", 1, size) == 1; }},
      {"ftruncate", [](int fd, off_t size) { return ftruncate(fd, size + 1) == 0; }},
      {"fallocate", [](int fd, off_t size) { return fallocate(fd, 0, size, 1) == 0; }},
      {"copy_file_range", [from](int fd, off_t size) {
         off_t at = 0;
         return copy_file_range(from, &at, fd, &size, 1, 0) == 1;
       }}};
  for (const auto& [name, grow] : calls) {
    const int fd = Open(name, O_CREAT | O_RDWR);
    std::atomic<bool> over = false;
    std::thread grows([&, &grow_it = grow] {
      for (off_t size = 0; size < kTimes; ++size) EXPECT_TRUE(grow_it(fd, size));
      over = true;
    });
    const bool kernel_may_be_late =
        name == std::string_view("ftruncate") && !fs().is_tmpfs() && !fs().writes_back();
    const auto size_now = [&](int flags) {
      struct statx stx {};
      EXPECT_EQ(statx(fd, "", AT_EMPTY_PATH | flags, STATX_SIZE, &stx), 0);
      return stx.stx_size;
    };
    int went_back = 0;
    while (!over) {
      const uint64_t seen = size_now(AT_STATX_FORCE_SYNC);
      went_back += size_now(kernel_may_be_late ? AT_STATX_FORCE_SYNC : 0) < seen;
    }
    grows.join();
    EXPECT_EQ(went_back, 0) << name;
    fs().Close(fd);
  }
  fs().Close(from);
}

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
