#include <unistd.h>

#include <nlohmann/json.hpp>

#include "mount/serve/server.h"

namespace pkramfs {
namespace {

constexpr const char* kFieldNames[] = {
    "lookup",      "forget",     "getattr",     "setattr",
    "readlink",    "mknod",      "mkdir",       "unlink",
    "rmdir",       "symlink",    "rename",      "link",
    "open",        "read",       "write",       "flush",
    "release",     "fsync",      "opendir",     "readdir",
    "readdirplus", "releasedir", "statfs",      "setxattr",
    "getxattr",    "listxattr",  "removexattr", "create",
    "tmpfile",     "fallocate",  "lseek",       "copy_file_range",
    "ioctl"};
static_assert(std::size(kFieldNames) == static_cast<size_t>(Request::kCount));

double Milliseconds(std::chrono::nanoseconds time) {
  return static_cast<double>(time.count() / 1000) / 1000;
}

void AddCheckpoint(const CheckpointState& state, nlohmann::ordered_json* json) {
  if (state.of != 0) (*json)["checkpoint"]["under_way"] = {{"done", state.done}, {"of", state.of}};
  if (!state.error.empty()) (*json)["checkpoint"]["error"] = state.error;
  if (state.file.empty()) return;
  nlohmann::ordered_json& last = (*json)["checkpoint"]["last"];
  last = {{"file", state.file},
          {"seconds", state.seconds},
          {"pages", state.made.pages},
          {"written", state.made.written},
          {"aside", state.made.aside},
          {"waits", state.made.waits},
          {"pause_ms", Milliseconds(state.made.rest)},
          {"took_ms", Milliseconds(state.made.all)}};
  if (state.changed) (*json)["checkpoint"]["changed_since"] = *state.changed;
}

}  // namespace

std::string Describe(const Server& server, size_t most) {
  nlohmann::ordered_json json;
  json["pid"] = getpid();
  const InFlight& in_flight = *server.in_flight;
  if (in_flight.keeper() != 0) json["keeper"] = in_flight.keeper();
  // The path of the program that runs, even if another file has that path by now.
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof(program));
  if (length > 0) json["program"] = std::string(program, static_cast<size_t>(length));
  json["version"] = PKRAMFS_VERSION;
  json["node"] = server.node;
  json["options"] = {{"writeback", server.writeback},
                     {"export", server.export_handles},
                     {"mlock", in_flight.locks_memory()},
                     {"takeover", server.takeover},
                     {"shows_image", in_flight.shows_image()},
                     {"max_read", server.max_read},
                     {"checkpoint", server.checkpoint_file},
                     {"checkpoint_every", server.checkpoint_every},
                     {"checkpoint_at_exit", server.checkpoint_at_exit}};
  if (const InFlight::Takeovers takeovers = in_flight.takeovers(); takeovers.count != 0) {
    json["takeovers"] = {{"count", takeovers.count},
                         {"last", takeovers.reason},
                         {"pause_ms", static_cast<double>(takeovers.pause) / 1000}};
  }
  if (server.checkpoint_state) AddCheckpoint(server.checkpoint_state(), &json);
  for (size_t i = 0; i < std::size(kFieldNames); ++i) {
    const uint64_t n = server.statistics.count(static_cast<Request>(i));
    if (n != 0) json["requests"][kFieldNames[i]] = n;
  }
  json["bytes"] = {{"read", server.statistics.bytes_read()},
                   {"written", server.statistics.bytes_written()}};
  json["errors"] = {{"ENOSPC", server.statistics.out_of_space()},
                    {"EIO", server.statistics.io_errors()}};
  server.fs->Recheck();
  const pkram::Space::Counts pages = server.region->space().counts();
  const pkram::Loans::Counts loans = server.region->space().loans().counts();
  const FsStats stats = server.fs->StatFs();
  json["inodes"] = stats.used_inodes;
  json["pages"] = {{"total", pages.total}, {"metadata", pages.metadata},
                   {"data", pages.data},   {"free", pages.free},
                   {"limbo", pages.limbo}, {"reserved", pages.reserved},
                   {"lent", loans.lent},   {"held", loans.held}};
  json["journal_waits"] = server.region->journal().waits();
  const auto text = [&] {
    return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  };
  constexpr const char* kLong[] = {"/program", "/options/checkpoint", "/checkpoint/error",
                                   "/checkpoint/last/file"};
  for (const char* const at : kLong) {
    const nlohmann::ordered_json::json_pointer pointer(at);
    if (text().size() <= most) break;
    if (json.contains(pointer)) json[pointer] = "...";
  }
  return text();
}

}  // namespace pkramfs
