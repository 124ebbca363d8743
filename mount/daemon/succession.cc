#include "mount/daemon/succession.h"

#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "mount/daemon/log.h"

namespace pkramfs {

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

void Succession::HandOver() {
  pkram::MutexLock lock(&mu_);
  if (link_) link_->HandOver(service_->estate());
}

absl::Status Succession::MakeWayFor(const std::string& path) {
  const absl::StatusOr<Program> other = program_.Other(path);
  if (!other.ok()) return other.status();
  pkram::MutexLock lock(&mu_);
  if (!link_ || !link_->HandOver(other->file())) {
    return absl::UnavailableError("the keeper has ended: try again, or unmount it");
  }
  // What is in flight is the successor's, as if this process had been killed.
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
  } else {
    Log(LOG_ERR, absl::StrCat(where_, ": the keeper ended, and there is no other: ",
                              std::string(failed.message())));
  }
}

absl::Status Succession::ServeToTheEnd() {
  while (service_->session().WaitToEnd(link_fd_) == Threads::Wake::kLinkClosed) ReplaceKeeper();
  const absl::Status ended = service_->End();
  if (ended.ok()) Log(LOG_INFO, absl::StrCat(where_, ": unmounted"));
  return ended;
}

}  // namespace pkramfs
