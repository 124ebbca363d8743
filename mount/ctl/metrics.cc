#include "mount/ctl/metrics.h"

#include <algorithm>
#include <ctime>
#include <functional>

#include "absl/strings/str_cat.h"
#include "mount/tools/command_line.h"
#include "mount/tools/live_mount.h"
#include "pkram/types.h"

namespace pkramfs {
namespace {

// A value of a label.  Control characters and bytes that are no UTF-8 are shown as \xNN.
// Backslashes and quotes are escaped.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : Printable(text)) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

// Collects the samples of one metric after another, as the format wants them.
class Metrics {
 public:
  Metrics(const std::vector<SeenRegion>& regions) : regions_(regions) {}

  // Begins a metric.
  void Begin(const char* name, const char* type, const char* help) {
    name_ = name;
    heading_ = absl::StrCat("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
  }
  // Of a region; `label` is "" or `, kind="read"`.
  template <typename Number>
  void Add(const SeenRegion& region, Number value, const std::string& label = "") {
    absl::StrAppend(&text_, heading_, name_, "{region=\"", Escaped(region.path), "\",mount=\"",
                    Escaped(region.mount->mount_point), "\"", label, "} ", value, "\n");
    heading_.clear();
  }
  void ForEach(const std::function<void(const SeenRegion&)>& fn) {
    for (const SeenRegion& region : regions_) {
      if (region.mount) fn(region);
    }
  }
  // One sample of each region whose daemon says it.
  void Value(const char* name, const char* type, const char* help, const char* at,
             double factor = 1) {
    Begin(name, type, help);
    const Json::json_pointer pointer(at);
    ForEach([&](const SeenRegion& region) {
      if (!region.statistics.contains(pointer)) return;
      const Json& value = region.statistics[pointer];
      if (value.is_number_integer() && factor == 1) {
        Add(region, value.get<int64_t>());
      } else {
        Add(region, value.get<double>() * factor);
      }
    });
  }
  // One sample for each member of an object, with its name as a label.
  void Members(const char* name, const char* type, const char* help, const char* at,
               const char* label, int64_t factor = 1) {
    Begin(name, type, help);
    const Json::json_pointer pointer(at);
    ForEach([&](const SeenRegion& region) {
      if (!region.statistics.contains(pointer)) return;
      for (const auto& [member, value] : region.statistics[pointer].items()) {
        Add(region, value.get<int64_t>() * factor,
            absl::StrCat(",", label, "=\"", Escaped(member), "\""));
      }
    });
  }

  const std::string& text() const { return text_; }

 private:
  const std::vector<SeenRegion>& regions_;
  std::string name_, heading_, text_;
};

}  // namespace

std::string MetricsOf(const std::vector<SeenRegion>& regions, int64_t now) {
  constexpr double kMilliseconds = 1e-3;
  constexpr auto kPage = static_cast<int64_t>(pkram::kPageSize);
  Metrics metrics(regions);
  metrics.Begin("pkramfs_up", "gauge", "1 if a server answers for the mount, 0 if it is dead.");
  metrics.ForEach(
      [&](const SeenRegion& region) { metrics.Add(region, region.statistics.empty() ? 0 : 1); });
  metrics.Begin("pkramfs_info", "gauge", "The version of the program that serves; always 1.");
  metrics.ForEach([&](const SeenRegion& region) {
    if (region.statistics.empty()) return;
    metrics.Add(region, 1,
                absl::StrCat(",version=\"", Escaped(region.statistics.value("version", "")),
                             "\",node=\"", Escaped(region.statistics.value("node", "")), "\""));
  });
  metrics.Members("pkramfs_page_bytes", "gauge",
                  "Memory of the region by state; total is its size, the others overlap in part.",
                  "/pages", "state", kPage);
  metrics.Value("pkramfs_inodes", "gauge", "Files, directories and others that exist.", "/inodes");
  metrics.Members("pkramfs_requests_total", "counter",
                  "Requests of the kernel by kind, since this server began.", "/requests", "kind");
  metrics.Members("pkramfs_bytes_total", "counter",
                  "Bytes that requests have read or written, since this server began.", "/bytes",
                  "direction");
  metrics.Members("pkramfs_errors_total", "counter",
                  "Answers that say that no space is left (ENOSPC) or that something failed (EIO).",
                  "/errors", "error");
  metrics.Value("pkramfs_journal_waits_total", "counter",
                "How often a change has waited for a free slot of the journal.", "/journal_waits");
  metrics.Begin("pkramfs_takeovers_total", "counter",
                "How often another server has taken the mount over.");
  metrics.ForEach([&](const SeenRegion& region) {
    if (region.statistics.empty()) return;
    const Json takeovers = region.statistics.value("takeovers", Json::object());
    metrics.Add(region, takeovers.value("count", int64_t{0}));
  });
  metrics.Value("pkramfs_takeover_pause_seconds", "gauge",
                "How long programs have waited at the last takeover.", "/takeovers/pause_ms",
                kMilliseconds);
  metrics.Value("pkramfs_checkpoint_timestamp_seconds", "gauge",
                "When the last checkpoint was made, in seconds since 1970.",
                "/checkpoint/last/seconds");
  metrics.Begin("pkramfs_checkpoint_age_seconds", "gauge", "How old the last checkpoint is.");
  metrics.ForEach([&](const SeenRegion& region) {
    const auto at = "/checkpoint/last/seconds"_json_pointer;
    if (!region.statistics.contains(at)) return;
    metrics.Add(region, std::max<int64_t>(0, now - region.statistics[at].get<int64_t>()));
  });
  metrics.Value("pkramfs_checkpoint_duration_seconds", "gauge", "What the last checkpoint took.",
                "/checkpoint/last/took_ms", kMilliseconds);
  metrics.Value("pkramfs_checkpoint_pause_seconds", "gauge",
                "How long changes have waited for the last checkpoint.",
                "/checkpoint/last/pause_ms", kMilliseconds);
  metrics.Begin("pkramfs_checkpoint_failed", "gauge",
                "1 if the last attempt at a checkpoint has failed.");
  metrics.ForEach([&](const SeenRegion& region) {
    if (!region.statistics.contains("checkpoint")) return;
    metrics.Add(region, region.statistics["checkpoint"].contains("error") ? 1 : 0);
  });
  return metrics.text();
}

int RunMetrics(const std::vector<std::string>& places) {
  std::vector<SeenRegion> seen = SeenRegions();
  std::vector<SeenRegion> wanted;
  for (const std::string& word : places) {
    const std::string place = RegionOrMountPoint(word);
    const auto is_it = [&](const SeenRegion& region) {
      return region.mount &&
             (region.mount->mount_point == place || Canonical(region.path) == Canonical(place));
    };
    const auto found = std::find_if(seen.begin(), seen.end(), is_it);
    if (found == seen.end()) {
      return Fail(
          absl::NotFoundError(absl::StrCat(place, ": not mounted here: it has no metrics")));
    }
    wanted.push_back(*found);
  }
  return Print(MetricsOf(places.empty() ? seen : wanted, time(nullptr)));
}

}  // namespace pkramfs
