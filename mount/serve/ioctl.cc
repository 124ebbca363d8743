// What pkramctl asks of a daemon (control.h).
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "mount/region/region_file.h"
#include "mount/serve/caller.h"
#include "mount/serve/control.h"
#include "mount/serve/handlers.h"
#include "mount/serve/request.h"

namespace pkramfs::serve {

namespace {

void ReplyStatistics(fuse_req_t req) {
  Server* const server = ServerOf(req);
  const std::string json = Describe(*server);
  ControlReply reply{};
  reply.size = static_cast<uint32_t>(std::min(json.size(), sizeof(reply.json)));
  std::memcpy(reply.json, json.data(), reply.size);
  fuse_reply_ioctl(req, 0, &reply, sizeof(reply));
}

void ReplyResize(fuse_req_t req, const void* in) {
  ControlResize resize;
  std::memcpy(&resize, in, sizeof(resize));
  std::optional<uint64_t> pages, inodes;
  if (resize.size != kControlKeep) pages = RegionPages(resize.size);
  if (resize.inodes != kControlKeep) inodes = resize.inodes;
  Server* const server = ServerOf(req);
  const absl::Status done = server->fs->Resize(pages, inodes);
  if (done.ok() && inodes) server->in_flight->set_max_inodes(*inodes);
  std::string error(done.message());
  if (done.ok() && server->resized) {
    if (const std::string warning = server->resized(); !warning.empty()) {
      error = kControlWarning + warning;
    }
  }
  resize.error[error.copy(resize.error, sizeof(resize.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &resize, sizeof(resize));
}

void ReplyLock(fuse_req_t req, const void* in) {
  ControlLock lock;
  std::memcpy(&lock, in, sizeof(lock));
  Server* const server = ServerOf(req);
  absl::Status done;
  if (lock.locks != 0) {
    done = server->region->LockInMemory();
  } else {
    server->region->UnlockFromMemory();
  }
  if (done.ok()) server->in_flight->set_locks_memory(lock.locks != 0);
  const std::string_view error(done.message().data(), done.message().size());
  lock.error[error.copy(lock.error, sizeof(lock.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &lock, sizeof(lock));
}

// The successor is to find it as it is, so it is noted while nothing changes.  And a request that a
// predecessor has executed is not executed again: to freeze twice is an error.
int Freeze(Server* server, uint64_t unique) {
  if (server->in_flight->WasFrozenBy(unique)) return 0;
  if (!server->fs->Freeze()) return EBUSY;
  server->in_flight->NoteFrozen(unique);
  return 0;
}

int Thaw(Server* server, uint64_t unique) {
  if (server->in_flight->WasThawedBy(unique)) return 0;
  if (!server->in_flight->frozen()) return EINVAL;
  server->in_flight->NoteThawed(unique);
  return server->fs->Thaw() ? 0 : EINVAL;
}

void ReplyFreeze(fuse_req_t req, bool freeze) {
  const uint64_t unique = CurrentRequest::Get()->header().unique;
  const int error = (freeze ? Freeze : Thaw)(ServerOf(req), unique);
  error != 0 ? fuse_reply_err(req, error) : fuse_reply_ioctl(req, 0, nullptr, 0);
}

// What a slot's receipt says of a request for which its server has ended.
constexpr uint64_t kUpgrading = 1;

// Why the program that was asked for does not serve, or nothing.
std::string Upgrade(Server* server, const std::string& program) {
  pkram::Receipt& receipt = CurrentRequest::Get()->receipt;
  if (receipt.next == kUpgrading) {
    // This process is the answer.
    if (server->in_flight->upgrade() == InFlight::Upgrade::kDone) return "";
    return program +
           " could not take over, and the program that was there goes on: its log says why";
  }
  if (!server->upgrade) {
    return "the mount has no keeper (notakeover): unmount it, and mount it again";
  }
  server->in_flight->set_upgrade(InFlight::Upgrade::kNone);
  receipt.next = kUpgrading;
  return std::string(server->upgrade(program).message());
}

void ReplyUpgrade(fuse_req_t req, const void* in) {
  if (!MayChooseProgram(req)) {
    fuse_reply_err(req, EPERM);
    return;
  }
  ControlUpgrade upgrade;
  std::memcpy(&upgrade, in, sizeof(upgrade));
  const std::string program(upgrade.program, strnlen(upgrade.program, sizeof(upgrade.program)));
  const std::string error = Upgrade(ServerOf(req), program);
  upgrade.error[error.copy(upgrade.error, sizeof(upgrade.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &upgrade, sizeof(upgrade));
}

}  // namespace

void Ioctl(fuse_req_t req, fuse_ino_t, unsigned command, void*, fuse_file_info*, unsigned,
           const void* in, size_t in_size, size_t out_size) {
  Begin(req, Request::kIoctl);
  if (command == kControlStatistics && out_size >= sizeof(ControlReply)) {
    ReplyStatistics(req);
    return;
  }
  const size_t size = command == kControlResize    ? sizeof(ControlResize)
                      : command == kControlUpgrade ? sizeof(ControlUpgrade)
                      : command == kControlLock    ? sizeof(ControlLock)
                                                   : 0;
  if (size == 0 && command != kControlFreeze && command != kControlThaw) {
    fuse_reply_err(req, ENOTTY);
    return;
  }
  const std::optional<uid_t> uid = UserOf(req);
  if (uid != uid_t{0} && uid != geteuid()) {
    fuse_reply_err(req, EPERM);
  } else if (size == 0) {
    ReplyFreeze(req, command == kControlFreeze);
  } else if (in_size < size || out_size < size) {
    fuse_reply_err(req, EINVAL);
  } else {
    const auto reply = command == kControlResize ? ReplyResize
                       : command == kControlLock ? ReplyLock
                                                 : ReplyUpgrade;
    reply(req, in);
  }
}

}  // namespace pkramfs::serve
