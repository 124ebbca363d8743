// Imports, exports and mappings that something happens to at each of their steps.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>

#include "mount/library/pkramfs.h"
#include "tests/bulk_fixture.h"
#include "tests/traced.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;

// With sanitizers a mount takes ten times as long.
constexpr int kOneIn = PKRAMFS_IS_SANITIZED ? 5 : 1;

class BulkStepsTest : public BulkTest {
 protected:
  // A small tree that takes pages of each kind.
  std::string Small(const std::string& name) {
    const std::string tree = dir_ + "/" + name;
    EXPECT_EQ(Shell("mkdir -p " + tree + "/sub").status, 0);
    Spill(tree + "/inline", name);
    Spill(tree + "/large", std::string(20000, name[0]));
    Spill(tree + "/sub/file", std::string(5000, name[1]));
    return tree;
  }
  uint64_t Pages(const char* kind) { return Statistics()["pages"][kind]; }
  bool Is(const std::string& path, const std::string& source) {
    return Shell("diff -r " + path + " " + source).status == 0;
  }

  // Begins an import, has `meanwhile` happen at each of its steps in turn, and goes on unless it
  // was killed.  Then the old tree is there, or the new one.
  void AtEachStep(const std::string& how, const std::function<void(Traced*)>& meanwhile) {
    const std::string one = Small("one"), two = Small("two"), said = dir_ + "/said";
    const bool is_new = how.empty(), merges = how == "--merge";
    int done = 0;
    for (int step = 0;; step += kOneIn) {
      if (!is_new) {
        ASSERT_EQ(Import(At("v") + " " + one).status, 0);
      }
      Traced import(Pkramctl() + " import --threads 1 " + how + " " + At("v") + " " + two, said);
      bool stands = true;
      for (int i = 0; i <= step && stands; ++i) stands = import.Next();
      SCOPED_TRACE(how + " step " + std::to_string(step) + " " + import.step());
      if (stands) meanwhile(&import);
      const int status = import.Finish();
      const std::string error = Slurp(said);
      const bool exists = access(At("v").c_str(), F_OK) == 0;
      if (status == 0) {
        ++done;
        EXPECT_TRUE(Is(At("v"), two));
      } else {
        EXPECT_TRUE(status == 128 + SIGKILL || (status == 2 && may_fail_.has_value())) << error;
        if (status == 2) {
          EXPECT_THAT(error, HasSubstr(may_fail_.value_or("")));
          EXPECT_EQ(std::ranges::count(error, '\n'), 1) << error;
        }
        if (is_new) {
          EXPECT_TRUE(!exists || Is(At("v"), two));
        } else if (!merges) {
          EXPECT_TRUE(Is(At("v"), one) || Is(At("v"), two));
        } else {
          for (const std::string file : {"/inline", "/large", "/sub/file"}) {
            const std::string bytes = Slurp(At("v") + file);
            EXPECT_TRUE(bytes == Slurp(one + file) || bytes == Slurp(two + file)) << file;
          }
        }
      }
      unlink(At("filled").c_str());
      EXPECT_EQ(Shell("ls -A " + mount_).out, exists ? "v\n" : "");
      if (exists) {
        ASSERT_EQ(Shell("rm -r " + At("v")).status, 0);
      }
      // The kernel still knows what a merge that was killed was about to rename.
      if (merges && status == 128 + SIGKILL) {
        Unmount();
        Mount("size=64m");
      }
      EXPECT_TRUE(Eventually([&] { return Pages("lent") == 0 && Pages("data") == 0; }));
      if (!stands) break;
      ASSERT_FALSE(HasFailure());
    }
    EXPECT_GT(done, 0);
    ExpectSound();
  }
  std::optional<std::string> may_fail_;  // what an import may say
  void AtEachStepOfAll(const std::function<void(Traced*)>& meanwhile) {
    for (const char* how : {"", "--replace", "--merge"}) {
      Mount("size=64m");
      ASSERT_NO_FATAL_FAILURE(AtEachStep(how, meanwhile));
    }
  }
};

void KillServer(pid_t server) {
  kill(server, SIGKILL);
  EXPECT_TRUE(Eventually([server] { return IsGone(server); }));
}

TEST_F(BulkStepsTest, AnImportThatIsKilledLeavesNothing) {
  AtEachStepOfAll([](Traced* import) { import->Kill(); });
}

TEST_F(BulkStepsTest, AnImportWhoseServerIsKilledGoesOn) {
  AtEachStepOfAll([this](Traced*) { KillServer(DaemonPid()); });
}

TEST_F(BulkStepsTest, AnImportDuringAnUpgradeGoesOn) {
  AtEachStepOfAll([this](Traced*) {
    const Ran ran = Shell(Pkramctl() + " upgrade " + region_);
    EXPECT_EQ(ran.status, 0) << ran.err;
  });
}

TEST_F(BulkStepsTest, AnImportDuringResizesAndCheckpointsGoesOn) {
  AtEachStepOfAll([this](Traced*) {
    const Ran ran = Shell(Pkramctl() + " resize " + region_ + " size=96m && " + Pkramctl() +
                          " checkpoint " + region_ + " " + dir_ + "/image && " + Pkramctl() +
                          " resize " + region_ + " size=64m");
    EXPECT_EQ(ran.status, 0) << ran.err;
  });
}

TEST_F(BulkStepsTest, AnImportIntoARegionThatBecomesFullIsDoneOrSaysSo) {
  may_fail_ = "no space is left";
  AtEachStepOfAll([this](Traced*) { Shell("cat /dev/zero > " + At("filled")); });
}

// Each ends, and what there is goes on.
TEST_F(BulkStepsTest, AnExportAtWhoseStepsSomethingDiesIsWholeOrNothing) {
  Mount("size=64m");
  const std::string one = Small("one"), said = dir_ + "/said";
  ASSERT_EQ(Import(At("v") + " " + one).status, 0);
  for (const bool kills_server : {false, true}) {
    for (int step = 0;; step += kOneIn) {
      const std::string out = region_ + "-out";
      Traced exporter(Pkramctl() + " export " + At("v") + " " + out, said);
      bool stands = true;
      for (int i = 0; i <= step && stands; ++i) stands = exporter.Next();
      SCOPED_TRACE("step " + std::to_string(step) + " " + exporter.step());
      if (stands) kills_server ? KillServer(DaemonPid()) : exporter.Kill();
      const int status = exporter.Finish();
      if (kills_server || !stands) {
        EXPECT_EQ(status, 0) << Slurp(said);
        EXPECT_TRUE(Is(out, one));
      }
      Spill(At("file"), "others go on");
      EXPECT_EQ(Slurp(At("file")), "others go on");
      EXPECT_TRUE(Eventually([&] { return Pages("lent") == 0 && Pages("held") == 0; }));
      ASSERT_EQ(Shell("rm -rf " + out).status, 0);
      if (!stands) break;
      ASSERT_FALSE(HasFailure());
    }
  }
  ExpectSound();
}

// The mapping is there whatever dies, and never changes.
TEST_F(BulkStepsTest, AMappingAtWhoseStepsTheServerDiesHasItsBytes) {
  Mount("size=64m");
  for (int step = 0;; step += kOneIn) {
    Spill(At("file"), std::string(50000, 'a'));
    const std::string path = At("file");
    Traced reader([&] {
      const int fd = open(path.c_str(), O_RDONLY);
      int how = 0;
      const void* const address = pkramfs_map(fd, 0, 0, &how);
      if (address == MAP_FAILED || how != PKRAMFS_OWN_PAGES) return 3;
      Spill(path, std::string(50000, 'b'));
      return std::string_view(static_cast<const char*>(address), 50000) == std::string(50000, 'a')
                 ? 0
                 : 4;
    });
    bool stands = true;
    for (int i = 0; i <= step && stands; ++i) stands = reader.Next();
    SCOPED_TRACE("step " + std::to_string(step) + " " + reader.step());
    if (stands) KillServer(DaemonPid());
    EXPECT_EQ(reader.Finish(), 0);
    EXPECT_EQ(Slurp(At("file")), std::string(50000, 'b'));
    EXPECT_TRUE(Eventually([&] { return Pages("held") == 0; }));
    if (!stands) break;
    ASSERT_FALSE(HasFailure());
  }
  ExpectSound();
}

}  // namespace
}  // namespace pkramfs
