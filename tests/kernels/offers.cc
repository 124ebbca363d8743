// Prints what this kernel's first request on a FUSE connection offers.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

int main() {
  char directory[] = "/tmp/offers-XXXXXX";
  const int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse < 0 || mkdtemp(directory) == nullptr) {
    std::perror("offers");
    return 1;
  }
  const std::string options = "fd=" + std::to_string(fuse) + ",rootmode=40000,user_id=0,group_id=0";
  if (mount("offers", directory, "fuse", 0, options.c_str()) != 0) {
    std::perror("offers: mount");
    return 1;
  }
  char request[FUSE_MIN_READ_BUFFER] = {};
  const ssize_t size = read(fuse, request, sizeof(request));
  close(fuse);
  umount2(directory, MNT_DETACH);
  rmdir(directory);
  fuse_init_in init{};
  if (size < static_cast<ssize_t>(sizeof(fuse_in_header) + sizeof(init))) return 1;
  std::memcpy(&init, request + sizeof(fuse_in_header), sizeof(init));
  constexpr const char* kNames[64] = {"ASYNC_READ",
                                      "POSIX_LOCKS",
                                      "FILE_OPS",
                                      "ATOMIC_O_TRUNC",
                                      "EXPORT_SUPPORT",
                                      "BIG_WRITES",
                                      "DONT_MASK",
                                      "SPLICE_WRITE",
                                      "SPLICE_MOVE",
                                      "SPLICE_READ",
                                      "FLOCK_LOCKS",
                                      "HAS_IOCTL_DIR",
                                      "AUTO_INVAL_DATA",
                                      "DO_READDIRPLUS",
                                      "READDIRPLUS_AUTO",
                                      "ASYNC_DIO",
                                      "WRITEBACK_CACHE",
                                      "NO_OPEN_SUPPORT",
                                      "PARALLEL_DIROPS",
                                      "HANDLE_KILLPRIV",
                                      "POSIX_ACL",
                                      "ABORT_ERROR",
                                      "MAX_PAGES",
                                      "CACHE_SYMLINKS",
                                      "NO_OPENDIR_SUPPORT",
                                      "EXPLICIT_INVAL_DATA",
                                      "MAP_ALIGNMENT",
                                      "SUBMOUNTS",
                                      "HANDLE_KILLPRIV_V2",
                                      "SETXATTR_EXT",
                                      "INIT_EXT",
                                      nullptr,
                                      "SECURITY_CTX",
                                      "HAS_INODE_DAX",
                                      "CREATE_SUPP_GROUP",
                                      "HAS_EXPIRE_ONLY",
                                      "DIRECT_IO_ALLOW_MMAP",
                                      "PASSTHROUGH",
                                      "NO_EXPORT_SUPPORT",
                                      "HAS_RESEND",
                                      "ALLOW_IDMAP",
                                      "OVER_IO_URING",
                                      "REQUEST_TIMEOUT"};
  const uint64_t flags = init.flags | uint64_t{init.flags2} << 32;
  std::printf("  protocol %" PRIu32 ".%" PRIu32 ", flags %#" PRIx64 "\n  offered:", init.major,
              init.minor, flags);
  for (int bit = 0; bit < 64; ++bit) {
    if ((flags >> bit & 1) == 0) continue;
    std::printf(" %s", kNames[bit] != nullptr ? kNames[bit] : std::to_string(bit).c_str());
  }
  std::printf("\n  not offered:");
  for (int bit = 0; bit < 64; ++bit) {
    if ((flags >> bit & 1) == 0 && kNames[bit] != nullptr) std::printf(" %s", kNames[bit]);
  }
  std::printf("\n");
  return 0;
}
