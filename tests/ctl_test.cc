// What pkramctl shows of what it is told: tables, metrics, progress.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mount/ctl/info.h"
#include "mount/ctl/metrics.h"
#include "mount/region/progress_line.h"
#include "mount/region/units.h"

namespace pkramfs {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(UnitsTest, ThreeDigits) {
  EXPECT_EQ(Rounded(0), "0 B");
  EXPECT_EQ(Rounded(999), "999 B");
  EXPECT_EQ(Rounded(1000), "0.98 KiB");
  EXPECT_EQ(Rounded(4096), "4.00 KiB");
  EXPECT_EQ(Rounded(uint64_t{100} << 10), "100 KiB");
  EXPECT_EQ(Rounded((uint64_t{1} << 20) - 1), "1.00 MiB");
  EXPECT_EQ(Rounded(uint64_t{12} << 20), "12.0 MiB");
  EXPECT_EQ(Rounded(uint64_t{3} << 40), "3.00 TiB");
  EXPECT_EQ(Rounded(uint64_t{5000} << 40), "5000 TiB");
}

TEST(UnitsTest, ATimeHasOneUnit) {
  EXPECT_EQ(Duration(0), "0 s");
  EXPECT_EQ(Duration(119), "119 s");
  EXPECT_EQ(Duration(120), "2 min");
  EXPECT_EQ(Duration(2 * 3600), "2 h");
  EXPECT_EQ(Duration(72 * 3600), "3 days");
}

TEST(ProgressTest, ARateAndTheTimeLeft) {
  EXPECT_EQ(DescribeProgress("put", true, 512 << 20, 2048ull << 20, 4),
            "put: 512 MiB of 2.00 GiB, 25 %, 128 MiB/s, 12 s left");
  EXPECT_EQ(DescribeProgress("check", false, 30, 120, 2), "check: 30 of 120, 25 %, 15/s, 6 s left");
}

TEST(ProgressTest, OfAPipeNobodyKnowsTheWhole) {
  EXPECT_EQ(DescribeProgress("put", true, 4096, 0, 2), "put: 4.00 KiB, 2.00 KiB/s");
}

TEST(ProgressTest, NoRateBeforeItMeansSomething) {
  EXPECT_EQ(DescribeProgress("put", true, 0, 4096, 5), "put: 0 B of 4.00 KiB, 0 %");
  EXPECT_EQ(DescribeProgress("put", true, 4096, 4096, 0.01), "put: 4.00 KiB of 4.00 KiB, 100 %");
  // More than was expected is all.
  EXPECT_EQ(DescribeProgress("put", true, 9000, 4096, 0.01), "put: 8.79 KiB of 4.00 KiB, 100 %");
}

Json Statistics() {
  return Json::parse(R"({
    "region": "/dev/shm/r", "pid": 7, "keeper": 8, "program": "/usr/bin/pkramfs",
    "version": "0.2.0", "node": "pkramfs",
    "options": {"writeback": true, "export": false, "mlock": false, "takeover": true,
                "checkpoint": "/c.img", "checkpoint_every": 600, "checkpoint_at_exit": true},
    "takeovers": {"count": 2, "last": "killed by signal 9", "pause_ms": 12.5},
    "checkpoint": {"last": {"file": "/c.img", "seconds": 1000, "pages": 512, "written": 256,
                            "aside": 0, "waits": 0, "pause_ms": 1.5, "took_ms": 2500},
                   "changed_since": 3},
    "requests": {"lookup": 10, "read": 5},
    "bytes": {"read": 8192, "written": 0}, "errors": {"ENOSPC": 1, "EIO": 0},
    "inodes": 42,
    "pages": {"total": 1000, "metadata": 50, "data": 200, "free": 750, "limbo": 0,
              "reserved": 10, "lent": 4, "held": 0},
    "journal_waits": 0, "mounted_on": "/srv/a\"b\\c\nd"})");
}

TEST(InfoTest, AMountedRegionForPeople) {
  const std::string table = TableOf(FactsOfMount(Statistics(), 1000 + 600));
  EXPECT_THAT(table, HasSubstr("options          writeback,noexport,checkpoint=/c.img,"
                               "checkpoint_every=600\n"));
  EXPECT_THAT(table, HasSubstr("used             0.98 MiB  25 %\n"));
  EXPECT_THAT(table, HasSubstr("takeovers               2  the last: killed by signal 9; programs "
                               "waited for 12.5 ms\n"));
  EXPECT_THAT(table, HasSubstr("last checkpoint  10 min ago  /c.img\n"));
  EXPECT_THAT(table, HasSubstr("lent"));
  EXPECT_THAT(table, Not(HasSubstr("limbo")));  // nothing is
  EXPECT_THAT(table, HasSubstr("errors ENOSPC"));
  EXPECT_THAT(table, Not(HasSubstr("EIO")));
  // A name cannot write to the terminal.
  EXPECT_THAT(table, HasSubstr("/srv/a\"b\\c\\x0ad\n"));
}

TEST(InfoTest, WhatHasChangedHasAColumn) {
  const std::vector<Fact> before = FactsOfMount(Statistics(), 1600);
  Json later = Statistics();
  later["requests"]["read"] = 25;
  later["requests"]["write"] = 1;
  later["pages"]["data"] = 100;
  const std::string table = TableOf(FactsOfMount(later, 1600), &before);
  EXPECT_THAT(table, testing::ContainsRegex("  read +25 +\\+20\n"));
  EXPECT_THAT(table, testing::ContainsRegex("  write +1 +\\+1\n"));
  EXPECT_THAT(table, testing::ContainsRegex("  contents +400 KiB +-400 KiB\n"));
  EXPECT_THAT(table, testing::ContainsRegex("  lookup +10\n"));
}

TEST(InfoTest, ARegionThatIsNotMounted) {
  const Json json = Json::parse(R"({
    "region": "/dev/shm/r", "uuid": "u", "sealed": false, "committed_journal_slots": 0,
    "pages": {"total": 100, "used": 50, "free": 50, "node": 2, "object": 3, "link": 0, "data": 8,
              "byte": 1},
    "nodes": [{"name": "pkramfs", "state": "live", "sealed": true, "objects": 3, "link_pages": 0,
               "data_pages": 8, "byte_pages": 0},
              {"name": "x", "state": "saved", "sealed": true, "objects": 1, "link_pages": 0,
               "data_pages": 0, "byte_pages": 1}],
    "problems": 2})");
  const std::string table = TableOf(FactsOfRegion(json));
  EXPECT_THAT(table, HasSubstr("sealed      no"));
  EXPECT_THAT(table, HasSubstr("3 inodes, 32.0 KiB of contents\n"));
  EXPECT_THAT(table, testing::ContainsRegex("saved +x +4.00 KiB\n"));
  EXPECT_THAT(table, HasSubstr("pkramctl check says which"));
}

SeenRegion Mounted(const Json& statistics) {
  SeenRegion region;
  region.path = "/dev/shm/r";
  region.state = "mounted";
  region.mount.emplace();
  region.mount->mount_point = statistics.value("mounted_on", "/srv/dead");
  region.statistics = statistics;
  return region;
}

TEST(MetricsTest, EveryNumberHasAMetric) {
  const std::string text = MetricsOf({Mounted(Statistics())}, 1600);
  const std::string labels = R"({region="/dev/shm/r",mount="/srv/a\"b\\c\\x0ad")";
  for (const std::string& sample : {
           "pkramfs_up" + labels + "} 1\n",
           "pkramfs_info" + labels + ",version=\"0.2.0\",node=\"pkramfs\"} 1\n",
           "pkramfs_page_bytes" + labels + ",state=\"data\"} 819200\n",
           "pkramfs_inodes" + labels + "} 42\n",
           "pkramfs_requests_total" + labels + ",kind=\"lookup\"} 10\n",
           "pkramfs_bytes_total" + labels + ",direction=\"read\"} 8192\n",
           "pkramfs_errors_total" + labels + ",error=\"ENOSPC\"} 1\n",
           "pkramfs_journal_waits_total" + labels + "} 0\n",
           "pkramfs_takeovers_total" + labels + "} 2\n",
           "pkramfs_takeover_pause_seconds" + labels + "} 0.0125\n",
           "pkramfs_checkpoint_timestamp_seconds" + labels + "} 1000\n",
           "pkramfs_checkpoint_age_seconds" + labels + "} 600\n",
           "pkramfs_checkpoint_duration_seconds" + labels + "} 2.5\n",
           "pkramfs_checkpoint_pause_seconds" + labels + "} 0.0015\n",
           "pkramfs_checkpoint_failed" + labels + "} 0\n",
       }) {
    EXPECT_THAT(text, HasSubstr("\n" + sample));
  }
}

TEST(MetricsTest, AMetricHasItsHeadingOnceAndItsSamplesTogether) {
  const std::string text = MetricsOf({Mounted(Statistics()), Mounted(Json::object())}, 1600);
  std::string current;
  std::vector<std::string> seen;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::string name = line.substr(0, line.find_first_of("{ "));
    if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) {
      name = line.substr(7, line.find(' ', 7) - 7);
    }
    if (name == current) continue;
    EXPECT_TRUE(line.starts_with("# HELP ")) << line;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), name), 0) << name;
    seen.push_back(name);
    current = name;
  }
  // A dead mount has one: that it is dead.
  EXPECT_THAT(text, HasSubstr("pkramfs_up{region=\"/dev/shm/r\",mount=\"/srv/dead\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("pkramfs_inodes{region=\"/dev/shm/r\",mount=\"/srv/dead\"")));
}

}  // namespace
}  // namespace pkramfs
