#include "tests/coherence/ways.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "pkram/descriptor.h"
#include "tests/coherence/async_io.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr size_t kSize = kBlock * kBlocks;

off_t At(size_t block) { return static_cast<off_t>(block * kBlock); }

int Opened(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) throw std::runtime_error("open " + path + ": " + std::strerror(errno));
  return fd;
}

void MustBeWhole(int64_t n, const char* what) {
  if (n == static_cast<int64_t>(kBlock)) return;
  const char* const why = n < -1 ? std::strerror(static_cast<int>(-n)) : std::strerror(errno);
  throw std::runtime_error(std::string(what) + ": " + std::to_string(n) + " " + why);
}

// --- Writing --------------------------------------------------------------------------

template <int kFlags, int kCallFlags = 0>
class Calls : public Writer {
 public:
  explicit Calls(const std::string& path) : fd_(Opened(path, kFlags)) {}
  void Write(size_t block, const char* bytes) override {
    const iovec v{const_cast<char*>(bytes), kBlock};
    MustBeWhole(pwritev2(fd_.get(), &v, 1, At(block), kCallFlags), "pwritev2");
  }

 private:
  const Descriptor fd_;
};

// In pieces that are no blocks, so that the kernel reads what is around them.
class InPieces : public Writer {
 public:
  explicit InPieces(const std::string& path) : fd_(Opened(path, O_RDWR)) {}
  void Write(size_t block, const char* bytes) override {
    for (size_t at = 0; at < kBlock; at += 1024) {
      if (pwrite(fd_.get(), bytes + at, 1024, At(block) + static_cast<off_t>(at)) != 1024) {
        throw std::runtime_error("pwrite");
      }
    }
  }

 private:
  const Descriptor fd_;
};

template <typename Engine, int kFlags>
class Submitted : public Writer {
 public:
  explicit Submitted(const std::string& path) : fd_(Opened(path, kFlags)) {}
  bool ok() const { return engine_.ok(); }
  void Write(size_t block, const char* bytes) override {
    MustBeWhole(engine_.Run(fd_.get(), true, const_cast<char*>(bytes), kBlock,
                            static_cast<uint64_t>(At(block))),
                "a submitted write");
  }

 private:
  Engine engine_;
  const Descriptor fd_;
};

class Mapped {
 public:
  explicit Mapped(const std::string& path, int protection = PROT_READ | PROT_WRITE) {
    const Descriptor fd(Opened(path, O_RDWR));
    void* const at = mmap(nullptr, kSize, protection, MAP_SHARED, fd.get(), 0);
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    memory_ = static_cast<char*>(at);
  }
  ~Mapped() { munmap(memory_, kSize); }
  char* operator[](size_t block) const { return memory_ + At(block); }

 private:
  char* memory_;
};

void Store(char* to, const char* from) {
  for (size_t i = 0; i < kBlock; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, from + i, sizeof(word));
    __atomic_store_n(reinterpret_cast<uint64_t*>(to + i), word, __ATOMIC_RELEASE);
  }
}

template <bool kSync>
class Stores : public Writer {
 public:
  explicit Stores(const std::string& path) : memory_(path) {}
  void Write(size_t block, const char* bytes) override {
    Store(memory_[block], bytes);
    if (kSync && msync(memory_[block], kBlock, MS_SYNC) != 0) throw std::runtime_error("msync");
  }

 private:
  const Mapped memory_;
};

// A page of the cache that a direct write has passed by is stored to, and sent.
class DirectAndAStore : public Writer {
 public:
  explicit DirectAndAStore(const std::string& path) : direct_(path), memory_(path) {}
  void Write(size_t block, const char* bytes) override {
    direct_.Write(block, bytes);
    uint64_t word;
    std::memcpy(&word, bytes, sizeof(word));
    __atomic_store_n(reinterpret_cast<uint64_t*>(memory_[block]), word, __ATOMIC_RELEASE);
    if (msync(memory_[block], kBlock, MS_SYNC) != 0) throw std::runtime_error("msync");
  }

 private:
  Submitted<LinuxAio, O_RDWR | O_DIRECT> direct_;
  const Mapped memory_;
};

class Spliced : public Writer {
 public:
  explicit Spliced(const std::string& path) : fd_(Opened(path, O_WRONLY)) {
    if (pipe2(pipe_, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  }
  ~Spliced() override {
    close(pipe_[0]);
    close(pipe_[1]);
  }
  void Write(size_t block, const char* bytes) override {
    MustBeWhole(write(pipe_[1], bytes, kBlock), "write to a pipe");
    off_t at = At(block);
    for (size_t left = kBlock; left > 0;) {
      const ssize_t n = splice(pipe_[0], nullptr, fd_.get(), &at, left, 0);
      if (n <= 0) throw std::runtime_error("splice");
      left -= static_cast<size_t>(n);
    }
  }

 private:
  const Descriptor fd_;
  int pipe_[2];
};

// From another file of the same filesystem.
class Copied : public Writer {
 public:
  explicit Copied(const std::string& path)
      : source_(Opened(path + ".source", O_RDWR | O_CREAT)), fd_(Opened(path, O_WRONLY)) {}
  void Write(size_t block, const char* bytes) override {
    MustBeWhole(pwrite(source_.get(), bytes, kBlock, At(block)), "pwrite");
    off_t from = At(block), to = At(block);
    MustBeWhole(copy_file_range(source_.get(), &from, fd_.get(), &to, kBlock, 0),
                "copy_file_range");
  }

 private:
  const Descriptor source_, fd_;
};

// --- Reading --------------------------------------------------------------------------

template <int kFlags, int kCallFlags = 0>
class ReadCalls : public Reader {
 public:
  explicit ReadCalls(const std::string& path) : fd_(Opened(path, kFlags)) {}
  bool Read(size_t block, char* bytes) override {
    const iovec v{bytes, kBlock};
    const ssize_t n = preadv2(fd_.get(), &v, 1, At(block), kCallFlags);
    // Not without waiting; or no filesystem of this kind does it.
    if (n < 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) return false;
    if (n >= 0 && n < static_cast<ssize_t>(kBlock) && kCallFlags != 0) return false;
    MustBeWhole(n, "preadv2");
    return true;
  }

 private:
  const Descriptor fd_;
};

template <typename Engine, int kFlags>
class SubmittedRead : public Reader {
 public:
  explicit SubmittedRead(const std::string& path) : fd_(Opened(path, kFlags)) {}
  bool ok() const { return engine_.ok(); }
  bool Read(size_t block, char* bytes) override {
    MustBeWhole(engine_.Run(fd_.get(), false, bytes, kBlock, static_cast<uint64_t>(At(block))),
                "a submitted read");
    return true;
  }

 private:
  Engine engine_;
  const Descriptor fd_;
};

void Load(char* to, const char* from) {
  for (size_t i = 0; i < kBlock; i += sizeof(uint64_t)) {
    const uint64_t word =
        __atomic_load_n(reinterpret_cast<const uint64_t*>(from + i), __ATOMIC_ACQUIRE);
    std::memcpy(to + i, &word, sizeof(word));
  }
}

class Loads : public Reader {
 public:
  explicit Loads(const std::string& path) : memory_(path, PROT_READ) {}
  bool Read(size_t block, char* bytes) override {
    Load(bytes, memory_[block]);
    return true;
  }

 private:
  const Mapped memory_;
};

class LoadsOfANewMapping : public Reader {
 public:
  explicit LoadsOfANewMapping(const std::string& path) : fd_(Opened(path, O_RDONLY)) {}
  bool Read(size_t block, char* bytes) override {
    void* const at = mmap(nullptr, kBlock, PROT_READ, MAP_PRIVATE, fd_.get(), At(block));
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    Load(bytes, static_cast<const char*>(at));
    munmap(at, kBlock);
    return true;
  }

 private:
  const Descriptor fd_;
};

template <bool kSendfile>
class ThroughAPipe : public Reader {
 public:
  explicit ThroughAPipe(const std::string& path) : fd_(Opened(path, O_RDONLY)) {
    if (pipe2(pipe_, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  }
  ~ThroughAPipe() override {
    close(pipe_[0]);
    close(pipe_[1]);
  }
  bool Read(size_t block, char* bytes) override {
    off_t at = At(block);
    const ssize_t n = kSendfile ? sendfile(pipe_[1], fd_.get(), &at, kBlock)
                                : splice(fd_.get(), &at, pipe_[1], nullptr, kBlock, 0);
    if (n <= 0) throw std::runtime_error("splice");
    // The pipe may hold the cache's page itself, which may change.
    for (ssize_t have = 0; have < n;) {
      const ssize_t got = read(pipe_[0], bytes + have, static_cast<size_t>(n - have));
      if (got <= 0) throw std::runtime_error("read from a pipe");
      have += got;
    }
    return n == static_cast<ssize_t>(kBlock);
  }

 private:
  const Descriptor fd_;
  int pipe_[2];
};

class OpenedAnew : public Reader {
 public:
  explicit OpenedAnew(const std::string& path) : path_(path) {}
  bool Read(size_t block, char* bytes) override {
    const Descriptor fd(Opened(path_, O_RDONLY));
    MustBeWhole(pread(fd.get(), bytes, kBlock, At(block)), "pread");
    return true;
  }

 private:
  const std::string path_;
};

template <typename T, typename Made>
std::unique_ptr<T> Make(const std::string& path) {
  auto made = std::make_unique<Made>(path);
  if constexpr (requires { made->ok(); }) {
    if (!made->ok()) return nullptr;
  }
  return made;
}

template <typename Made>
Way<Writer> ToWrite(const char* name) {
  return {name, Make<Writer, Made>};
}
template <typename Made>
Way<Reader> ToRead(const char* name) {
  return {name, Make<Reader, Made>};
}

constexpr int kDirect = O_RDWR | O_DIRECT;

}  // namespace

std::vector<Way<Writer>> WaysToWrite() {
  return {ToWrite<Calls<O_RDWR>>("pwrite"),
          ToWrite<Calls<O_WRONLY>>("pwrite, O_WRONLY"),
          ToWrite<Calls<O_RDWR | O_SYNC>>("pwrite, O_SYNC"),
          ToWrite<Calls<kDirect>>("pwrite, O_DIRECT"),
          ToWrite<Calls<kDirect | O_SYNC>>("pwrite, O_DIRECT|O_SYNC"),
          ToWrite<Calls<O_RDWR, RWF_DSYNC>>("pwritev2, RWF_DSYNC"),
          ToWrite<Calls<kDirect, RWF_SYNC>>("pwritev2, O_DIRECT, RWF_SYNC"),
          ToWrite<InPieces>("pwrite in pieces"),
          ToWrite<Submitted<LinuxAio, O_RDWR>>("libaio"),
          ToWrite<Submitted<LinuxAio, kDirect>>("libaio, O_DIRECT"),
          ToWrite<Submitted<LinuxAio, kDirect | O_SYNC>>("libaio, O_DIRECT|O_SYNC"),
          ToWrite<Submitted<IoUring, O_RDWR>>("io_uring"),
          ToWrite<Submitted<IoUring, kDirect>>("io_uring, O_DIRECT"),
          ToWrite<Stores<false>>("stores to a mapping"),
          ToWrite<Stores<true>>("stores to a mapping, msync"),
          ToWrite<DirectAndAStore>("libaio, O_DIRECT, then a store and msync"),
          ToWrite<Spliced>("splice"),
          ToWrite<Copied>("copy_file_range")};
}

std::vector<Way<Reader>> WaysToRead() {
  return {ToRead<ReadCalls<O_RDONLY>>("pread"),
          ToRead<ReadCalls<O_RDONLY | O_DIRECT>>("pread, O_DIRECT"),
          ToRead<ReadCalls<O_RDONLY, RWF_NOWAIT>>("preadv2, RWF_NOWAIT"),
          ToRead<OpenedAnew>("open, pread"),
          ToRead<SubmittedRead<LinuxAio, O_RDONLY | O_DIRECT>>("libaio, O_DIRECT"),
          ToRead<SubmittedRead<IoUring, O_RDONLY>>("io_uring"),
          ToRead<SubmittedRead<IoUring, O_RDONLY | O_DIRECT>>("io_uring, O_DIRECT"),
          ToRead<Loads>("loads from a mapping"),
          ToRead<LoadsOfANewMapping>("loads from a new mapping"),
          ToRead<ThroughAPipe<false>>("splice"),
          ToRead<ThroughAPipe<true>>("sendfile")};
}

}  // namespace pkramfs
