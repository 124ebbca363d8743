#include "mount/ctl/info.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mount/ctl/live.h"
#include "mount/region/region_file.h"
#include "mount/region/units.h"
#include "mount/tools/command_line.h"
#include "mount/tools/live_mount.h"
#include "pkram/region.h"
#include "pkram/types.h"

namespace pkramfs {
namespace {

using Unit = Fact::Unit;

const char* StateName(uint64_t state) {
  if (state == pkram::format::kLive) return "live";
  return state == pkram::format::kSaved ? "saved" : "unknown";
}

Json ToJson(const std::string& path, const pkram::Region::Report& report) {
  Json json;
  json["region"] = path;
  json["uuid"] = report.uuid;
  json["sealed"] = report.sealed;
  json["committed_journal_slots"] = report.committed_slots;
  uint64_t objects = 0, links = 0, data = 0, bytes = 0;
  Json nodes = Json::array();
  for (const pkram::NodeCounts& n : report.nodes) {
    objects += n.objects;
    links += n.link_pages;
    data += n.data_pages;
    bytes += n.byte_pages;
    nodes.push_back({{"name", n.name},
                     {"state", StateName(n.state)},
                     {"sealed", n.node_sealed && n.sealed == n.objects},
                     {"objects", n.objects},
                     {"link_pages", n.link_pages},
                     {"data_pages", n.data_pages},
                     {"byte_pages", n.byte_pages}});
  }
  json["pages"] = {{"total", report.pages},
                   {"used", report.used_pages},
                   {"free", report.pages - report.used_pages},
                   {"node", report.nodes.size()},
                   {"object", objects},
                   {"link", links},
                   {"data", data},
                   {"byte", bytes}};
  json["nodes"] = nodes;
  json["problems"] = report.problems.size();
  return json;
}

struct Looked {
  Json json;
  bool is_mounted = false;
  bool has_problems = false;
};

absl::StatusOr<Looked> LookAt(const LiveMount& mount, const absl::StatusOr<std::string>& region) {
  const absl::StatusOr<Json> live = StatisticsOf(mount);
  if (!live.ok()) return live.status();
  Looked looked;
  looked.json["region"] = "";  // the first field
  looked.json.update(*live);
  looked.json["region"] = region.ok() ? *region : mount.entry().source;
  looked.is_mounted = true;
  return looked;
}

absl::StatusOr<Looked> LookAt(const std::string& place) {
  const absl::StatusOr<std::string> region = RegionAt(place);
  if (region.ok() && *region == place) {
    const auto report = InspectRegion(place);
    if (report.ok()) return Looked{ToJson(place, *report), false, !report->problems.empty()};
    if (!absl::IsUnavailable(report.status())) return report.status();
    const absl::StatusOr<LiveMount> mount = LiveMount::Of(place);
    if (!mount.ok()) return report.status();
  }
  const absl::StatusOr<LiveMount> mount = LiveMount::Of(place);
  if (!mount.ok()) return mount.status();
  return LookAt(*mount, region);
}

Fact Bytes(const std::string& name, uint64_t pages, const std::string& note = "") {
  return {name, "", Unit::kBytes, pages * pkram::kPageSize, note};
}

Fact Text(const std::string& name, const std::string& text, const std::string& note = "") {
  return {name, text, Unit::kNone, 0, note};
}

std::string Percent(uint64_t part, uint64_t whole) {
  if (whole == 0) return "";
  return absl::StrFormat("%.0f %%", static_cast<double>(part) / static_cast<double>(whole) * 100);
}

void AddOptions(const Json& options, std::vector<Fact>* facts) {
  std::string text;
  const auto add = [&](const std::string& option) {
    absl::StrAppend(&text, text.empty() ? "" : ",", option);
  };
  if (options.value("writeback", false)) add("writeback");
  if (options.value("mlock", false)) add("mlock");
  if (!options.value("export", true)) add("noexport");
  if (!options.value("takeover", true)) add("notakeover");
  if (const std::string file = options.value("checkpoint", ""); !file.empty()) {
    add("checkpoint=" + file);
    if (const uint64_t every = options.value("checkpoint_every", uint64_t{0}); every != 0) {
      add(absl::StrCat("checkpoint_every=", every));
    }
    if (!options.value("checkpoint_at_exit", true)) add("checkpoint_at_exit=no");
  }
  if (!text.empty()) facts->push_back(Text("options", text));
  if (options.value("shows_image", false)) {
    facts->push_back(Text("shows", "the image of a checkpoint", "read-only"));
  }
}

void AddCheckpoint(const Json& checkpoint, int64_t now, std::vector<Fact>* facts) {
  if (checkpoint.contains("under_way")) {
    const Json& at = checkpoint["under_way"];
    facts->push_back(Text("checkpoint", "under way", Percent(at["done"], at["of"])));
  }
  if (checkpoint.contains("error")) {
    facts->push_back(Text("checkpoint", "failed", checkpoint["error"]));
  }
  if (!checkpoint.contains("last")) return;
  const Json& last = checkpoint["last"];
  const int64_t age = std::max<int64_t>(0, now - last["seconds"].get<int64_t>());
  facts->push_back(Text("last checkpoint",
                        absl::StrCat(Duration(static_cast<uint64_t>(age)), " ago"),
                        last["file"].get<std::string>()));
  facts->push_back(
      Bytes("  of", last["pages"],
            absl::StrFormat("in %.3g s; changes waited for %.2g ms",
                            last["took_ms"].get<double>() / 1000, last["pause_ms"].get<double>())));
  facts->push_back(Bytes("  written", last["written"]));
  if (checkpoint.contains("changed_since")) {
    facts->push_back(Bytes("  changed since", checkpoint["changed_since"]));
  }
}

std::string Padded(const std::string& text, size_t width, bool right = false) {
  const std::string blanks(width > text.size() ? width - text.size() : 0, ' ');
  return right ? blanks + text : text + blanks;
}

std::string Shown(const Fact& fact) {
  if (fact.unit == Unit::kNone) return Printable(fact.text);
  return fact.unit == Unit::kBytes ? Rounded(fact.number) : absl::StrCat(fact.number);
}

std::string Changed(const Fact& fact, const std::vector<Fact>& before) {
  const auto was = std::find_if(before.begin(), before.end(),
                                [&](const Fact& other) { return other.name == fact.name; });
  const uint64_t old = was == before.end() ? 0 : was->number;
  if (fact.unit == Unit::kNone || fact.number == old) return "";
  const uint64_t by = fact.number > old ? fact.number - old : old - fact.number;
  return absl::StrCat(fact.number > old ? "+" : "-",
                      fact.unit == Unit::kBytes ? Rounded(by) : absl::StrCat(by));
}

}  // namespace

std::vector<Fact> FactsOfMount(const Json& json, int64_t now) {
  const Json& pages = json["pages"];
  const uint64_t total = pages["total"], metadata = pages["metadata"], data = pages["data"];
  std::vector<Fact> facts;
  facts.push_back(Text("region", json["region"]));
  facts.push_back(Text("mounted on", json["mounted_on"]));
  facts.push_back(Text("filesystem", json["node"]));
  facts.push_back(Text("server", absl::StrCat("process ", json["pid"].get<int64_t>()),
                       absl::StrCat("pkramfs ", json["version"].get<std::string>(), ", ",
                                    json.value("program", "?"))));
  if (json.contains("keeper")) {
    facts.push_back(Text("keeper", absl::StrCat("process ", json["keeper"].get<int64_t>()),
                         "starts another server when this one dies"));
  }
  AddOptions(json.value("options", Json::object()), &facts);
  facts.push_back(Bytes("size", total));
  facts.push_back(Bytes("used", metadata + data, Percent(metadata + data, total)));
  facts.push_back(Bytes("  contents", data));
  facts.push_back(Bytes("  metadata", metadata));
  facts.push_back(Bytes("free", pages["free"]));
  const auto add_pages = [&](const char* name, const char* key, const char* note) {
    if (const uint64_t n = pages.value(key, uint64_t{0}); n != 0) {
      facts.push_back(Bytes(name, n, note));
    }
  };
  add_pages("limbo", "limbo", "deleted, until their readers are done");
  add_pages("lent", "lent", "to imports under way");
  add_pages("held", "held", "mapped by programs, or being exported");
  facts.push_back({"inodes", "", Unit::kCount, json["inodes"], ""});
  if (json.contains("takeovers")) {
    const Json& takeovers = json["takeovers"];
    facts.push_back({"takeovers", "", Unit::kCount, takeovers["count"],
                     absl::StrFormat("the last: %s; programs waited for %.3g ms",
                                     Printable(takeovers["last"].get<std::string>()),
                                     takeovers["pause_ms"].get<double>())});
  }
  if (json.contains("checkpoint")) AddCheckpoint(json["checkpoint"], now, &facts);
  if (json.contains("errors")) {
    for (const auto& [name, count] : json["errors"].items()) {
      if (count != 0) facts.push_back({"errors " + name, "", Unit::kCount, count, ""});
    }
  }
  if (json.contains("bytes")) {
    facts.push_back({"bytes read", "", Unit::kBytes, json["bytes"]["read"], ""});
    facts.push_back({"bytes written", "", Unit::kBytes, json["bytes"]["written"], ""});
  }
  if (json.contains("requests")) {
    uint64_t all = 0;
    for (const Json& count : json["requests"]) all += count.get<uint64_t>();
    facts.push_back({"requests", "", Unit::kCount, all, ""});
    for (const auto& [kind, count] : json["requests"].items()) {
      facts.push_back({"  " + kind, "", Unit::kCount, count, ""});
    }
  }
  return facts;
}

std::vector<Fact> FactsOfRegion(const Json& json) {
  const Json& pages = json["pages"];
  std::vector<Fact> facts;
  facts.push_back(Text("region", json["region"]));
  facts.push_back(Text("mounted on", "-"));
  facts.push_back(json["sealed"] ? Text("sealed", "yes", "by a clean unmount")
                                 : Text("sealed", "no",
                                        "its last server did not end cleanly; the "
                                        "next mount puts that right"));
  facts.push_back(Text("uuid", json["uuid"]));
  facts.push_back(Bytes("size", pages["total"]));
  facts.push_back(Bytes("used", pages["used"], Percent(pages["used"], pages["total"])));
  facts.push_back(Bytes("free", pages["free"]));
  for (const Json& node : json["nodes"]) {
    const bool is_live = node["state"] == "live";
    const uint64_t held = node["data_pages"].get<uint64_t>() + node["byte_pages"].get<uint64_t>();
    facts.push_back(Text(is_live ? "filesystem" : "saved", node["name"],
                         is_live ? absl::StrCat(node["objects"].get<uint64_t>(), " inodes, ",
                                                Rounded(held * pkram::kPageSize), " of contents")
                                 : Rounded(held * pkram::kPageSize)));
  }
  const uint64_t problems = json["problems"];
  facts.push_back(
      {"problems", "", Unit::kCount, problems, problems == 0 ? "" : "pkramctl check says which"});
  return facts;
}

std::string TableOf(const std::vector<Fact>& facts, const std::vector<Fact>* before) {
  size_t names = 0, numbers = 0, changes = before == nullptr ? 0 : 10;
  for (const Fact& fact : facts) {
    names = std::max(names, fact.name.size());
    if (fact.unit != Unit::kNone) numbers = std::max(numbers, Shown(fact).size());
  }
  std::string table;
  for (const Fact& fact : facts) {
    const bool is_number = fact.unit != Unit::kNone;
    std::string line =
        Padded(Printable(fact.name), names + 2) + Padded(Shown(fact), numbers, is_number);
    if (before != nullptr) line += "  " + Padded(Changed(fact, *before), changes, true);
    if (!fact.note.empty()) line += "  " + Printable(fact.note);
    line.erase(line.find_last_not_of(' ') + 1);
    table += line + "\n";
  }
  return table;
}

int RunInfo(const std::string& place, bool as_json) {
  const absl::StatusOr<Looked> looked = LookAt(place);
  if (!looked.ok()) return Fail(looked.status());
  const int printed =
      as_json ? Print(looked->json)
              : Print(TableOf(looked->is_mounted ? FactsOfMount(looked->json, time(nullptr))
                                                 : FactsOfRegion(looked->json)));
  return looked->has_problems ? kProblems : printed;
}

int RunWatch(const std::string& place, double seconds) {
  std::vector<Fact> before;
  for (;;) {
    const absl::StatusOr<LiveMount> mount = LiveMount::Of(place);
    if (!mount.ok()) return Fail(mount.status());
    const absl::StatusOr<Looked> looked = LookAt(*mount, RegionAt(place));
    if (!looked.ok()) return Fail(looked.status());
    std::vector<Fact> facts = FactsOfMount(looked->json, time(nullptr));
    // A terminal is written anew from its top.
    std::string screen = isatty(STDOUT_FILENO) != 0 ? "\033[H\033[J" : "";
    screen += TableOf(facts, before.empty() ? &facts : &before) + "\n";
    if (Print(screen) != 0) return kCannot;
    before = std::move(facts);
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
}

}  // namespace pkramfs
