#include "pkram/page_locks.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace pkram {
namespace {

struct flock LockOf(PageRun run, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(run.first.offset());
  lock.l_len = static_cast<off_t>(run.count << kPageShift);
  return lock;
}

}  // namespace

std::vector<LockedPages> FindLockedPages(int fd, PageRun within) {
  std::vector<LockedPages> found;
  // The kernel names any lock that is in the way, not the first one.  So the parts before and
  // behind it are asked for, too.
  std::vector<PageRun> open{within};
  while (!open.empty()) {
    const PageRun run = open.back();
    open.pop_back();
    if (run.count == 0) continue;
    struct flock lock = LockOf(run, F_WRLCK);
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) continue;
    const uint64_t end = run.first.value() + run.count;
    const auto start = static_cast<uint64_t>(lock.l_start),
               length = static_cast<uint64_t>(lock.l_len);
    const uint64_t from = std::max(run.first.value(), start >> kPageShift);
    const uint64_t to = length == 0 ? end : std::min(end, PagesFor(start + length));
    found.push_back(
        {{Pfn(from), to - from}, lock.l_type == F_WRLCK ? PageUse::kBuilding : PageUse::kReading});
    open.push_back({Pfn(to), end - to});
    open.push_back({run.first, from - run.first.value()});
  }
  std::sort(found.begin(), found.end(),
            [](const LockedPages& a, const LockedPages& b) { return a.run.first < b.run.first; });
  return found;
}

absl::Status LockPages(int fd, PageRun run, PageUse use) {
  struct flock lock = LockOf(run, use == PageUse::kBuilding ? F_WRLCK : F_RDLCK);
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot lock pages ", run.first.value(), " to ",
                                             run.first.value() + run.count - 1, ": ",
                                             std::strerror(errno)));
}

void UnlockPages(int fd, PageRun run) {
  struct flock lock = LockOf(run, F_UNLCK);
  fcntl(fd, F_OFD_SETLK, &lock);
}

}  // namespace pkram
