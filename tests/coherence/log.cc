// A file that grows while others read it to its end, again and again.
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "pkram/descriptor.h"
#include "tests/coherence/coherence.h"
#include "tests/coherence/ways.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr size_t kMost = 4 << 20;

struct Log {
  std::atomic<uint64_t> begun{0}, acknowledged{0};  // the size, in bytes
  std::atomic<int> over{0};
  Fault fault;
  std::atomic<uint64_t> appends{0}, reads{0};
};

// The contents of each file.  No byte is NUL.
const std::string& Text() {
  static const std::string text = [] {
    std::string made(kMost + (2 << 20), 0);
    for (size_t i = 0; i < made.size(); i += sizeof(uint64_t)) {
      const uint64_t word = (i / 8 + 1) * 0x9e3779b97f4a7c15 | 0x0101010101010101;
      std::memcpy(made.data() + i, &word, sizeof(word));
    }
    return made;
  }();
  return text;
}

struct Kind {
  const char* name;
  int flags, other_flags;  // of every second record
  size_t record;
};

// The writer creates the file, as writers of logs do.
constexpr Kind kKinds[] = {
    {"lines, O_WRONLY|O_APPEND", O_WRONLY | O_APPEND, O_WRONLY | O_APPEND, 64},
    {"lines, O_RDWR", O_RDWR | O_APPEND, O_RDWR | O_APPEND, 64},
    {"odd lines", O_WRONLY | O_APPEND, O_WRONLY | O_APPEND, 611},
    {"blocks", O_WRONLY | O_APPEND, O_WRONLY | O_APPEND, kBlock},
    {"blocks, O_DIRECT", O_WRONLY | O_APPEND | O_DIRECT, O_WRONLY | O_APPEND | O_DIRECT, kBlock},
    {"blocks, every second O_DIRECT", O_WRONLY | O_APPEND | O_DIRECT, O_WRONLY | O_APPEND, kBlock},
    {"128 KiB", O_WRONLY | O_APPEND, O_WRONLY | O_APPEND, 128 << 10},
    {"1 MiB, O_DIRECT and not", O_WRONLY | O_APPEND | O_DIRECT, O_WRONLY | O_APPEND, 1 << 20},
};

// Until the file is as long as it may be, or the time is over: where one processor is shared with
// those who read, a file of lines can take many minutes.
void Append(Deadline deadline, const std::string& path, const Kind& kind, Log* log) {
  const Descriptor one(open(path.c_str(), kind.flags | O_CREAT | O_CLOEXEC, 0644));
  const Descriptor other(open(path.c_str(), kind.other_flags | O_CLOEXEC));
  if (one.get() < 0 || other.get() < 0) throw std::runtime_error("open to append");
  // Direct ones want their memory aligned.
  void* const memory = std::aligned_alloc(kBlock, (kind.record + kBlock - 1) / kBlock * kBlock);
  size_t size = 0;
  for (int i = 0; size < kMost && !log->fault.stop() && (i == 0 || !IsOver(deadline)); ++i) {
    std::memcpy(memory, Text().data() + size, kind.record);
    log->begun = size + kind.record;
    const int fd = i % 2 == 0 ? one.get() : other.get();
    if (write(fd, memory, kind.record) != static_cast<ssize_t>(kind.record)) {
      throw std::runtime_error(std::string("append: ") + std::strerror(errno));
    }
    size += kind.record;
    log->acknowledged = size;
    ++log->appends;
  }
  log->over = 1;
  std::free(memory);
}

void MustBeText(const char* bytes, size_t offset, size_t size, const char* how) {
  const char* const text = Text().data() + offset;
  const char* const differs = std::mismatch(bytes, bytes + size, text).first;
  if (differs == bytes + size) return;
  const size_t at = static_cast<size_t>(differs - bytes);
  const auto wrong = static_cast<size_t>(
      std::count_if(differs, bytes + size, [&](const char& c) { return c != text[&c - bytes]; }));
  std::ostringstream message;
  message << how << ": " << wrong << " wrong bytes of " << size << " at " << offset
          << ", the first at " << offset + at << ": " << static_cast<int>(*differs);
  throw std::runtime_error(message.str());
}

// As `tail -f`.
void Follow(const std::string& path, Log* log) {
  const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string buffer(64 << 10, 0);
  for (size_t at = 0; !log->fault.stop();) {
    const bool over = log->over != 0;
    const uint64_t least = log->acknowledged;
    size_t here = at;
    for (;;) {
      const ssize_t n = read(fd.get(), buffer.data(), buffer.size());
      if (n < 0) throw std::runtime_error("read");
      if (n == 0) break;
      MustBeText(buffer.data(), here, static_cast<size_t>(n), "who follows it");
      here += static_cast<size_t>(n);
    }
    ++log->reads;
    if (here < least) {
      throw std::runtime_error("who follows it comes to its end at " + std::to_string(here) +
                               ", though " + std::to_string(least) + " were acknowledged");
    }
    at = here;
    if (over) return;
  }
}

// Checks acknowledged bytes, through a mapping and by reads of a new descriptor.
void Look(const std::string& path, Log* log) {
  std::string buffer(kMost + (2 << 20), 0);
  while (!log->fault.stop() && log->over == 0) {
    const size_t size = log->acknowledged;
    if (size == 0) continue;
    const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const size_t from =
        size / kBlock * kBlock > (64 << 10) ? size / kBlock * kBlock - (64 << 10) : 0;
    const ssize_t n = pread(fd.get(), buffer.data(), size - from, static_cast<off_t>(from));
    if (n != static_cast<ssize_t>(size - from)) throw std::runtime_error("a short read");
    MustBeText(buffer.data(), from, size - from, "a read");
    void* const at =
        mmap(nullptr, size - from, PROT_READ, MAP_SHARED, fd.get(), static_cast<off_t>(from));
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    MustBeText(static_cast<const char*>(at), from, size - from, "a mapping");
    munmap(at, size - from);
    ++log->reads;
  }
}

// Its size never goes back.
void Measure(const std::string& path, Log* log) {
  off_t before = 0;
  while (!log->fault.stop() && log->over == 0) {
    const auto least = static_cast<off_t>(log->acknowledged.load());
    struct stat st;
    if (stat(path.c_str(), &st) != 0) continue;
    const auto most = static_cast<off_t>(log->begun.load());
    ++log->reads;
    if (st.st_size < before || st.st_size < least || st.st_size > most) {
      throw std::runtime_error("its size is " + std::to_string(st.st_size) + ", was " +
                               std::to_string(before) + ", and " + std::to_string(least) + " to " +
                               std::to_string(most) + " were written");
    }
    before = st.st_size;
  }
}

// A SIGBUS of this process's mapping.
sigjmp_buf beyond;

// What its size says is there can be read and mapped, if `exact`; otherwise less of it may be there
// (the kernel has not moved its own size yet), and nothing else.
void Trust(const std::string& path, Log* log, bool exact) {
  signal(SIGBUS, [](int) { siglongjmp(beyond, 1); });
  std::string buffer(kMost + (2 << 20), 0);
  const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  while (!log->fault.stop() && log->over == 0) {
    struct stat st;
    if (fstat(fd.get(), &st) != 0 || st.st_size == 0) continue;
    const auto size = static_cast<size_t>(st.st_size);
    const size_t from = size / kBlock * kBlock > kBlock ? size / kBlock * kBlock - kBlock : 0;
    const ssize_t n = pread(fd.get(), buffer.data(), size - from, static_cast<off_t>(from));
    if (n < 0 || (exact && n != static_cast<ssize_t>(size - from))) {
      throw std::runtime_error("its size is " + std::to_string(size) + ", and a read from " +
                               std::to_string(from) + " has " + std::to_string(n) + " bytes");
    }
    MustBeText(buffer.data(), from, static_cast<size_t>(n), "who trusts its size");
    char* const at = static_cast<char*>(
        mmap(nullptr, size - from, PROT_READ, MAP_SHARED, fd.get(), static_cast<off_t>(from)));
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    if (sigsetjmp(beyond, 1) == 0) {
      std::memcpy(buffer.data(), at, size - from);
      if (exact) MustBeText(buffer.data(), from, size - from, "who maps what its size says");
    } else if (exact) {
      throw std::runtime_error("SIGBUS below its size");
    }
    munmap(at, size - from);
    ++log->reads;
  }
}

}  // namespace

bool CheckLogs(const std::string& directory, double seconds, bool exact) {
  Text();
  bool is_right = true;
  const std::string path = directory + "/log";
  for (const Kind& kind : kKinds) {
    const Deadline deadline = In(seconds / static_cast<double>(std::size(kKinds)));
    uint64_t appends = 0, reads = 0;
    int rounds = 0;
    std::string fault;
    do {
      ++rounds;
      unlink(path.c_str());
      const Shared<Log> log;
      const auto when_there = [&](auto look) {
        return [&, look] {
          while (access(path.c_str(), F_OK) != 0 && log->over == 0 && !log->fault.stop()) continue;
          look(path, &*log);
        };
      };
      RunAll({[&] { Append(deadline, path, kind, &*log); }, when_there(Follow), when_there(Follow),
              when_there(Look), when_there(Measure),
              when_there([&](const std::string& of, Log* it) { Trust(of, it, exact); })},
             &log->fault);
      appends += log->appends;
      reads += log->reads;
      fault = log->fault.text();
    } while (fault.empty() && !IsOver(deadline));
    std::printf("  a log, %-33s %8llu appends %8llu reads, %d files\n", kind.name,
                static_cast<unsigned long long>(appends), static_cast<unsigned long long>(reads),
                rounds);
    if (fault.empty()) continue;
    std::printf("%s: %s\n", kind.name, fault.c_str());
    is_right = false;
  }
  return is_right;
}

}  // namespace pkramfs
