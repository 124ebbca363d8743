#include "pkram/stream.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <thread>

#include "tests/region_fixture.h"

namespace pkram {
namespace {

std::string PageOf(char c, uint64_t order = 0) { return std::string(kPageSize << order, c); }
absl::Span<const std::byte> BytesIn(const std::string& s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

class StreamTest : public testing::Test {
 protected:
  void SetUp() override {
    FormatRegion(&file_, 4096);
    region_ = OpenRegion(file_).value();
    empty_ = region_->space().counts().free;
  }
  // As a restart without a clean end.
  void Reopen() {
    region_.reset();
    region_ = OpenRegion(file_).value();
  }
  uint64_t UsedNow() { return empty_ - region_->space().counts().free; }

  // A stream with one object that holds pages [0, n) and no bytes.
  void SavePages(const std::string& name, uint64_t n) {
    auto save = SaveStream::Prepare(region_.get(), name).value();
    SaveObject* object = save->PrepareObject().value();
    {
      SaveAccess access(object);
      for (uint64_t i = 0; i < n; ++i) {
        ASSERT_EQ(access.SavePage(i, BytesIn(PageOf(static_cast<char>('a' + i % 26)))),
                  absl::OkStatus());
      }
    }
    ASSERT_EQ(save->Finish(), absl::OkStatus());
  }

  MemoryFile file_;
  std::unique_ptr<Region> region_;
  uint64_t empty_ = 0;
};

TEST_F(StreamTest, PagesAndBytesComeBackAfterTheProcessDied) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "line " + std::to_string(i) + "\n";
  {
    auto save = SaveStream::Prepare(region_.get(), "both").value();
    SaveObject* object = save->PrepareObject().value();
    {
      SaveAccess access(object);
      ASSERT_EQ(access.SavePage(7, BytesIn(PageOf('x'))), absl::OkStatus());
      ASSERT_EQ(access.SavePage(900, BytesIn(PageOf('y'))), absl::OkStatus());
    }
    for (size_t at = 0; at < text.size(); at += 777) {
      const std::string piece = text.substr(at, 777);
      ASSERT_EQ(object->WriteBytes(BytesIn(piece)), absl::OkStatus());
    }
    ASSERT_EQ(save->Finish(), absl::OkStatus());
  }
  Reopen();
  auto load = LoadStream::Prepare(region_.get(), "both").value();
  auto object = load->NextObject().value();
  LoadAccess access(object.get());
  const auto first = access.LoadFilePage();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->index, 7u);
  EXPECT_EQ(std::memcmp(first->page.data(), PageOf('x').data(), kPageSize), 0);
  EXPECT_EQ(access.LoadFilePage()->index, 900u);
  EXPECT_FALSE(access.LoadFilePage());
  std::string back(object->bytes_len(), '\0');
  size_t got = 0;
  while (size_t n =
             object->ReadBytes(absl::MakeSpan(reinterpret_cast<std::byte*>(back.data()) + got,
                                              std::min<size_t>(1000, back.size() - got)))) {
    got += n;
  }
  EXPECT_EQ(back, text);
  EXPECT_EQ(load->NextObject().status().code(), absl::StatusCode::kOutOfRange);
  load->Finish();
  EXPECT_FALSE(region_->FindNode("both"));
  EXPECT_EQ(UsedNow(), 0u);
}

TEST_F(StreamTest, BulkLoadGivesOneLinkPerCall) {
  SavePages("bulk", 1200);
  auto load = LoadStream::Prepare(region_.get(), "bulk").value();
  auto object = load->NextObject().value();
  LoadAccess access(object.get());
  PageBuffer pages;
  std::vector<std::pair<uint64_t, uint64_t>> batches;
  while (auto batch = access.LoadFilePages(&pages)) {
    batches.emplace_back(batch->index, batch->count);
    for (uint64_t i = 0; i < batch->count; ++i) {
      EXPECT_EQ(static_cast<char>(*pages[i].data()),
                'a' + static_cast<char>((batch->index + i) % 26));
    }
  }
  EXPECT_EQ(batches,
            (std::vector<std::pair<uint64_t, uint64_t>>{{0, 510}, {510, 510}, {1020, 180}}));
}

TEST_F(StreamTest, EveryJumpOfTheIndexStartsALink) {
  auto save = SaveStream::Prepare(region_.get(), "jumps").value();
  SaveObject* object = save->PrepareObject().value();
  {
    SaveAccess access(object);
    for (uint64_t index : {0, 1, 10, 11, 12, 40}) {
      ASSERT_EQ(access.SavePage(index, BytesIn(PageOf('j'))), absl::OkStatus());
    }
  }
  ASSERT_EQ(save->Finish(), absl::OkStatus());
  save.reset();
  auto load = LoadStream::Prepare(region_.get(), "jumps").value();
  auto loaded = load->NextObject().value();
  LoadAccess access(loaded.get());
  PageBuffer pages;
  std::map<uint64_t, uint64_t> batches;
  while (auto batch = access.LoadFilePages(&pages)) batches[batch->index] = batch->count;
  EXPECT_EQ(batches, (std::map<uint64_t, uint64_t>{{0, 2}, {10, 3}, {40, 1}}));
}

TEST_F(StreamTest, PagesOfAnyOrderKeepTheirIndexes) {
  auto save = SaveStream::Prepare(region_.get(), "orders").value();
  SaveObject* object = save->PrepareObject().value();
  {
    SaveAccess access(object);
    ASSERT_EQ(access.SavePage(0, BytesIn(PageOf('a'))), absl::OkStatus());
    ASSERT_EQ(access.SavePage(1, BytesIn(PageOf('b', 9)), 9), absl::OkStatus());
    ASSERT_EQ(access.SavePage(513, BytesIn(PageOf('c', 3)), 3), absl::OkStatus());
    EXPECT_EQ(access.SavePage(0, BytesIn(PageOf('d')), 1).code(),
              absl::StatusCode::kInvalidArgument);
  }
  ASSERT_EQ(save->Finish(), absl::OkStatus());
  save.reset();
  Reopen();
  auto load = LoadStream::Prepare(region_.get(), "orders").value();
  auto loaded = load->NextObject().value();
  LoadAccess access(loaded.get());
  PageBuffer pages;
  const auto batch = access.LoadFilePages(&pages);
  ASSERT_TRUE(batch);
  uint64_t index = batch->index;
  std::map<uint64_t, uint64_t> orders;
  for (uint64_t i = 0; i < batch->count; ++i) {
    orders[index] = pages[i].order();
    index += pages[i].size() / kPageSize;
  }
  EXPECT_EQ(orders, (std::map<uint64_t, uint64_t>{{0, 0}, {1, 9}, {513, 3}}));
  EXPECT_EQ(static_cast<char>(pages[1].data()[pages[1].size() - 1]), 'b');
}

// --- What the series got wrong ----------------------------------------------------

TEST_F(StreamTest, AnObjectWithoutPagesIsEmptyNotStale) {
  auto save = SaveStream::Prepare(region_.get(), "empty").value();
  SaveObject* full = save->PrepareObject().value();
  {
    SaveAccess access(full);
    ASSERT_EQ(access.SavePage(0, BytesIn(PageOf('f'))), absl::OkStatus());
  }
  ASSERT_TRUE(save->PrepareObject().ok());
  ASSERT_EQ(save->Finish(), absl::OkStatus());
  save.reset();
  Reopen();
  auto load = LoadStream::Prepare(region_.get(), "empty").value();
  auto first = load->NextObject().value();
  LoadAccess first_access(first.get());
  ASSERT_TRUE(first_access.LoadFilePage());
  auto second = load->NextObject().value();
  LoadAccess access(second.get());
  PageBuffer pages;
  EXPECT_FALSE(second->has_pages());
  EXPECT_FALSE(access.LoadFilePages(&pages));
  EXPECT_FALSE(access.LoadFilePage());
  std::byte b;
  EXPECT_EQ(second->ReadBytes(absl::MakeSpan(&b, 1)), 0u);
}

TEST_F(StreamTest, BulkLoadGoesOnWhereAHalfReadLinkStopped) {
  SavePages("half", 600);
  auto load = LoadStream::Prepare(region_.get(), "half").value();
  auto object = load->NextObject().value();
  LoadAccess access(object.get());
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(access.LoadFilePage()->index, i);
  PageBuffer pages;
  auto batch = access.LoadFilePages(&pages);
  ASSERT_TRUE(batch);
  EXPECT_EQ(batch->index, 100u);
  EXPECT_EQ(batch->count, 410u);
  EXPECT_EQ(static_cast<char>(*pages[0].data()), 'a' + 100 % 26);
  batch = access.LoadFilePages(&pages);
  EXPECT_EQ(batch->index, 510u);
  EXPECT_FALSE(access.LoadFilePages(&pages));
}

TEST_F(StreamTest, ALoadThatFailsLosesNothing) {
  SavePages("again", 700);
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto load = LoadStream::Prepare(region_.get(), "again").value();
    auto object = load->NextObject().value();
    LoadAccess access(object.get());
    PageBuffer pages;
    EXPECT_EQ(access.LoadFilePages(&pages)->count, 510u);
  }
  Reopen();
  auto load = LoadStream::Prepare(region_.get(), "again").value();
  auto object = load->NextObject().value();
  LoadAccess access(object.get());
  PageBuffer pages;
  EXPECT_EQ(access.LoadFilePages(&pages)->count, 510u);
  EXPECT_EQ(access.LoadFilePages(&pages)->count, 190u);
}

TEST_F(StreamTest, ASaveThatIsNotFinishedLeavesNoTrace) {
  for (bool explicitly : {false, true}) {
    auto save = SaveStream::Prepare(region_.get(), "undone").value();
    SaveObject* object = save->PrepareObject().value();
    {
      SaveAccess access(object);
      for (uint64_t i = 0; i < 600; ++i) {
        ASSERT_EQ(access.SavePage(i * 2, BytesIn(PageOf('u'))), absl::OkStatus());
      }
    }
    ASSERT_EQ(object->WriteBytes(BytesIn(PageOf('b', 2))), absl::OkStatus());
    EXPECT_FALSE(region_->FindNode("undone"));
    if (explicitly) save->Discard();
    save.reset();
    EXPECT_EQ(UsedNow(), 0u);
  }
}

TEST_F(StreamTest, NamesAreUniqueAndHaveOneUser) {
  auto save = SaveStream::Prepare(region_.get(), "name").value();
  EXPECT_EQ(SaveStream::Prepare(region_.get(), "name").status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(LoadStream::Prepare(region_.get(), "name").status().code(),
            absl::StatusCode::kUnavailable);
  ASSERT_EQ(save->Finish(), absl::OkStatus());
  save.reset();
  EXPECT_EQ(SaveStream::Prepare(region_.get(), "name").status().code(),
            absl::StatusCode::kAlreadyExists);
  auto load = LoadStream::Prepare(region_.get(), "name").value();
  EXPECT_EQ(LoadStream::Prepare(region_.get(), "name").status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(LoadStream::Prepare(region_.get(), "none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(SaveStream::Prepare(region_.get(), std::string(256, 'n')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(SaveStream::Prepare(region_.get(), std::string(255, 'n')).ok());
}

TEST_F(StreamTest, AnIndexSavedTwiceIsAnError) {
  auto save = SaveStream::Prepare(region_.get(), "twice").value();
  SaveObject* object = save->PrepareObject().value();
  for (int i = 0; i < 2; ++i) {
    SaveAccess access(object);
    ASSERT_EQ(access.SavePage(5, BytesIn(PageOf('t'))), absl::OkStatus());
  }
  EXPECT_EQ(save->Finish().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(region_->FindNode("twice"));
}

TEST_F(StreamTest, AFullRegionIsAnErrorAndDiscardEmptiesIt) {
  {
    auto save = SaveStream::Prepare(region_.get(), "full").value();
    SaveObject* object = save->PrepareObject().value();
    SaveAccess access(object);
    absl::Status s;
    for (uint64_t i = 0; s.ok(); ++i) s = access.SavePage(i, BytesIn(PageOf('f')));
    EXPECT_EQ(s.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(object->WriteBytes(BytesIn(PageOf('f'))).code(),
              absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(UsedNow(), 0u);
}

TEST_F(StreamTest, SeveralThreadsSaveAndLoadOneObject) {
  constexpr uint64_t kThreads = 4, kPages = 300;
  {
    auto save = SaveStream::Prepare(region_.get(), "threads").value();
    SaveObject* object = save->PrepareObject().value();
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        SaveAccess access(object);
        for (uint64_t i = 0; i < kPages; ++i) {
          const std::string page = PageOf(static_cast<char>('a' + t));
          ASSERT_EQ(access.SavePage(t * kPages + i, BytesIn(page)), absl::OkStatus());
        }
      });
    }
    for (auto& t : threads) t.join();
    ASSERT_EQ(save->Finish(), absl::OkStatus());
  }
  Reopen();
  auto load = LoadStream::Prepare(region_.get(), "threads").value();
  auto object = load->NextObject().value();
  Mutex mu;
  std::map<uint64_t, char> seen;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      LoadAccess access(object.get());
      // One of them gives up half way through a link: others load its rest.
      if (t == 0) {
        for (int i = 0; i < 10; ++i) {
          if (auto page = access.LoadFilePage()) {
            MutexLock lock(&mu);
            EXPECT_TRUE(seen.emplace(page->index, static_cast<char>(*page->page.data())).second);
          }
        }
        return;
      }
      PageBuffer pages;
      while (auto batch = access.LoadFilePages(&pages)) {
        MutexLock lock(&mu);
        for (uint64_t i = 0; i < batch->count; ++i) {
          EXPECT_TRUE(seen.emplace(batch->index + i, static_cast<char>(*pages[i].data())).second);
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  LoadAccess rest(object.get());
  while (auto page = rest.LoadFilePage()) {
    EXPECT_TRUE(seen.emplace(page->index, static_cast<char>(*page->page.data())).second);
  }
  ASSERT_EQ(seen.size(), kThreads * kPages);
  for (const auto& [index, c] : seen) EXPECT_EQ(c, static_cast<char>('a' + index / kPages));
}

}  // namespace
}  // namespace pkram
