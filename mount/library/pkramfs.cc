// libpkramfs needs nothing but the C library, so that any program may load it.
#include "mount/library/pkramfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "mount/serve/control.h"

namespace {

using pkramfs::ControlHold;
using pkramfs::ControlKeep;
using pkramfs::kControlHold;
using pkramfs::kControlKeep;
using pkramfs::kControlMostHeld;

constexpr uint64_t kPage = 4096;

struct Mapping {
  size_t length;
  int region;  // whose locks hold the pages; -1: an ordinary one
};

struct Mappings {
  std::mutex mu;
  std::map<const void*, Mapping> all;
};
Mappings& All() {
  static Mappings* const mappings = new Mappings;  // for threads that outlive main
  return *mappings;
}

thread_local const char* why = "";

uint64_t RoundUp(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Decodes a character of a path in mountinfo that is written as \ooo.
std::string Unescaped(const char* text) {
  std::string path;
  for (; *text != 0; ++text) {
    if (text[0] == '\\' && text[1] != 0 && text[2] != 0 && text[3] != 0) {
      path += static_cast<char>((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
      text += 3;
    } else {
      path += *text;
    }
  }
  return path;
}

// Whether that path below /proc leads to the memfd of that name: the kernel shows the name, or an
// attribute has it (mount/region/memfd.cc).
bool IsMemfdAt(const std::string& path, const std::string& name) {
  char text[512];
  ssize_t size = readlink(path.c_str(), text, sizeof(text));
  const auto is = [&](const std::string& wanted) {
    return size > 0 && wanted == std::string(text, static_cast<size_t>(size));
  };
  if (is("/memfd:pkramfs:" + name + " (deleted)")) return true;
  if (!is("/ (deleted)") && !is("/memfd: (deleted)")) return false;
  size = getxattr(path.c_str(), "trusted.pkramfs.name", text, sizeof(text));
  return is(name);
}

// A path of the memfd that a region's word names; "" if no process of `owner` has it that can be
// seen.
std::string MemfdOf(const std::string& word, uid_t owner) {
  const std::string name = word.substr(6);
  std::string found;
  DIR* const proc = opendir("/proc");
  for (dirent* process; proc != nullptr && found.empty() && (process = readdir(proc)) != nullptr;) {
    if (process->d_name[0] < '0' || process->d_name[0] > '9') continue;
    const std::string directory = std::string("/proc/") + process->d_name + "/fd/";
    DIR* const fds = opendir(directory.c_str());
    for (dirent* fd; fds != nullptr && found.empty() && (fd = readdir(fds)) != nullptr;) {
      const std::string path = directory + fd->d_name;
      struct stat st;
      if (IsMemfdAt(path, name) && stat(path.c_str(), &st) == 0 && st.st_uid == owner) {
        found = path;
      }
    }
    if (fds != nullptr) closedir(fds);
  }
  if (proc != nullptr) closedir(proc);
  return found;
}

// The region's file of the pkramfs that a file is on, and the user who has mounted it.  "" if the
// file is on another filesystem.
std::string RegionOf(dev_t device, uid_t* owner) {
  FILE* const mounts = std::fopen("/proc/self/mountinfo", "re");
  if (mounts == nullptr) return "";
  std::string region;
  char* line = nullptr;
  size_t size = 0;
  while (region.empty() && getline(&line, &size, mounts) > 0) {
    unsigned major_number = 0, minor_number = 0;
    if (std::sscanf(line, "%*d %*d %u:%u", &major_number, &minor_number) != 2) continue;
    if (makedev(major_number, minor_number) != device) continue;
    const char* const fields = std::strstr(line, " - fuse.pkramfs ");
    const char* const user = fields == nullptr ? nullptr : std::strstr(fields, "user_id=");
    char source[4200];
    if (user == nullptr || std::sscanf(fields, " - fuse.pkramfs %4199s", source) != 1) continue;
    *owner = static_cast<uid_t>(std::strtoul(user + 8, nullptr, 10));
    region = Unescaped(source);
  }
  std::free(line);
  std::fclose(mounts);
  if (region.empty() || region[0] == '/') return region;
  if (region.starts_with("memfd:")) return MemfdOf(region, *owner);
  return region.starts_with("fd=") ? "" : "/dev/shm/" + region;
}

bool LockForReading(int region, const ControlHold::Piece& piece) {
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(piece.first * kPage);
  lock.l_len = static_cast<off_t>(piece.pages * kPage);
  return fcntl(region, F_OFD_SETLK, &lock) == 0;
}

// Checks a server's answer, because anybody may serve a mount: it must not harm this process.
bool IsPossible(const ControlHold& hold, uint64_t offset, uint64_t end, uint64_t region_pages) {
  if (hold.count > std::size(hold.piece)) return false;
  uint64_t at = offset;
  for (uint64_t i = 0; i < hold.count; ++i) {
    const ControlHold::Piece& piece = hold.piece[i];
    if (piece.offset % kPage != 0 || piece.offset < at || piece.offset >= RoundUp(end))
      return false;
    if (piece.pages == 0 || piece.pages > (RoundUp(end) - piece.offset) / kPage) return false;
    if (piece.first >= region_pages || piece.pages > region_pages - piece.first) return false;
    at = piece.offset + piece.pages * kPage;
  }
  return true;
}

// Returns 1 if all pieces are locked and kept, 0 if the caller must ask for them anew, and -1 with
// a reason on errors.
int LockAndKeep(int fd, const struct stat& region_is, int region, const ControlHold& hold) {
  for (uint64_t i = 0; i < hold.count; ++i) {
    const ControlHold::Piece& piece = hold.piece[i];
    if (!LockForReading(region, piece)) {
      why = "its pages cannot be locked";
      return -1;
    }
    ControlKeep keep{};
    keep.first = piece.first;
    keep.count = piece.pages;
    keep.reading = 1;
    keep.generation = hold.generation;
    if (ioctl(fd, kControlKeep, &keep) != 0) {
      why = "its pages cannot be held";
      return -1;
    }
    if (keep.device != region_is.st_dev || keep.inode != region_is.st_ino) {
      why = "the file that has its region's name is another one by now";
      return -1;
    }
    if (keep.kept == 0) return 0;
  }
  return 1;
}

// Finds the pieces of [offset, end), and locks and keeps each.  Returns 0, or -1 with a reason.
int HoldAll(int fd, const struct stat& region_is, int region, uint64_t offset, uint64_t end,
            std::vector<ControlHold::Piece>* all) {
  const auto hold = std::make_unique<ControlHold>();
  for (int tries = 0; offset < end; ++tries) {
    // A daemon that is short of pages forgets pages that are not locked yet.  So does its
    // successor.
    if (tries > 100) {
      why = "its pages are not held";
      return -1;
    }
    *hold = {};
    hold->offset = offset;
    hold->end = end;
    if (ioctl(fd, kControlHold, hold.get()) != 0) {
      why = errno == EPERM        ? "only root and who has mounted it may map its pages"
            : errno == EOPNOTSUPP ? "the file is so small that it has no pages"
            : errno == EMFILE     ? "4096 pieces of the region are mapped: no more can be"
            : errno == ENOTTY     ? "its daemon is too old for this"
                                  : "its pages cannot be held";
      return -1;
    }
    // The file's size now.
    struct stat now;
    if (fstat(region, &now) != 0) return -1;
    const bool is_device = S_ISCHR(now.st_mode);
    const uint64_t pages =
        is_device ? ~uint64_t{0} / kPage : static_cast<uint64_t>(now.st_size) / kPage;
    if (!IsPossible(*hold, offset, end, pages)) {
      why = "its daemon says what cannot be";
      return -1;
    }
    const int kept = LockAndKeep(fd, region_is, region, *hold);
    if (kept < 0) return -1;
    if (kept == 0) continue;
    tries = 0;
    all->insert(all->end(), hold->piece, hold->piece + hold->count);
    if (all->size() > kControlMostHeld) {
      why = "the file is in more than 4096 pieces";
      return -1;
    }
    // The file may have become shorter since.  Then the rest is a hole.
    end = std::min(end, hold->size);
    if (hold->offset <= offset) break;
    offset = hold->offset;
  }
  return 0;
}

void* MapPieces(int region, uint64_t offset, size_t length,
                const std::vector<ControlHold::Piece>& pieces) {
  // Pieces are mapped over this.  What is left of it are the holes.
  void* const base = mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return base;
  for (const ControlHold::Piece& piece : pieces) {
    const uint64_t at = piece.offset - offset;
    const size_t size = std::min<uint64_t>(piece.pages * kPage, RoundUp(length) - at);
    if (mmap(static_cast<char*>(base) + at, size, PROT_READ, MAP_SHARED | MAP_FIXED, region,
             static_cast<off_t>(piece.first * kPage)) == MAP_FAILED) {
      const int error = errno;
      munmap(base, length);
      errno = error;
      return MAP_FAILED;
    }
  }
  return base;
}

// Maps the region's own pages.  MAP_FAILED, with a reason, where only an ordinary mapping is
// possible.
void* MapOwnPages(int fd, const struct stat& st, uint64_t offset, size_t length, int* region) {
  uid_t owner = 0;
  const std::string path = RegionOf(st.st_dev, &owner);
  if (path.empty()) {
    why = "the file is on no pkramfs that is mounted here";
    return MAP_FAILED;
  }
  *region = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (*region < 0) {
    why = "its region cannot be opened";
    return MAP_FAILED;
  }
  // Anybody may say of a mount of their own that it is of this region.
  struct stat its;
  if (fstat(*region, &its) != 0 || (owner != 0 && its.st_uid != owner)) {
    why = "its region belongs to somebody else than who has mounted it";
    return MAP_FAILED;
  }
  // Data that only the kernel's cache has is written to the region first.
  if (fdatasync(fd) != 0 && errno == EIO) {
    why = "what was written cannot be sent";
    return MAP_FAILED;
  }
  std::vector<ControlHold::Piece> pieces;
  if (HoldAll(fd, its, *region, offset, offset + length, &pieces) != 0) return MAP_FAILED;
  void* const address = MapPieces(*region, offset, length, pieces);
  if (address == MAP_FAILED) why = "its pages cannot be mapped";
  return address;
}

}  // namespace

void* pkramfs_map(int fd, uint64_t offset, size_t length, int* how) {
  why = "";
  struct stat st;
  if (fstat(fd, &st) != 0) return MAP_FAILED;
  const auto size = static_cast<uint64_t>(st.st_size);
  if (!S_ISREG(st.st_mode) || offset % kPage != 0 || offset >= size) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  if (length == 0 || length > size - offset) length = size - offset;
  try {
    int region = -1;
    void* address = MapOwnPages(fd, st, offset, length, &region);
    if (address == MAP_FAILED) {
      if (region >= 0) close(region);
      region = -1;
      address = mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
      if (address == MAP_FAILED) return address;
    }
    if (how != nullptr) *how = region >= 0 ? PKRAMFS_OWN_PAGES : PKRAMFS_ORDINARY;
    const std::lock_guard lock(All().mu);
    All().all[address] = {length, region};
    return address;
  } catch (const std::bad_alloc&) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
}

const char* pkramfs_why(void) { return why; }

int pkramfs_unmap(void* address) {
  Mapping mapping;
  {
    const std::lock_guard lock(All().mu);
    const auto it = All().all.find(address);
    if (it == All().all.end()) {
      errno = EINVAL;
      return -1;
    }
    mapping = it->second;
    All().all.erase(it);
  }
  const int result = munmap(address, mapping.length);
  if (mapping.region >= 0) close(mapping.region);
  return result;
}

size_t pkramfs_length(const void* address) {
  const std::lock_guard lock(All().mu);
  const auto it = All().all.find(address);
  return it == All().all.end() ? 0 : it->second.length;
}
