// Requests with hostile arguments, to every handler and ioctl: what a program may get the
// kernel to send, so lengths are right and names are names, and everything else is anything.
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstring>

#include "mount/serve/caller.h"
#include "mount/serve/control.h"
#include "mount/serve/in_flight.h"
#include "mount/serve/server.h"
#include "tests/fs_fixture.h"
#include "tests/fuzz/targets.h"

namespace pkramfs {
namespace {

// What follows the header of a request: a struct, then as many names, or a payload.
struct Shape {
  uint32_t opcode;
  size_t arguments;
  int names;
};
constexpr Shape kShapes[] = {
    {FUSE_LOOKUP, 0, 1},
    {FUSE_FORGET, sizeof(fuse_forget_in), 0},
    {FUSE_GETATTR, sizeof(fuse_getattr_in), 0},
    {FUSE_SETATTR, sizeof(fuse_setattr_in), 0},
    {FUSE_READLINK, 0, 0},
    {FUSE_SYMLINK, 0, 2},
    {FUSE_MKNOD, sizeof(fuse_mknod_in), 1},
    {FUSE_MKDIR, sizeof(fuse_mkdir_in), 1},
    {FUSE_UNLINK, 0, 1},
    {FUSE_RMDIR, 0, 1},
    {FUSE_RENAME2, sizeof(fuse_rename2_in), 2},
    {FUSE_LINK, sizeof(fuse_link_in), 1},
    {FUSE_OPEN, sizeof(fuse_open_in), 0},
    {FUSE_READ, sizeof(fuse_read_in), 0},
    {FUSE_WRITE, sizeof(fuse_write_in), 0},
    {FUSE_STATFS, 0, 0},
    {FUSE_RELEASE, sizeof(fuse_release_in), 0},
    {FUSE_FSYNC, sizeof(fuse_fsync_in), 0},
    {FUSE_SETXATTR, FUSE_COMPAT_SETXATTR_IN_SIZE, 1},
    {FUSE_GETXATTR, sizeof(fuse_getxattr_in), 1},
    {FUSE_LISTXATTR, sizeof(fuse_getxattr_in), 0},
    {FUSE_REMOVEXATTR, 0, 1},
    {FUSE_FLUSH, sizeof(fuse_flush_in), 0},
    {FUSE_OPENDIR, sizeof(fuse_open_in), 0},
    {FUSE_READDIR, sizeof(fuse_read_in), 0},
    {FUSE_READDIRPLUS, sizeof(fuse_read_in), 0},
    {FUSE_RELEASEDIR, sizeof(fuse_release_in), 0},
    {FUSE_FSYNCDIR, sizeof(fuse_fsync_in), 0},
    {FUSE_CREATE, sizeof(fuse_create_in), 1},
    {FUSE_IOCTL, sizeof(fuse_ioctl_in), 0},
    {FUSE_FALLOCATE, sizeof(fuse_fallocate_in), 0},
    {FUSE_LSEEK, sizeof(fuse_lseek_in), 0},
    {FUSE_COPY_FILE_RANGE, sizeof(fuse_copy_file_range_in), 0},
};
// What came later has the last bytes for itself: the corpus keeps its meaning.
constexpr Shape kLaterShapes[] = {
    {FUSE_BATCH_FORGET, sizeof(fuse_batch_forget_in), 0},
    // Of a newer libfuse.  (Debian 12's header does not have FUSE_STATX, nor its 24 bytes.)
    {FUSE_TMPFILE, sizeof(fuse_create_in), 1},
    {52, 24, 0},
};
constexpr size_t kNewerShapes = 2;
constexpr uint8_t kFirstLater = 230;

class Session {
 public:
  explicit Session(Server* server) : slot_(server->in_flight->Take()) {
    const char* argv[] = {"fuzz", nullptr};
    fuse_args args = FUSE_ARGS_INIT(1, const_cast<char**>(argv));
    se_ = fuse_session_new(&args, &Operations(), sizeof(Operations()), server);
    fuse_opt_free_args(&args);
    fuse_custom_io io{};
    // Replies are taken, and forgotten.
    io.writev = [](int, iovec* iov, int count, void*) -> ssize_t {
      ssize_t n = 0;
      for (int i = 0; i < count; ++i) n += static_cast<ssize_t>(iov[i].iov_len);
      return n;
    };
    io.read = [](int, void*, size_t, void*) -> ssize_t { return 0; };
    fuse_session_custom_io(se_, &io, dup(STDERR_FILENO));
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = FUSE_KERNEL_MINOR_VERSION;
    init.max_readahead = 1 << 17;
    init.flags = ~uint32_t{FUSE_INIT_EXT};
    Send(FUSE_INIT, 1, 0, std::string(reinterpret_cast<const char*>(&init), sizeof(init)));
  }
  ~Session() { fuse_session_destroy(se_); }

  void Send(uint32_t opcode, uint64_t node, uint32_t uid, const std::string& body) {
    fuse_in_header header{};
    header.len = static_cast<uint32_t>(sizeof(header) + body.size());
    header.opcode = opcode;
    header.unique = ++unique_;
    header.nodeid = node;
    header.uid = header.gid = uid;
    slot_->Prepare();
    slot_->header() = header;
    body.copy(slot_->request() + sizeof(header), InFlight::kRequestBytes - sizeof(header));
    fuse_buf buffer{};
    buffer.mem = slot_->request();
    buffer.size = header.len;
    const CurrentRequest current(slot_);
    fuse_session_process_buf(se_, &buffer);
    slot_->Clear();
  }

 private:
  InFlight::Slot* const slot_;
  fuse_session* se_ = nullptr;
  uint64_t unique_ = 0;
};

class Sender {
 public:
  Sender(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  void SendAll(Session* session) {
    for (int i = 0; i < 100 && size_ > 0; ++i) One(session);
  }

 private:
  uint8_t Next() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  uint64_t Number() {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            2,
                                            4095,
                                            4096,
                                            4097,
                                            3920,
                                            2088960,
                                            uint64_t{1} << 31,
                                            (uint64_t{1} << 32) - 1,
                                            uint64_t{1} << 40,
                                            (uint64_t{1} << 63) - 4096,
                                            (uint64_t{1} << 63) - 1,
                                            uint64_t{1} << 63,
                                            ~uint64_t{0} - 1,
                                            ~uint64_t{0}};
    const uint8_t choice = Next();
    if (choice < 128) return choice % 32;
    if (choice < 224) return kNumbers[choice % 16];
    const uint64_t high = Next();
    return high << 8 | Next();
  }
  std::string Name() {
    static const char* const kNames[] = {"a",
                                         "b",
                                         "c",
                                         "d",
                                         "user.x",
                                         "trusted.y",
                                         "system.posix_acl_access",
                                         "system.posix_acl_default",
                                         "security.capability",
                                         ".."};
    const uint8_t choice = Next();
    if (choice < 200) return kNames[choice % std::size(kNames)];
    return std::string(1 + Next() % 255, static_cast<char>('a' + choice % 26));
  }
  // Words of what a program may give, then the fields that the kernel makes fit.
  void One(Session* session) {
    const uint8_t which = Next();
    const Shape& shape = which < kFirstLater ? kShapes[which % std::size(kShapes)]
                                             : kLaterShapes[which % std::size(kLaterShapes)];
    std::string body(shape.arguments, 0);
    for (size_t at = 0; at + 4 <= body.size();) {
      const uint64_t number = Number();
      const size_t width = at % 8 == 0 && at + 8 <= body.size() && Next() % 2 == 0 ? 8 : 4;
      std::memcpy(body.data() + at, &number, width);
      at += width;
    }
    std::string payload;
    const auto sized = [&](size_t offset, size_t size) {
      const auto n = static_cast<uint32_t>(size);
      std::memcpy(body.data() + offset, &n, sizeof(n));
    };
    const auto limited = [&](size_t offset, uint32_t most) {
      uint32_t n;
      std::memcpy(&n, body.data() + offset, sizeof(n));
      sized(offset, n % (most + 1));
    };
    switch (shape.opcode) {
      case FUSE_WRITE:
        payload.assign(Number() % 70000, 'w');
        sized(offsetof(fuse_write_in, size), payload.size());
        break;
      case FUSE_READ:
      case FUSE_READDIR:
      case FUSE_READDIRPLUS:
        limited(offsetof(fuse_read_in, size), 1 << 20);
        break;
      case FUSE_GETXATTR:
      case FUSE_LISTXATTR:
        limited(offsetof(fuse_getxattr_in, size), 65536);
        break;
      case FUSE_SETXATTR:
        // An ACL, as often as not.
        payload.assign(
            "\2\0\0\0\1\0\7\0\xff\xff\xff\xff\4\0\5\0\xff\xff\xff\xff\x20\0\5\0\xff\xff\xff\xff",
            28);
        if (const uint8_t at = Next(); at < 28) payload[at] = static_cast<char>(Next());
        if (Next() % 4 == 0) payload.assign(Number() % 65537, 'v');
        sized(offsetof(fuse_setxattr_in, size), payload.size());
        break;
      case FUSE_IOCTL: {
        struct Command {
          uint32_t number;
          size_t size;
        };
        static constexpr Command kCommands[] = {{kControlStatistics, sizeof(ControlResize)},
                                                {kControlResize, sizeof(ControlResize)},
                                                {kControlFreeze, sizeof(ControlResize)},
                                                {kControlThaw, sizeof(ControlResize)}};
        // (As with requests, what came later has the last bytes.)
        static constexpr Command kLaterCommands[] = {
            {kControlUpgrade, sizeof(ControlUpgrade)},
            {kControlLock, sizeof(ControlLock)},
            {kControlCheckpoint, sizeof(ControlCheckpoint)}};
        const uint8_t choice = Next();
        const Command& command = choice < 224 ? kCommands[choice % 4]
                                              : kLaterCommands[choice % std::size(kLaterCommands)];
        // (The largest is any number.)
        if (choice < 255) sized(offsetof(fuse_ioctl_in, cmd), command.number);
        const size_t most = choice < 224 ? 1000 : 6000;
        payload.assign(Next() % 4 == 0 ? Number() % most : command.size, '\xff');
        for (size_t at = 0; at + 8 <= payload.size() && at < 16; at += 8) {
          const uint64_t number = Number() << Next() % 64;
          std::memcpy(payload.data() + at, &number, sizeof(number));
        }
        sized(offsetof(fuse_ioctl_in, in_size), payload.size());
        limited(offsetof(fuse_ioctl_in, out_size), 16384);
        break;
      }
      case FUSE_BATCH_FORGET:
        limited(offsetof(fuse_batch_forget_in, count), 20);
        payload.resize(20 * sizeof(fuse_forget_one));
        for (size_t at = 0; at < payload.size() && size_ > 0; at += 8) {
          const uint64_t number = Number();
          std::memcpy(payload.data() + at, &number, sizeof(number));
        }
        break;
      default:
        break;
    }
    for (int i = 0; i < shape.names; ++i) body += Name() + '\0';
    const uint64_t node = Next() % 4 == 0 ? Number() : 1 + Next() % 12;
    // The kernel resolves ".." itself.  It asks for it only for an inode that it got by a file
    // handle.
    session->Send(shape.opcode, node, Next() % 3 == 0 ? 1000 : 0, body + payload);
  }

  const uint8_t* data_;
  size_t size_;
};

}  // namespace

size_t HandlersWithoutRequests() {
  // libfuse asks for them by itself, once.
  size_t asked_for = std::size(kShapes) + std::size(kLaterShapes) - kNewerShapes +
                     (Operations().init != nullptr) + (Operations().destroy != nullptr);
  const auto newer = [&](const auto& ops) {
    if constexpr (requires { ops.tmpfile; }) asked_for += ops.tmpfile != nullptr;
    if constexpr (requires { ops.statx; }) asked_for += ops.statx != nullptr;
  };
  newer(Operations());
  size_t handlers = 0;
  std::array<void*, sizeof(fuse_lowlevel_ops) / sizeof(void*)> members;
  std::memcpy(members.data(), &Operations(), sizeof(fuse_lowlevel_ops));
  for (const void* member : members) handlers += member != nullptr;
  return handlers - asked_for;
}

void FuzzRequests(const uint8_t* data, size_t size) {
  pkram::MemoryFile file;
  pkram::FormatRegion(&file, 300);
  Mounted mounted(file);
  Filesystem& fs = *mounted.fs();
  // Nobody would thaw the filesystem here.
  fs.set_abandoned([] { return true; });
  const Context ctx{.uid = 0, .gid = 0, .now = {2000, 1}};
  for (const char* name : {"a", "b"}) {
    const auto made = fs.MakeNode(ctx, kRootIno, name, S_IFREG | 0644);
    (void)fs.Write(ctx, (*made).ino, 0, BytesOf(std::string(20000, 'x')));
  }
  (void)fs.MakeDirectory(ctx, kRootIno, "d", 0755);
  const auto in_flight = InFlight::Make();
  if (!in_flight.ok()) std::abort();
  Server server;
  server.fs = &fs;
  server.in_flight = in_flight->get();
  server.region = mounted.region();
  // Neither is done; what they are asked for is a path of any bytes.
  const auto is_path = [](const std::string& path) {
    if (path.find('\0') != std::string::npos || path.size() > PATH_MAX) std::abort();
    return absl::UnavailableError(path);
  };
  server.upgrade = is_path;
  server.checkpoint = [&](const std::string& image, const pkram::Progress&) {
    return is_path(image);
  };
  {
    Session session(&server);
    Sender(data, size).SendAll(&session);
  }
  mounted.Close();
  FsCheck check;
  if (pkram::UsedPages(file, &check) < 0) std::abort();
}

}  // namespace pkramfs
