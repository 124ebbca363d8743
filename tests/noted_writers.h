// Writers that note what was acknowledged, in memory that outlives the filesystem; and the
// comparison of the files with these notes afterwards.
#ifndef TESTS_NOTED_WRITERS_H_
#define TESTS_NOTED_WRITERS_H_

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>

namespace pkramfs {

inline constexpr int kWriters = 3;
inline constexpr int kFilesOfAWriter = 40;

// One file as its writer knows it.
struct State {
  uint32_t exists = 0;   // 1: in its writer's directory, 2: in the one below it
  uint32_t version = 0;  // which pattern its bytes follow
  uint64_t size = 0;
  uint32_t xattr = 0;
  friend bool operator==(const State&, const State&) = default;
};

// The notes, in memory that the writers share with the test.
struct Noted {
  State acknowledged;
  State next;  // what it will be if the call in flight is done
  uint32_t in_flight = 0;
  uint32_t calls = 0;  // that were acknowledged
};

// Each call of a writer, in order, for tests that need the history.
struct CallLog {
  static constexpr uint64_t kMost = 200'000;
  struct Call {
    uint32_t file;
    State after;
  };
  uint64_t begun, acknowledged;
  Call calls[kMost];
};

inline std::string Text(const State& s) {
  return "exists " + std::to_string(s.exists) + " version " + std::to_string(s.version) + " size " +
         std::to_string(s.size) + " xattr " + std::to_string(s.xattr) + " ";
}

inline char ByteAt(uint32_t version, uint64_t offset) {
  return static_cast<char>('a' + (version * 7 + offset / 13) % 26);
}

inline std::string Pattern(uint32_t version, uint64_t from, uint64_t to) {
  std::string bytes;
  for (uint64_t i = from; i < to; ++i) bytes.push_back(ByteAt(version, i));
  return bytes;
}

// Where a file of a writer is.
inline std::string PathOf(const std::string& dir, int file, uint32_t exists) {
  return dir + (exists == 2 ? "/below/" : "/") + std::to_string(file);
}

// Whether the mount at a path is dead.
inline bool IsDead(const char* path) {
  struct statvfs st;
  return statvfs(path, &st) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

class Writer {
 public:
  Writer(const std::string& dir, Noted* notes, uint64_t seed, CallLog* log = nullptr)
      : dir_(dir), notes_(notes), random_(seed), log_(log) {}

  // Writes until a call fails, or until `go_on` returns false; then returns true.
  bool Run(const std::function<bool()>& go_on = [] { return true; }) {
    // SIGBUS: a store to a page that nobody can bring any more.
    root_ = dir_.c_str();
    signal(SIGBUS, [](int) { _exit(IsDead(root_) ? 0 : 1); });
    mkdir(dir_.c_str(), 0755);
    mkdir((dir_ + "/below").c_str(), 0755);
    while (go_on()) {
      if (log_ != nullptr && log_->begun == CallLog::kMost) {
        usleep(1000);
        continue;
      }
      if (!Step()) return false;
    }
    return true;
  }

 private:
  bool Step() {
    const int i = static_cast<int>(random_() % kFilesOfAWriter);
    Noted& note = notes_[i];
    State next = note.acknowledged;
    const std::string path = PathOf(dir_, i, next.exists);
    const uint64_t choice = random_() % 14;
    if (!next.exists || choice < 3) {
      // A new file takes its place, all at once.
      next = {next.exists == 2 ? 2u : 1u, next.version + 1, random_() % 20000, 0};
      const std::string temporary = dir_ + "/new";
      if (!WriteFile(temporary, Pattern(next.version, 0, next.size))) return false;
      return Do(&note, next, [&] { return rename(temporary.c_str(), path.c_str()) == 0; });
    }
    if (choice >= 12) {
      next.exists = 3 - next.exists;
      const std::string to = PathOf(dir_, i, next.exists);
      return Do(&note, next, [&] { return rename(path.c_str(), to.c_str()) == 0; });
    }
    if (choice >= 10) {
      ++next.version;
      return Overwrite(path, &note, next, choice == 10);
    }
    if (choice < 6) {
      const uint64_t from = next.size;
      next.size += 1 + random_() % 9000;
      const std::string bytes = Pattern(next.version, from, next.size);
      const int fd = open(path.c_str(), O_WRONLY);
      if (fd < 0) return false;
      const bool done = Do(&note, next, [&] {
        return pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(from)) ==
               static_cast<ssize_t>(bytes.size());
      });
      close(fd);
      return done;
    }
    if (choice < 7) {
      next.size = random_() % (next.size + 1);
      return Do(&note, next,
                [&] { return truncate(path.c_str(), static_cast<off_t>(next.size)) == 0; });
    }
    if (choice < 9) {
      ++next.xattr;
      return Do(&note, next, [&] {
        return setxattr(path.c_str(), "user.n", &next.xattr, sizeof(next.xattr), 0) == 0;
      });
    }
    const uint32_t version = next.version;
    next = {};
    next.version = version;
    return Do(&note, next, [&] { return unlink(path.c_str()) == 0; });
  }

  template <typename Fn>
  bool Do(Noted* note, const State& next, Fn call) {
    note->next = next;
    if (log_ != nullptr) {
      log_->calls[log_->begun] = {static_cast<uint32_t>(note - notes_), next};
      std::atomic_ref<uint64_t>(log_->begun).store(log_->begun + 1, std::memory_order_release);
    }
    std::atomic_ref<uint32_t>(note->in_flight).store(1, std::memory_order_release);
    if (!call()) return false;
    note->acknowledged = next;
    ++note->calls;
    if (log_ != nullptr) {
      std::atomic_ref<uint64_t>(log_->acknowledged).store(log_->begun, std::memory_order_release);
    }
    std::atomic_ref<uint32_t>(note->in_flight).store(0, std::memory_order_release);
    return true;
  }

  // All bytes, by a write or through a mapping.
  bool Overwrite(const std::string& path, Noted* note, const State& next, bool mapped) {
    const std::string bytes = Pattern(next.version, 0, next.size);
    const int fd = open(path.c_str(), O_RDWR);
    if (fd < 0) return false;
    bool done = true;
    if (!mapped || bytes.empty()) {
      done = Do(note, next, [&] {
        return pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
      });
    } else {
      void* const map = mmap(nullptr, bytes.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      done = map != MAP_FAILED && Do(note, next, [&] {
               std::memcpy(map, bytes.data(), bytes.size());
               return msync(map, bytes.size(), MS_SYNC) == 0;
             });
      if (map != MAP_FAILED) munmap(map, bytes.size());
    }
    close(fd);
    return done;
  }

  static bool WriteFile(const std::string& path, const std::string& bytes) {
    const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0) return false;
    const bool written =
        write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    return close(fd) == 0 && written;
  }

  inline static const char* root_ = nullptr;
  const std::string dir_;
  Noted* const notes_;
  std::mt19937_64 random_;
  CallLog* const log_;
};

// Reads a file.  Its bytes must follow the pattern of `version`, or, where they may be torn, of
// `version` or `other`.
inline State Look(const std::string& dir, int file, uint32_t version, uint32_t other,
                  std::string* fault) {
  State state;
  state.version = version;
  struct stat st;
  for (const uint32_t place : {1u, 2u}) {
    if (stat(PathOf(dir, file, place).c_str(), &st) != 0) continue;
    if (state.exists != 0) *fault = "in two places";
    state.exists = place;
  }
  if (state.exists == 0) return state;
  const std::string path = PathOf(dir, file, state.exists);
  if (stat(path.c_str(), &st) != 0) *fault = "gone";
  state.size = static_cast<uint64_t>(st.st_size);
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  const std::string bytes = out.str();
  if (bytes.size() != state.size && state.size != 0) *fault = "short read";
  for (uint64_t i = 0; i < bytes.size() && fault->empty(); ++i) {
    if (bytes[i] != ByteAt(version, i) && bytes[i] != ByteAt(other, i)) {
      *fault = "wrong byte at " + std::to_string(i);
    }
  }
  getxattr(path.c_str(), "user.n", &state.xattr, sizeof(state.xattr));
  return state;
}

struct NotedCounts {
  uint64_t in_flight = 0, done = 0, torn = 0;
  uint64_t partly = 0;  // appends, of which whole pages were written
};

// Compares the files of all writers below `root` with their notes, and then sets the notes to what
// is there. Returns what is wrong, or nothing.
inline std::string CheckNotes(const std::string& root, Noted* notes, NotedCounts* counts) {
  for (int i = 0; i < kWriters * kFilesOfAWriter; ++i) {
    Noted& note = notes[i];
    const std::string dir = root + "/" + std::to_string(i / kFilesOfAWriter);
    const int file = i % kFilesOfAWriter;
    const uint32_t version = note.acknowledged.version;
    std::string fault, next_fault, torn_fault;
    const State seen = Look(dir, file, version, version, &fault);
    bool right = seen == note.acknowledged && fault.empty();
    if (note.in_flight) {
      ++counts->in_flight;
      const uint32_t next_version = note.next.version;
      const State seen_next = Look(dir, file, next_version, next_version, &next_fault);
      const bool as_after = seen_next == note.next && next_fault.empty();
      // The kernel sends a write through its page cache in pieces of whole pages: an append
      // may be done in part, as it may when it is interrupted.
      State partly = note.acknowledged;
      partly.size = seen.size;
      const bool appended = note.next.version == seen.version && seen == partly && fault.empty() &&
                            seen.size > note.acknowledged.size && seen.size < note.next.size &&
                            seen.size % 4096 == 0;
      // What is overwritten may be torn; then it is written anew.
      State over = note.acknowledged;
      over.version = next_version;
      const bool torn = !right && !as_after && over == note.next && seen.exists != 0 &&
                        Look(dir, file, next_version, version, &torn_fault) == note.next &&
                        torn_fault.empty();
      right = right || as_after || appended || torn;
      if (appended) note.acknowledged = seen;
      if (as_after || torn) note.acknowledged = note.next;
      counts->done += as_after;
      counts->partly += appended;
      counts->torn += torn;
      if (torn) {
        std::ofstream(PathOf(dir, file, seen.exists), std::ios::binary | std::ios::in)
            << Pattern(next_version, 0, seen.size);
      }
    }
    if (!right) {
      return PathOf(dir, file, 1) + ": neither before nor after: " + Text(seen) + fault +
             next_fault + torn_fault + "; acknowledged " + Text(note.acknowledged) +
             (note.in_flight ? ", in flight " + Text(note.next) : "");
    }
    note.in_flight = 0;
  }
  return "";
}

}  // namespace pkramfs

#endif  // TESTS_NOTED_WRITERS_H_
