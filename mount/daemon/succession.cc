#include "mount/daemon/succession.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/daemon/log.h"

namespace pkramfs {
namespace {

constexpr int kFirstRetry = 100;  // milliseconds
constexpr int kLastRetry = 60'000;

}  // namespace

Succession::Succession(std::unique_ptr<Service> service, std::string where, const Program& program,
                       std::optional<Link> link)
    : where_(std::move(where)),
      program_(program),
      link_(std::move(link)),
      link_fd_(link_ ? link_->fd() : -1),
      service_(std::move(service)) {
  if (link_fd_ < 0) return;
  service_->in_flight().set_keeper(getppid());
  service_->set_upgrade([this](const std::string& path) { return MakeWayFor(path); });
}

bool Succession::HandOver() {
  pkram::MutexLock lock(&mu_);
  return link_ && link_->HandOver(service_->estate());
}

absl::Status Succession::MakeWayFor(const std::string& path) {
  const absl::StatusOr<Program> other = program_.Other(path);
  if (!other.ok()) return other.status();
  struct stat st;
  if (fstat(other->file().get(), &st) == 0 &&
      absl::StrCat(major(st.st_dev), ":", minor(st.st_dev)) == service_->session().mount().device) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": it is on the mount itself: copy it elsewhere"));
  }
  pkram::MutexLock lock(&mu_);
  if (!link_ || !link_->HandOver(other->file())) {
    return absl::UnavailableError("the keeper has ended: try again, or unmount it");
  }
  // Requests in flight are left to the successor, as if this process had been killed.
  _exit(0);
}

void Succession::ReplaceKeeper() {
  if (keeper_ != 0) waitpid(keeper_, nullptr, 0);
  keeper_ = 0;
  absl::Status failed;
  {
    pkram::MutexLock lock(&mu_);
    link_.reset();
    absl::StatusOr<Link> anew = program_.StartHeir("--keeper", service_->estate(), &keeper_);
    if (anew.ok()) {
      link_ = *std::move(anew);
    } else {
      failed = anew.status();
    }
    link_fd_ = link_ ? link_->fd() : -1;
  }
  service_->in_flight().set_keeper(keeper_);
  if (failed.ok()) {
    Log(LOG_WARNING, absl::StrCat(where_, ": the keeper ended, and there is another"));
    retry_in_ = -1;
    return;
  }
  // Memory and processes may be there again later.
  if (retry_in_ < 0) {
    Log(LOG_ERR,
        absl::StrCat(where_, ": the keeper ended, and there is no other yet: ",
                     std::string(failed.message()), ": if the server dies now, the mount is dead"));
  }
  retry_in_ = retry_in_ < 0 ? kFirstRetry : std::min(2 * retry_in_, kLastRetry);
}

absl::Status Succession::ServeToTheEnd() {
  while (service_->session().WaitToEnd(link_fd_, retry_in_) != Threads::Wake::kEnd) ReplaceKeeper();
  const absl::Status ended = service_->End();
  // A keeper that has ended meanwhile cannot leave a holder.
  pollfd keeper{link_fd_, POLLIN, 0};
  if (link_fd_ < 0 || (poll(&keeper, 1, 0) > 0 && (keeper.revents & POLLHUP) != 0)) {
    service_->HoldRegion();
  }
  if (ended.ok()) Log(LOG_INFO, absl::StrCat(where_, ": unmounted"));
  return ended;
}

}  // namespace pkramfs
