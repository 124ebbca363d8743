// What a daemon says of itself is not believed, and what is shown of it cannot write to the
// terminal.
#include "mount/tools/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "mount/ctl/info.h"
#include "mount/ctl/metrics.h"
#include "mount/tools/command_line.h"

namespace pkramfs {
namespace {

constexpr char kWhole[] = R"({
    "pid": 7, "keeper": 8, "program": "/usr/bin/pkramfs",
    "version": "0.2.0", "node": "pkramfs",
    "options": {"writeback": true, "export": false, "mlock": false, "takeover": true,
                "shows_image": false, "max_read": 4096,
                "checkpoint": "/c.img", "checkpoint_every": 600, "checkpoint_at_exit": true},
    "takeovers": {"count": 2, "last": "killed by signal 9", "pause_ms": 12.5},
    "checkpoint": {"last": {"file": "/c.img", "seconds": 1000, "pages": 512, "written": 256,
                            "aside": 0, "waits": 0, "pause_ms": 1.5, "took_ms": 2500},
                   "under_way": {"done": 5, "of": 10}, "error": "none", "changed_since": 3},
    "requests": {"lookup": 10, "read": 5},
    "bytes": {"read": 8192, "written": 0}, "errors": {"ENOSPC": 1, "EIO": 0},
    "inodes": 42,
    "pages": {"total": 1000, "metadata": 50, "data": 200, "free": 750, "limbo": 0,
              "reserved": 10, "lent": 4, "held": 0},
    "journal_waits": 0})";

// Everything that pkramctl does with an answer that it takes.
void Show(Json statistics) {
  statistics["region"] = "/dev/shm/r";  // as pkramctl adds them itself
  statistics["mounted_on"] = "/srv/a";
  TableOf(FactsOfMount(statistics, 1600));
  SeenRegion region;
  region.path = "/dev/shm/r";
  region.state = "mounted";
  region.mount = MountEntry();
  region.statistics = statistics;
  MetricsOf({region}, 1600);
}

TEST(StatisticsTest, AnAnswerIsTaken) {
  const auto json = ParseStatistics(kWhole);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["inodes"], 42);
  Show(*json);
}

TEST(StatisticsTest, WhatIsNoAnswerIsRefused) {
  for (const char* const text : {"", "{", "[]", "7", "{}", "\xff", R"({"pid": 1})"}) {
    EXPECT_FALSE(ParseStatistics(text).ok()) << text;
  }
}

// Each value by one of each other type, and by nothing: it is refused, or can be shown.
TEST(StatisticsTest, AWrongTypeDoesNoHarm) {
  const Json whole = Json::parse(kWhole);
  const std::vector<Json> others = {
      nullptr,          true,           "text",           -1, 1.5, 1e300, uint64_t{1} << 60,
      Json::array({1}), Json::object(), Json{{"a\nb", 1}}};
  const Json flat = whole.flatten();
  std::vector<std::string> places;
  for (const auto& [at, value] : flat.items()) {
    places.push_back(at);
    for (size_t end = at.rfind('/'); end != 0; end = at.rfind('/', end - 1)) {
      places.push_back(at.substr(0, end));
    }
  }
  int refused = 0;
  for (const std::string& place : places) {
    const Json::json_pointer at(place);
    for (const Json& other : others) {
      Json changed = whole;
      changed[at] = other;
      const auto taken = ParseStatistics(changed.dump());
      refused += taken.ok() ? 0 : 1;
      if (taken.ok()) Show(*taken);
    }
    Json less = whole;
    less[at.parent_pointer()].erase(at.back());
    const auto taken = ParseStatistics(less.dump());
    if (taken.ok()) Show(*taken);
  }
  EXPECT_GT(refused, 300);
  for (const char* const needed : {"/pid", "/inodes", "/pages/total", "/pages", "/version"}) {
    const Json::json_pointer at(needed);
    Json less = whole;
    less[at.parent_pointer()].erase(at.back());
    EXPECT_FALSE(ParseStatistics(less.dump()).ok()) << needed;
  }
}

TEST(StatisticsTest, ByteByByteDoesNoHarm) {
  const std::string whole = kWhole;
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    std::string text = whole;
    for (int n = 0; n < 3; ++n) text[random() % text.size()] = static_cast<char>(random());
    const auto taken = ParseStatistics(text);
    if (taken.ok()) Show(*taken);
  }
}

TEST(PrintableTest, TextStays) {
  for (const char* const text : {"", "a b", "\\x1b", "größe", "日本", "\xf0\x9f\x90\xa7"}) {
    EXPECT_EQ(Printable(text), text);
  }
}

TEST(PrintableTest, WhatControlsATerminalIsEscaped) {
  EXPECT_EQ(Printable("a\nb\x1b[2J\x7f"), "a\\x0ab\\x1b[2J\\x7f");
  EXPECT_EQ(Printable("\xc2\x9b[2J"), "\\xc2\\x9b[2J");  // C1: the same as ESC [
  EXPECT_EQ(Printable("a\xe2\x80\xae"
                      "b"),
            "a\\xe2\\x80\\xae"
            "b");  // from right to left
  EXPECT_EQ(Printable("\xe2\x81\xa6"), "\\xe2\\x81\\xa6");
}

TEST(PrintableTest, WhatIsNoUtf8IsEscaped) {
  EXPECT_EQ(Printable("a\xff"
                      "b"),
            "a\\xff"
            "b");
  EXPECT_EQ(Printable("\x9b"), "\\x9b");
  EXPECT_EQ(Printable("\xc0\xaf"), "\\xc0\\xaf");           // longer than it must be
  EXPECT_EQ(Printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // half a pair of UTF-16
  EXPECT_EQ(Printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(Printable("\xe6\x97"), "\\xe6\\x97");  // cut
}

}  // namespace
}  // namespace pkramfs
