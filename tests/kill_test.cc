// G1 and G2 under fire: writers note what was acknowledged, the daemon is killed at
// a random moment, and a new mount must show all that was noted, and nothing half.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include <random>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

constexpr int kRounds = 100;
constexpr int kWriters = 3;
constexpr int kFiles = 40;  // of each writer

// One file as its writer knows it.
struct State {
  uint32_t exists = 0;
  uint32_t version = 0;  // which pattern its bytes follow
  uint64_t size = 0;
  uint32_t xattr = 0;
  friend bool operator==(const State&, const State&) = default;
};

// In memory that the writers share with the test.
struct Noted {
  State acknowledged;
  State next;  // what it will be if the call in flight is done
  uint32_t in_flight = 0;
};

std::string Text(const State& s) {
  return "exists " + std::to_string(s.exists) + " version " + std::to_string(s.version) + " size " +
         std::to_string(s.size) + " xattr " + std::to_string(s.xattr) + " ";
}

char ByteAt(uint32_t version, uint64_t offset) {
  return static_cast<char>('a' + (version * 7 + offset / 13) % 26);
}

std::string Pattern(uint32_t version, uint64_t from, uint64_t to) {
  std::string bytes;
  for (uint64_t i = from; i < to; ++i) bytes.push_back(ByteAt(version, i));
  return bytes;
}

class Writer {
 public:
  Writer(const std::string& dir, Noted* notes, uint64_t seed)
      : dir_(dir), notes_(notes), random_(seed) {}

  // Until a call fails, which is when the daemon is gone.
  void Run() {
    mkdir(dir_.c_str(), 0755);
    while (Step()) continue;
  }

 private:
  bool Step() {
    const int i = static_cast<int>(random_() % kFiles);
    const std::string path = dir_ + "/" + std::to_string(i);
    Noted& note = notes_[i];
    State next = note.acknowledged;
    const uint64_t choice = random_() % 10;
    if (!next.exists || choice < 3) {
      // A new file takes its place, all at once.
      next = {1, next.version + 1, random_() % 20000, 0};
      const std::string temporary = path + ".new";
      if (!WriteFile(temporary, Pattern(next.version, 0, next.size))) return false;
      return Do(&note, next, [&] { return rename(temporary.c_str(), path.c_str()) == 0; });
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
    std::atomic_ref<uint32_t>(note->in_flight).store(1, std::memory_order_release);
    if (!call()) return false;
    note->acknowledged = next;
    std::atomic_ref<uint32_t>(note->in_flight).store(0, std::memory_order_release);
    return true;
  }

  static bool WriteFile(const std::string& path, const std::string& bytes) {
    const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0) return false;
    const bool written =
        write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    return close(fd) == 0 && written;
  }

  const std::string dir_;
  Noted* const notes_;
  std::mt19937_64 random_;
};

class KillTest : public MountTest {
 protected:
  // What the mount shows of a file; its bytes must follow the pattern of `version`.
  static State Look(const std::string& path, uint32_t version, std::string* fault) {
    State state;
    state.version = version;
    struct stat st;
    if (stat(path.c_str(), &st) != 0) return state;
    state.exists = 1;
    state.size = static_cast<uint64_t>(st.st_size);
    const std::string bytes = Slurp(path);
    if (bytes.size() != state.size) *fault = "short read";
    for (uint64_t i = 0; i < bytes.size() && fault->empty(); ++i) {
      if (bytes[i] != ByteAt(version, i)) *fault = "wrong byte at " + std::to_string(i);
    }
    getxattr(path.c_str(), "user.n", &state.xattr, sizeof(state.xattr));
    return state;
  }
};

TEST_F(KillTest, NothingAcknowledgedIsMissingAfterAHundredKills) {
  auto* const notes =
      static_cast<Noted*>(mmap(nullptr, sizeof(Noted) * kWriters * kFiles, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(notes, MAP_FAILED);
  std::mt19937_64 random(20261123);
  Mount();
  uint64_t in_flight = 0, done = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const pid_t daemon = DaemonPid();
    std::vector<pid_t> writers;
    for (int w = 0; w < kWriters; ++w) {
      const uint64_t seed = random();
      const pid_t pid = fork();
      if (pid == 0) {
        Writer(mount_ + "/" + std::to_string(w), notes + w * kFiles, seed).Run();
        _exit(0);
      }
      writers.push_back(pid);
    }
    usleep(static_cast<useconds_t>(1000 + random() % 30000));
    kill(daemon, SIGKILL);
    for (const pid_t pid : writers) waitpid(pid, nullptr, 0);
    umount2(mount_.c_str(), MNT_DETACH);
    Mount();
    if (HasFatalFailure()) return;
    for (int i = 0; i < kWriters * kFiles; ++i) {
      Noted& note = notes[i];
      const std::string path =
          mount_ + "/" + std::to_string(i / kFiles) + "/" + std::to_string(i % kFiles);
      std::string fault, next_fault;
      const State seen = Look(path, note.acknowledged.version, &fault);
      const bool as_before = seen == note.acknowledged && fault.empty();
      State now = note.acknowledged;
      if (note.in_flight) {
        ++in_flight;
        const State seen_next = Look(path, note.next.version, &next_fault);
        const bool as_after = seen_next == note.next && next_fault.empty();
        // The kernel sends a write through its page cache in pieces: an append may be
        // done in part, as it may when it is interrupted.
        State partly = note.acknowledged;
        partly.size = seen.size;
        const bool appended = note.next.version == seen.version && seen == partly &&
                              fault.empty() && seen.size > note.acknowledged.size &&
                              seen.size < note.next.size;
        if (appended) note.acknowledged = now = seen;
        ASSERT_TRUE(as_before || as_after || appended)
            << path << ": neither before nor after: " << Text(seen) << fault << next_fault
            << "; acknowledged " << Text(note.acknowledged) << ", in flight " << Text(note.next);
        if (as_after) {
          now = note.next;
          ++done;
        }
      } else {
        ASSERT_TRUE(as_before) << path << ": " << Text(seen) << fault << "; acknowledged "
                               << Text(note.acknowledged);
      }
      note.acknowledged = now;
      note.in_flight = 0;
    }
  }
  std::printf("  %llu calls were in flight at a kill, %llu of them done\n",
              static_cast<unsigned long long>(in_flight), static_cast<unsigned long long>(done));
  EXPECT_GT(in_flight, 0u);
  munmap(notes, sizeof(Noted) * kWriters * kFiles);
}

}  // namespace
}  // namespace pkramfs
