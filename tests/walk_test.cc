// A walk that is cut into pieces finds what one thread finds, of sound regions and of others.
#include "pkram/walk.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "pkram/parallel.h"
#include "tests/fs_fixture.h"

namespace pkramfs {
namespace {

using pkram::Region;
using pkram::WalkPieces;

constexpr WalkPieces kOneThread{.threads = 1};
constexpr WalkPieces kSmallPieces{.threads = 4, .objects = 1, .links = 1};
constexpr WalkPieces kOddPieces{.threads = 3, .objects = 7, .links = 2};

class WalkTest : public FsTest {
 protected:
  WalkTest() : FsTest(4096) {}
  // Files of no page and of many links, holes, pages that two files share, directories of several
  // pages; and the server is killed.
  void SetUp() override {
    FsTest::SetUp();
    const Ino dir = Make("dir", S_IFDIR | 0755);
    for (int i = 0; i < 150; ++i) {
      const Ino ino =
          Make("a rather long name of a file " + std::to_string(i), S_IFREG | 0644, dir);
      Put(ino, 0, std::string(i * 80, 'f'));
      ASSERT_TRUE(fs().SetXattr(ctx(), ino, "user.a", std::string(i * 5, 'x'), 0).ok());
      if (i % 10 == 0) Make("sub" + std::to_string(i), S_IFDIR | 0755, dir);
    }
    const Ino large = Make("large"), copy = Make("copy"), holes = Make("holes");
    const std::string mebibyte(1 << 20, 'l');
    for (uint64_t at = 0; at < 5; ++at) Put(large, at << 20, mebibyte);
    ASSERT_TRUE(fs().CopyRange(ctx(), large, 0, copy, 0, 5 << 20).ok());
    for (uint64_t at = 0; at < 12; ++at) Put(holes, at * 3 << 20, "page");
    header_of_large_ = PageOf(large).offset();
    mounted_.reset();
  }
  pkram::Pfn PageOf(Ino ino) {
    const auto* node = region().mapping().At<pkram::format::Node>(region().FindNode("pkramfs"));
    return pkram::format::EntryPfn(pkram::LinkMap(&region(), &node->objects).Get(ino));
  }

  // All that can be seen of a copy of the region when it is opened and closed so.
  std::string All(const WalkPieces& pieces) {
    pkram::MemoryFile file;
    file.Restore(file_.Save());
    std::string all;
    FsCheck check;
    Region::OpenOptions options;
    options.client = &check;
    options.walk = pieces;
    options.inspect = [&](const pkram::PageView&, const pkram::Walk& walk) {
      for (const pkram::NodeCounts& n : walk.nodes()) {
        for (const uint64_t count :
             {n.objects, n.sealed, n.link_pages, n.data_pages, n.byte_pages}) {
          all += std::to_string(count) + " ";
        }
      }
      for (const auto& store : walk.repairs()) all += std::to_string(store.offset) + " ";
      return absl::OkStatus();
    };
    auto region = Region::Open(file.Reopen(), options);
    all += region.status().ToString();
    if (!region.ok()) return all;
    const auto counts = (*region)->space().counts();
    all += " " + std::to_string(counts.free) + " free";
    all += (*region)->Close(&check).ToString();
    region->reset();
    return all + file.Contents();
  }
  void ExpectTheSame(const std::string& of) {
    const std::string all = All(kOneThread);
    EXPECT_TRUE(All(kSmallPieces) == all) << of << ": " << all.substr(0, 300);
    EXPECT_TRUE(All(kOddPieces) == all) << of << ": " << all.substr(0, 300);
  }

  uint64_t header_of_large_ = 0;
};

TEST_F(WalkTest, OfASoundRegion) {
  ExpectTheSame("killed");
  Mounted(file_).Close();
  ExpectTheSame("closed");
}

// As after truncations whose last steps are missing.
TEST_F(WalkTest, OfARegionWithGarbageBeyondAnEnd) {
  const uint64_t end = header_of_large_ + offsetof(pkram::format::ObjectHeader, allocated_end);
  for (const uint64_t pages : {0, 1, 509, 510, 511, 700, 1020, 2000}) {
    file_.Poke(end, pages);
    ExpectTheSame(std::to_string(pages));
  }
}

// Words of links and of pages that something else owns, mostly, as those are what the threads
// have to agree on.
TEST_F(WalkTest, OfADamagedRegion) {
  std::mt19937_64 random(7);
  const std::string sound = file_.Contents();
  std::vector<uint64_t> words;
  for (uint64_t at = 0; at < sound.size(); at += 8) {
    if (file_.Peek(at) != 0 && file_.Peek(at) < sound.size() * 2) words.push_back(at);
  }
  for (int i = 0; i < 40; ++i) {
    const uint64_t at = words[random() % words.size()];
    const uint64_t other = words[random() % words.size()];
    const uint64_t was = file_.Peek(at);
    file_.Poke(at, i % 3 == 0 ? was ^ uint64_t{1} << random() % 64 : file_.Peek(other));
    ExpectTheSame("word " + std::to_string(at));
    file_.Poke(at, was);
  }
}

TEST(ParallelTest, EachPieceIsDoneOnce) {
  for (const int threads : {1, 2, 5}) {
    std::vector<int> done(1000);
    pkram::InParallel(threads, done.size(), [&](uint64_t i) { ++done[i]; });
    EXPECT_EQ(std::count(done.begin(), done.end(), 1), 1000);
  }
  pkram::InParallel(3, 0, [](uint64_t) { ADD_FAILURE(); });
  EXPECT_GE(pkram::Processors(), 1);
}

// Ends with 0 if the caller's thread does all, and did have to.
[[noreturn]] void WorkWhereThereAreNoThreads() {
  const rlimit none{1, 1};
  const bool limited = setrlimit(RLIMIT_NPROC, &none) == 0 && setuid(65534) == 0;
  std::vector<int> done(1000);
  std::atomic<int> by_others = 0;
  const std::thread::id self = std::this_thread::get_id();
  pkram::InParallel(5, done.size(), [&](uint64_t i) {
    ++done[i];
    by_others += std::this_thread::get_id() != self;
  });
  _exit(limited && by_others == 0 && std::count(done.begin(), done.end(), 1) == 1000 ? 0 : 1);
}

TEST(ParallelTest, OneThreadDoesAllWhereThereAreNoOthers) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may become a user without threads";
  EXPECT_EXIT(WorkWhereThereAreNoThreads(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace pkramfs
