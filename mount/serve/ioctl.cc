// What pkramctl asks of a daemon (control.h).
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

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
  const absl::Status done = ServerOf(req)->fs->Resize(pages, inodes);
  const std::string_view error(done.message().data(), done.message().size());
  resize.error[error.copy(resize.error, sizeof(resize.error) - 1)] = 0;
  fuse_reply_ioctl(req, 0, &resize, sizeof(resize));
}

// The successor is to find it as it is, so it is noted while nothing changes.
void ReplyFreeze(fuse_req_t req, bool freeze) {
  Server* const server = ServerOf(req);
  int error = 0;
  if (freeze) {
    error = server->fs->Freeze() ? 0 : EBUSY;
    if (error == 0) server->in_flight->set_frozen(true);
  } else {
    server->in_flight->set_frozen(false);
    error = server->fs->Thaw() ? 0 : EINVAL;
  }
  error != 0 ? fuse_reply_err(req, error) : fuse_reply_ioctl(req, 0, nullptr, 0);
}

}  // namespace

void Ioctl(fuse_req_t req, fuse_ino_t, unsigned command, void*, fuse_file_info*, unsigned,
           const void* in, size_t in_size, size_t out_size) {
  Begin(req, Request::kIoctl);
  if (command == kControlStatistics && out_size >= sizeof(ControlReply)) {
    ReplyStatistics(req);
    return;
  }
  if (command != kControlResize && command != kControlFreeze && command != kControlThaw) {
    fuse_reply_err(req, ENOTTY);
    return;
  }
  const std::optional<uid_t> uid = UserOf(req);
  if (uid != uid_t{0} && uid != geteuid()) {
    fuse_reply_err(req, EPERM);
  } else if (command == kControlFreeze || command == kControlThaw) {
    ReplyFreeze(req, command == kControlFreeze);
  } else if (in_size < sizeof(ControlResize) || out_size < sizeof(ControlResize)) {
    fuse_reply_err(req, EINVAL);
  } else {
    ReplyResize(req, in);
  }
}

}  // namespace pkramfs::serve
