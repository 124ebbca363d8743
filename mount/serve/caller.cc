#include "mount/serve/caller.h"

#include <linux/fuse.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mount/region/file_clock.h"

namespace pkramfs {
namespace {

// As <linux/fuse.h> has them; older ones do not.
constexpr uint32_t kWriteKillsPrivileges = 1u << 2;
constexpr uint32_t kSetAttrKillsPrivileges = 1u << 11;

thread_local InFlight::Slot* current = nullptr;
thread_local bool current_is_executed = false;

struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// The /proc file of a thread.  Its filesystem ids count.
std::optional<Credentials> CredentialsOf(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  std::ifstream in(absl::StrCat("/proc/", pid, "/status"));
  Credentials found;
  bool has_uid = false, has_gid = false;
  for (std::string line; std::getline(in, line);) {
    unsigned real, effective, saved, fs;
    const char* const text = line.c_str();
    if (std::sscanf(text, "Uid: %u %u %u %u", &real, &effective, &saved, &fs) == 4) {
      found.uid = fs;
      has_uid = true;
    } else if (std::sscanf(text, "Gid: %u %u %u %u", &real, &effective, &saved, &fs) == 4) {
      found.gid = fs;
      has_gid = true;
    } else if (line.rfind("Groups:", 0) == 0) {
      std::istringstream groups(line.substr(7));
      for (gid_t group; groups >> group;) found.groups.push_back(group);
      break;
    }
  }
  if (!has_uid || !has_gid) return std::nullopt;
  return found;
}

// Whether the kernel says that set-id bits must be dropped, because the caller does not have
// CAP_FSETID. Nothing for requests in which it says neither.
std::optional<bool> KernelDropsSetId() {
  if (current == nullptr) return std::nullopt;
  const fuse_in_header& header = current->header();
  const char* const body = current->request() + sizeof(header);
  const size_t size = header.len - sizeof(header);
  uint32_t flags;
  if (header.opcode == FUSE_WRITE && size >= sizeof(fuse_write_in)) {
    std::memcpy(&flags, body + offsetof(fuse_write_in, write_flags), sizeof(flags));
    return (flags & kWriteKillsPrivileges) != 0;
  }
  if (header.opcode == FUSE_SETATTR && size >= sizeof(fuse_setattr_in)) {
    std::memcpy(&flags, body + offsetof(fuse_setattr_in, valid), sizeof(flags));
    if ((flags & FATTR_SIZE) != 0) return (flags & kSetAttrKillsPrivileges) != 0;
  }
  return std::nullopt;
}

std::string TextOf(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// The rest of the line that begins with `name`; nothing when there is none.
std::string FieldOf(const std::string& path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(name, 0) == 0) return line.substr(name.size());
  }
  return "";
}

Membership HasGroup(fuse_req_t req, gid_t group) {
  const std::optional<Credentials> caller = CredentialsOf(fuse_req_ctx(req)->pid);
  if (!caller) return Membership::kUnknown;
  const bool is_member = caller->gid == group || std::ranges::count(caller->groups, group) > 0;
  return is_member ? Membership::kYes : Membership::kNo;
}

}  // namespace

std::optional<uid_t> UserOf(fuse_req_t req) {
  const fuse_ctx* const ctx = fuse_req_ctx(req);
  if (ctx->uid != static_cast<uid_t>(-1)) return ctx->uid;
  const std::optional<Credentials> caller = CredentialsOf(ctx->pid);
  if (!caller) return std::nullopt;
  return caller->uid;
}

bool MayNamePaths(fuse_req_t req) {
  constexpr int kSysAdmin = 21;
  const std::string proc = "/proc/" + std::to_string(fuse_req_ctx(req)->pid);
  if (TextOf(proc + "/uid_map") != TextOf("/proc/self/uid_map")) return false;
  const std::string namespaces = FieldOf(proc + "/status", "NSpid:");
  // One number: the caller is in the same pid namespace.
  std::istringstream numbers(namespaces);
  std::string number, more;
  if (!(numbers >> number) || numbers >> more) return false;
  const uint64_t capabilities =
      std::strtoull(FieldOf(proc + "/status", "CapEff:").c_str(), nullptr, 16);
  return UserOf(req) != uid_t{0} || (capabilities >> kSysAdmin & 1) != 0;
}

Context ContextOf(fuse_req_t req) {
  const fuse_ctx* const ctx = fuse_req_ctx(req);
  return {.uid = ctx->uid,
          .gid = ctx->gid,
          .now = FileTime(),
          .umask = ctx->umask,
          .receipt = current == nullptr ? nullptr : &current->receipt,
          .is_root = [req] { return UserOf(req) == uid_t{0}; },
          .keeps_set_id =
              [req] {
                const std::optional<bool> drops = KernelDropsSetId();
                return drops ? !*drops : UserOf(req) == uid_t{0};
              },
          .has_group = [req](gid_t group) { return HasGroup(req, group); }};
}

CurrentRequest::CurrentRequest(InFlight::Slot* slot) {
  current = slot;
  current_is_executed = slot->receipt.done != 0;
}
CurrentRequest::~CurrentRequest() { current = nullptr; }
InFlight::Slot* CurrentRequest::Get() { return current; }
bool CurrentRequest::IsExecuted() { return current_is_executed; }

}  // namespace pkramfs
