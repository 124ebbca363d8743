// G1 and G2 under fire: writers note what was acknowledged, the daemon is killed at
// a random moment, and a new mount must show all that was noted, and nothing half.
#include <fcntl.h>
#include <sys/mman.h>

#include <random>

#include "tests/mount_fixture.h"
#include "tests/noted_writers.h"

namespace pkramfs {
namespace {

constexpr int kRounds = 100;
class KillTest : public MountTest {};

TEST_F(KillTest, NothingAcknowledgedIsMissingAfterAHundredKills) {
  auto* const notes =
      static_cast<Noted*>(mmap(nullptr, sizeof(Noted) * kWriters * kFilesOfAWriter,
                               PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(notes, MAP_FAILED);
  std::mt19937_64 random(20261123);
  Mount();
  NotedCounts counts;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const pid_t daemon = DaemonPid();
    std::vector<pid_t> writers;
    for (int w = 0; w < kWriters; ++w) {
      const uint64_t seed = random();
      const pid_t pid = fork();
      if (pid == 0) {
        Writer(mount_ + "/" + std::to_string(w), notes + w * kFilesOfAWriter, seed).Run();
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
    ASSERT_EQ(CheckNotes(mount_, notes, &counts), "");
  }
  std::printf("  %llu calls were in flight at a kill, %llu of them done\n",
              static_cast<unsigned long long>(counts.in_flight),
              static_cast<unsigned long long>(counts.done));
  EXPECT_GT(counts.in_flight, 0u);
  munmap(notes, sizeof(Noted) * kWriters * kFilesOfAWriter);
}

}  // namespace
}  // namespace pkramfs
