#include "mount/tools/statistics.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cctype>

#include "mount/serve/control.h"

namespace pkramfs {
namespace {

using Json = nlohmann::ordered_json;

enum class Kind { kNumber, kReal, kText, kBool, kCounters };

struct Field {
  const char* at;  // a pointer into the document
  Kind kind;
  bool is_needed = false;
};

constexpr Field kFields[] = {
    {"/pid", Kind::kNumber, true},
    {"/keeper", Kind::kNumber},
    {"/program", Kind::kText},
    {"/version", Kind::kText, true},
    {"/node", Kind::kText, true},
    {"/options/writeback", Kind::kBool},
    {"/options/export", Kind::kBool},
    {"/options/mlock", Kind::kBool},
    {"/options/takeover", Kind::kBool},
    {"/options/shows_image", Kind::kBool},
    {"/options/max_read", Kind::kNumber},
    {"/options/checkpoint", Kind::kText},
    {"/options/checkpoint_every", Kind::kNumber},
    {"/options/checkpoint_at_exit", Kind::kBool},
    {"/takeovers/count", Kind::kNumber},
    {"/takeovers/last", Kind::kText},
    {"/takeovers/pause_ms", Kind::kReal},
    {"/checkpoint/under_way/done", Kind::kNumber},
    {"/checkpoint/under_way/of", Kind::kNumber},
    {"/checkpoint/error", Kind::kText},
    {"/checkpoint/last/file", Kind::kText},
    {"/checkpoint/last/seconds", Kind::kNumber},
    {"/checkpoint/last/pages", Kind::kNumber},
    {"/checkpoint/last/written", Kind::kNumber},
    {"/checkpoint/last/pause_ms", Kind::kReal},
    {"/checkpoint/last/took_ms", Kind::kReal},
    {"/checkpoint/changed_since", Kind::kNumber},
    {"/requests", Kind::kCounters},
    {"/bytes", Kind::kCounters},
    {"/bytes/read", Kind::kNumber},
    {"/bytes/written", Kind::kNumber},
    {"/errors", Kind::kCounters},
    {"/inodes", Kind::kNumber, true},
    {"/pages", Kind::kCounters, true},
    {"/pages/total", Kind::kNumber, true},
    {"/pages/metadata", Kind::kNumber, true},
    {"/pages/data", Kind::kNumber, true},
    {"/pages/free", Kind::kNumber, true},
    {"/journal_waits", Kind::kNumber},
};
// If one of these is there, it is an object.
constexpr const char* kObjects[] = {"/options", "/takeovers", "/checkpoint",
                                    "/checkpoint/under_way", "/checkpoint/last"};
// If one of these is there, it has all of its fields above.
constexpr const char* kWhole[] = {"/takeovers", "/checkpoint/under_way", "/checkpoint/last",
                                  "/bytes"};

bool IsNumber(const Json& value) {
  constexpr uint64_t kMost = uint64_t{1} << 53;
  return value.is_number_unsigned() && value.get<uint64_t>() < kMost;
}

bool IsWord(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '_');
  });
}

bool Is(const Json& value, Kind kind) {
  switch (kind) {
    case Kind::kNumber:
      return IsNumber(value);
    case Kind::kReal:
      return value.is_number() && value.get<double>() >= 0 && value.get<double>() < 1e15;
    case Kind::kText:
      return value.is_string();
    case Kind::kBool:
      return value.is_boolean();
    case Kind::kCounters:
      break;
  }
  if (!value.is_object()) return false;
  return std::ranges::all_of(
      value.items(), [](const auto& item) { return IsWord(item.key()) && IsNumber(item.value()); });
}

bool IsPartOf(const std::string& field, const char* object) {
  return field.starts_with(std::string(object) + "/") &&
         field.find('/', std::string_view(object).size() + 1) == std::string::npos;
}

}  // namespace

absl::StatusOr<Json> ParseStatistics(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  const absl::Status wrong =
      absl::InvalidArgumentError("this program does not understand the daemon's answer");
  if (!json.is_object()) return wrong;
  for (const char* const object : kObjects) {
    const Json::json_pointer at(object);
    if (json.contains(at) && !json[at].is_object()) return wrong;
  }
  for (const Field& field : kFields) {
    const Json::json_pointer at(field.at);
    if (json.contains(at)) {
      if (!Is(json[at], field.kind)) return wrong;
      continue;
    }
    if (field.is_needed) return wrong;
    for (const char* const object : kWhole) {
      if (IsPartOf(field.at, object) && json.contains(Json::json_pointer(object))) return wrong;
    }
  }
  return json;
}

nlohmann::ordered_json AskStatistics(int directory) {
  ControlReply reply{};
  if (ioctl(directory, kControlStatistics, &reply) != 0) return nlohmann::ordered_json::object();
  return ParseStatistics(JsonOf(reply)).value_or(nlohmann::ordered_json::object());
}

}  // namespace pkramfs
