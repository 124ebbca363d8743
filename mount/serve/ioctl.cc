// Handlers for what pkramctl asks of a daemon (control.h).
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mount/region/region_file.h"
#include "mount/serve/caller.h"
#include "mount/serve/control.h"
#include "mount/serve/handlers.h"
#include "mount/serve/request.h"

namespace pkramfs::serve {

namespace {

static_assert(kControlMostHeld == pkram::Loans::kMostPieces);

void ReplyStatistics(fuse_req_t req) {
  Server* const server = ServerOf(req);
  ControlReply reply{};
  const std::string json = Describe(*server, sizeof(reply.json));
  reply.size = static_cast<uint32_t>(std::min(json.size(), sizeof(reply.json)));
  std::memcpy(reply.json, json.data(), reply.size);
  fuse_reply_ioctl(req, 0, &reply, sizeof(reply));
}

void ReplyResize(fuse_req_t req, fuse_ino_t, const void* in) {
  ControlResize resize;
  std::memcpy(&resize, in, sizeof(resize));
  std::optional<uint64_t> pages, inodes;
  if (resize.size != kControlAsItIs) pages = RegionPages(resize.size);
  if (resize.inodes != kControlAsItIs) inodes = resize.inodes;
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

void ReplyLock(fuse_req_t req, fuse_ino_t, const void* in) {
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

// A freeze is noted while nothing changes, so that a successor finds it.  A request that a
// predecessor has executed is not executed again, because freezing twice is an error.
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

// What a slot's receipt says about an upgrade: the server has ended for it.
constexpr uint64_t kUpgrading = 1;

// Says why the new program does not serve, or nothing.
std::string Upgrade(Server* server, const std::string& program) {
  pkram::Receipt& receipt = CurrentRequest::Get()->receipt;
  if (receipt.next == kUpgrading) {
    // This process is the new program.
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

void ReplyUpgrade(fuse_req_t req, fuse_ino_t, const void* in) {
  if (!MayNamePaths(req)) {
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

// A request that a predecessor had begun is begun again.
void ReplyCheckpoint(fuse_req_t req, fuse_ino_t, const void* in) {
  ControlCheckpoint checkpoint;
  std::memcpy(&checkpoint, in, sizeof(checkpoint));
  const std::string file(checkpoint.file, strnlen(checkpoint.file, sizeof(checkpoint.file)));
  if (!file.empty() && !MayNamePaths(req)) {
    fuse_reply_err(req, EPERM);
    return;
  }
  const auto made = ServerOf(req)->checkpoint(
      file, [req](uint64_t, uint64_t) { return fuse_req_interrupted(req) == 0; });
  if (absl::IsCancelled(made.status())) {
    fuse_reply_err(req, EINTR);
    return;
  }
  const auto microseconds = [](std::chrono::nanoseconds time) {
    return static_cast<uint64_t>(time.count()) / 1000;
  };
  if (made.ok()) {
    checkpoint.pages = made->pages;
    checkpoint.written = made->written;
    checkpoint.rest_us = microseconds(made->rest);
    checkpoint.took_us = microseconds(made->all);
  }
  const std::string error(made.status().message());
  checkpoint.error[error.copy(checkpoint.error, sizeof(checkpoint.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &checkpoint, sizeof(checkpoint));
}

// Lends pages.  If the server dies before they are locked, its successor does not know of them, and
// lends others.
void ReplyLend(fuse_req_t req, fuse_ino_t, const void* in) {
  ControlLend lend;
  std::memcpy(&lend, in, sizeof(lend));
  const absl::StatusOr<pkram::PageRun> run = ServerOf(req)->region->space().Lend(lend.want);
  lend.first = run.ok() ? run->first.value() : 0;
  lend.count = run.ok() ? run->count : 0;
  const std::string error(run.status().message());
  lend.error[error.copy(lend.error, sizeof(lend.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &lend, sizeof(lend));
}

void ReplyKeep(fuse_req_t req, fuse_ino_t, const void* in) {
  ControlKeep keep;
  std::memcpy(&keep, in, sizeof(keep));
  const pkram::PageRun run{pkram::Pfn(keep.first), keep.count};
  const auto use = keep.reading != 0 ? pkram::PageUse::kReading : pkram::PageUse::kBuilding;
  pkram::Region* const region = ServerOf(req)->region;
  const auto generation = keep.reading != 0 ? std::optional(keep.generation) : std::nullopt;
  keep.kept = region->space().loans().Keep({&run, 1}, use, generation) ? 1 : 0;
  struct stat st {};
  fstat(region->backing().fd(), &st);
  keep.device = st.st_dev;
  keep.inode = st.st_ino;
  fuse_reply_ioctl(req, 0, &keep, sizeof(keep));
}

void ReplyHold(fuse_req_t req, fuse_ino_t ino, const void* in) {
  auto hold = std::make_unique<ControlHold>();
  std::memcpy(hold.get(), in, sizeof(*hold));
  const pkram::Loans& loans = ServerOf(req)->region->space().loans();
  if (loans.IsFull()) ServerOf(req)->fs->Recheck();
  if (loans.IsFull()) {
    ReplyError(req, EMFILE);
    return;
  }
  // Before they are noted.
  hold->generation = loans.generation();
  const Result<HeldPages> held =
      ServerOf(req)->fs->Hold(ino, hold->offset, hold->end, std::size(hold->piece));
  if (!held.ok()) {
    ReplyError(req, held.error());
    return;
  }
  hold->offset = held->next;
  hold->size = held->size;
  hold->count = held->pieces.size();
  for (size_t i = 0; i < held->pieces.size(); ++i) {
    const HeldPages::Piece& piece = held->pieces[i];
    hold->piece[i] = {piece.offset, piece.run.first.value(), piece.run.count};
  }
  fuse_reply_ioctl(req, 0, hold.get(), sizeof(*hold));
}

void ReplyHoldPages(fuse_req_t req, fuse_ino_t, const void* in) {
  auto hold = std::make_unique<ControlHoldPages>();
  std::memcpy(hold.get(), in, sizeof(*hold));
  std::vector<pkram::PageRun> runs;
  for (uint64_t i = 0; i < std::min<uint64_t>(hold->count, std::size(hold->run)); ++i) {
    runs.push_back({pkram::Pfn(hold->run[i].first), hold->run[i].pages});
  }
  hold->kept = ServerOf(req)->fs->HoldAtRest(runs) ? 1 : 0;
  fuse_reply_ioctl(req, 0, hold.get(), sizeof(*hold));
}

void ReplyRest(fuse_req_t req, fuse_ino_t, const void* in) {
  ControlRest rest;
  std::memcpy(&rest, in, sizeof(rest));
  const bool rested = ServerOf(req)->fs->RestWhileLocked(
      pkram::Pfn(rest.page), rest.token, [req] { return fuse_req_interrupted(req) != 0; });
  rested ? fuse_reply_ioctl(req, 0, &rest, sizeof(rest)) : fuse_reply_err(req, EINVAL);
}

void ReplyStage(fuse_req_t req, fuse_ino_t ino, const void* in) {
  ControlStage stage;
  std::memcpy(&stage, in, sizeof(stage));
  const absl::Status staged = ServerOf(req)->fs->StageTree(
      {pkram::Pfn(stage.node), stage.links, stage.inodes}, ino, stage.token);
  const std::string error(staged.message());
  stage.error[error.copy(stage.error, sizeof(stage.error) - 1)] = 0;
  const std::string name = Filesystem::StagedName(stage.token);
  stage.name[name.copy(stage.name, sizeof(stage.name) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &stage, sizeof(stage));
}

void ReplyDiscard(fuse_req_t req, fuse_ino_t ino, const void* in) {
  ControlDiscard discard;
  std::memcpy(&discard, in, sizeof(discard));
  discard.name[sizeof(discard.name) - 1] = 0;
  ServerOf(req)->fs->DiscardStaged(ino, discard.name);
  fuse_reply_ioctl(req, 0, &discard, sizeof(discard));
}

// The ioctls with an argument, which only root and the user who mounted may ask for.
struct Change {
  unsigned command;
  size_t size;
  void (*reply)(fuse_req_t req, fuse_ino_t ino, const void* in);
};
constexpr Change kChanges[] = {
    {kControlResize, sizeof(ControlResize), ReplyResize},
    {kControlUpgrade, sizeof(ControlUpgrade), ReplyUpgrade},
    {kControlLock, sizeof(ControlLock), ReplyLock},
    {kControlCheckpoint, sizeof(ControlCheckpoint), ReplyCheckpoint},
    {kControlLend, sizeof(ControlLend), ReplyLend},
    {kControlKeep, sizeof(ControlKeep), ReplyKeep},
    {kControlHold, sizeof(ControlHold), ReplyHold},
    {kControlHoldPages, sizeof(ControlHoldPages), ReplyHoldPages},
    {kControlRest, sizeof(ControlRest), ReplyRest},
    {kControlStage, sizeof(ControlStage), ReplyStage},
    {kControlDiscard, sizeof(ControlDiscard), ReplyDiscard},
};

}  // namespace

void Ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void*, fuse_file_info*, unsigned,
           const void* in, size_t in_size, size_t out_size) {
  Begin(req, Request::kIoctl);
  if (command == kControlStatistics && out_size >= sizeof(ControlReply)) {
    ReplyStatistics(req);
    return;
  }
  const Change* const change = std::ranges::find(kChanges, command, &Change::command);
  const bool freezes = command == kControlFreeze || command == kControlThaw;
  if (change == std::end(kChanges) && !freezes) {
    fuse_reply_err(req, ENOTTY);
    return;
  }
  const std::optional<uid_t> uid = UserOf(req);
  if (uid != uid_t{0} && uid != geteuid()) {
    fuse_reply_err(req, EPERM);
  } else if (freezes) {
    ReplyFreeze(req, command == kControlFreeze);
  } else if (in_size < change->size || out_size < change->size) {
    fuse_reply_err(req, EINVAL);
  } else {
    change->reply(req, ino, in);
  }
}

}  // namespace pkramfs::serve
