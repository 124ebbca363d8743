// A filesystem that does nothing, behind the same library, the same answer to INIT, the same
// time-outs and as many threads as pkramfs: what it takes, any FUSE filesystem takes at least.
//   null MOUNT_POINT       in the foreground; mounted anew after each umount, until SIGTERM
// Names and attributes are in plain tables.  Bytes that are written are thrown away, and those that
// are read come from one page.
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "mount/serve/handshake.h"
#include "mount/serve/request.h"
#include "mount/serve/server.h"

namespace pkramfs {
namespace {

struct Name {
  std::string name;
  fuse_ino_t ino;
};
struct Node {
  struct stat st {};
  fuse_ino_t parent = 0;
  std::string target;                             // of a symbolic link
  absl::flat_hash_map<std::string, size_t> find;  // where in `names` it is
  std::vector<Name> names;                        // removed ones have no inode
};

std::mutex mu;
std::deque<Node> nodes(2);  // by inode number
std::vector<fuse_ino_t> unused;
char page[1 << 20];  // (of one page's bytes; a request is no larger)
volatile sig_atomic_t ends = 0;

Node& At(fuse_ino_t ino) { return nodes[ino]; }

timespec Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return now;
}

fuse_ino_t NewNode(fuse_req_t req, mode_t mode, dev_t rdev, fuse_ino_t parent) {
  fuse_ino_t ino = nodes.size();
  if (unused.empty()) {
    nodes.emplace_back();
  } else {
    ino = unused.back();
    unused.pop_back();
    At(ino) = Node();
  }
  struct stat& st = At(ino).st;
  const fuse_ctx* const ctx = fuse_req_ctx(req);
  st.st_ino = ino;
  st.st_mode = mode & ~(S_ISLNK(mode) ? 0 : ctx->umask);
  st.st_nlink = S_ISDIR(mode) ? 2 : 1;
  st.st_uid = ctx->uid;
  st.st_gid = ctx->gid;
  st.st_rdev = rdev;
  st.st_blksize = 4096;
  st.st_atim = st.st_mtim = st.st_ctim = Now();
  At(ino).parent = parent;
  return ino;
}

void AddName(fuse_ino_t parent, const std::string& name, fuse_ino_t ino) {
  Node& dir = At(parent);
  dir.find[name] = dir.names.size();
  dir.names.push_back({name, ino});
  dir.st.st_mtim = dir.st.st_ctim = Now();
  if (S_ISDIR(At(ino).st.st_mode)) ++dir.st.st_nlink;
}

// 0: there is none.
fuse_ino_t Find(fuse_ino_t parent, const char* name) {
  const auto found = At(parent).find.find(name);
  return found == At(parent).find.end() ? 0 : At(parent).names[found->second].ino;
}

// REQUIRES: it is there.
void RemoveName(fuse_ino_t parent, const char* name, bool keeps_node) {
  Node& dir = At(parent);
  const auto found = dir.find.find(name);
  const fuse_ino_t ino = std::exchange(dir.names[found->second].ino, 0);
  dir.find.erase(found);
  if (dir.find.empty()) dir.names.clear();
  dir.st.st_mtim = dir.st.st_ctim = Now();
  Node& node = At(ino);
  if (S_ISDIR(node.st.st_mode)) --dir.st.st_nlink;
  // (Nobody here has it open any more.)
  if (!keeps_node && (S_ISDIR(node.st.st_mode) || --node.st.st_nlink == 0)) unused.push_back(ino);
}

fuse_entry_param EntryOf(fuse_ino_t ino) {
  fuse_entry_param entry{};
  entry.ino = ino;
  entry.attr_timeout = entry.entry_timeout = kForever;
  if (ino != 0) entry.attr = At(ino).st;
  return entry;
}

void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry;
  {
    const std::lock_guard lock(mu);
    entry = EntryOf(Find(parent, name));
  }
  fuse_reply_entry(req, &entry);
}

void GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  struct stat st;
  {
    const std::lock_guard lock(mu);
    st = At(ino).st;
  }
  fuse_reply_attr(req, &st, kForever);
}

void SetAttr(fuse_req_t req, fuse_ino_t ino, struct stat* to, int what, fuse_file_info*) {
  struct stat now;
  {
    const std::lock_guard lock(mu);
    struct stat& st = At(ino).st;
    st.st_ctim = Now();
    if ((what & FUSE_SET_ATTR_MODE) != 0)
      st.st_mode = (st.st_mode & S_IFMT) | (to->st_mode & 07777);
    if ((what & FUSE_SET_ATTR_UID) != 0) st.st_uid = to->st_uid;
    if ((what & FUSE_SET_ATTR_GID) != 0) st.st_gid = to->st_gid;
    if ((what & FUSE_SET_ATTR_SIZE) != 0) st.st_size = to->st_size;
    if ((what & FUSE_SET_ATTR_ATIME) != 0) st.st_atim = to->st_atim;
    if ((what & FUSE_SET_ATTR_MTIME) != 0) st.st_mtim = to->st_mtim;
    if ((what & FUSE_SET_ATTR_ATIME_NOW) != 0) st.st_atim = st.st_ctim;
    if ((what & FUSE_SET_ATTR_MTIME_NOW) != 0) st.st_mtim = st.st_ctim;
    now = st;
  }
  fuse_reply_attr(req, &now, kForever);
}

fuse_entry_param Make(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev,
                      const char* target) {
  const std::lock_guard lock(mu);
  const fuse_ino_t ino = NewNode(req, mode, rdev, parent);
  At(ino).target = target;
  if (S_ISLNK(mode)) At(ino).st.st_size = static_cast<off_t>(At(ino).target.size());
  AddName(parent, name, ino);
  return EntryOf(ino);
}

void MakeNode(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  const fuse_entry_param entry = Make(req, parent, name, mode, rdev, "");
  fuse_reply_entry(req, &entry);
}
void MakeDirectory(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  MakeNode(req, parent, name, mode | S_IFDIR, 0);
}
void MakeSymlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  const fuse_entry_param entry = Make(req, parent, name, S_IFLNK | 0777, 0, target);
  fuse_reply_entry(req, &entry);
}
void Create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  const fuse_entry_param entry = Make(req, parent, name, S_IFREG | mode, 0, "");
  fi->keep_cache = 1;
  fuse_reply_create(req, &entry, fi);
}

void ReadLink(fuse_req_t req, fuse_ino_t ino) {
  std::string target;
  {
    const std::lock_guard lock(mu);
    target = At(ino).target;
  }
  fuse_reply_readlink(req, target.c_str());
}

void Link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry;
  {
    const std::lock_guard lock(mu);
    ++At(ino).st.st_nlink;
    AddName(parent, name, ino);
    entry = EntryOf(ino);
  }
  fuse_reply_entry(req, &entry);
}

void Unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  {
    const std::lock_guard lock(mu);
    RemoveName(parent, name, false);
  }
  fuse_reply_err(req, 0);
}

void Rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t to, const char* to_name,
            unsigned) {
  {
    const std::lock_guard lock(mu);
    const fuse_ino_t ino = Find(parent, name);
    if (Find(to, to_name) != 0) RemoveName(to, to_name, false);
    RemoveName(parent, name, true);
    AddName(to, to_name, ino);
  }
  fuse_reply_err(req, 0);
}

// `add`: puts a name into what is left of the buffer, and returns what it takes.
template <typename Add>
void List(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, Add add) {
  std::vector<char> buffer(size);
  size_t used = 0;
  {
    const std::lock_guard lock(mu);
    const Node& dir = At(ino);
    for (size_t i = static_cast<size_t>(offset); i < dir.names.size() + 2; ++i) {
      const fuse_ino_t child = i == 0 ? ino : i == 1 ? dir.parent : dir.names[i - 2].ino;
      if (child == 0) continue;
      const char* const name = i == 0 ? "." : i == 1 ? ".." : dir.names[i - 2].name.c_str();
      const size_t n =
          add(buffer.data() + used, size - used, name, child, i < 2, static_cast<off_t>(i + 1));
      if (n > size - used) break;
      used += n;
    }
  }
  fuse_reply_buf(req, buffer.data(), used);
}

void ReadDirectory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  List(req, ino, size, offset,
       [req](char* to, size_t left, const char* name, fuse_ino_t child, bool, off_t next) {
         return fuse_add_direntry(req, to, left, name, &At(child).st, next);
       });
}
void ReadDirectoryPlus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  List(req, ino, size, offset,
       [req](char* to, size_t left, const char* name, fuse_ino_t child, bool dots, off_t next) {
         fuse_entry_param entry = EntryOf(child);
         if (dots) entry.ino = 0;
         return fuse_add_direntry_plus(req, to, left, name, &entry, next);
       });
}

void StatFs(fuse_req_t req, fuse_ino_t) {
  struct statvfs st {};
  st.f_bsize = st.f_frsize = 4096;
  st.f_blocks = st.f_bfree = st.f_bavail = st.f_files = st.f_ffree = 1 << 24;
  st.f_namemax = 255;
  fuse_reply_statfs(req, &st);
}
void GetXattr(fuse_req_t req, fuse_ino_t, const char*, size_t) { fuse_reply_err(req, ENODATA); }
void ListXattrs(fuse_req_t req, fuse_ino_t, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, 0);
  } else {
    fuse_reply_buf(req, "", 0);
  }
}

template <int kAnswer, typename... Arguments>
void Answer(fuse_req_t req, Arguments...) {
  fuse_reply_err(req, kAnswer);
}

void Grow(fuse_ino_t ino, off_t to) {
  const std::lock_guard lock(mu);
  struct stat& st = At(ino).st;
  st.st_mtim = st.st_ctim = Now();
  st.st_size = std::max(st.st_size, to);
  st.st_blocks = (st.st_size + 511) / 512;
}

void Read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  off_t end;
  {
    const std::lock_guard lock(mu);
    end = At(ino).st.st_size;
  }
  fuse_reply_buf(req, page, offset >= end ? 0 : std::min(size, static_cast<size_t>(end - offset)));
}
void Write(fuse_req_t req, fuse_ino_t ino, const char*, size_t size, off_t offset,
           fuse_file_info*) {
  Grow(ino, offset + static_cast<off_t>(size));
  fuse_reply_write(req, size);
}
void Fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
               fuse_file_info*) {
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0) Grow(ino, offset + length);
  fuse_reply_err(req, 0);
}
void Seek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info*) {
  const std::lock_guard lock(mu);
  const off_t size = At(ino).st.st_size;
  if (offset >= size) {
    fuse_reply_err(req, ENXIO);
  } else {
    fuse_reply_lseek(req, whence == SEEK_DATA ? offset : size);
  }
}
void CopyRange(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info*, fuse_ino_t to,
               off_t to_offset, fuse_file_info*, size_t size, int) {
  off_t end;
  {
    const std::lock_guard lock(mu);
    end = At(from).st.st_size;
  }
  const auto n = from_offset >= end ? 0 : std::min(static_cast<off_t>(size), end - from_offset);
  Grow(to, to_offset + n);
  fuse_reply_write(req, static_cast<size_t>(n));
}

// What pkramfs answers with ENOSYS, this does; and INIT as it does.
fuse_lowlevel_ops MakeNullOperations() {
  fuse_lowlevel_ops ops{};
  ops.init = Operations().init;
  ops.lookup = Lookup;
  ops.getattr = GetAttr;
  ops.setattr = SetAttr;
  ops.readlink = ReadLink;
  ops.mknod = MakeNode;
  ops.mkdir = MakeDirectory;
  ops.unlink = Unlink;
  ops.rmdir = Unlink;
  ops.symlink = MakeSymlink;
  ops.rename = Rename;
  ops.link = Link;
  ops.open = Answer<ENOSYS>;
  ops.read = Read;
  ops.write = Write;
  ops.flush = Answer<ENOSYS>;
  ops.release = Answer<0>;
  ops.fsync = Answer<0>;
  ops.opendir = Answer<ENOSYS>;
  ops.readdir = ReadDirectory;
  ops.readdirplus = ReadDirectoryPlus;
  ops.fsyncdir = Answer<ENOSYS>;
  ops.statfs = StatFs;
  ops.setxattr = Answer<0>;
  ops.getxattr = GetXattr;
  ops.listxattr = ListXattrs;
  ops.removexattr = Answer<0>;
  ops.create = Create;
  ops.fallocate = Fallocate;
  ops.lseek = Seek;
  ops.copy_file_range = CopyRange;
  return ops;
}

// The session ends with the umount that follows.
void End(int) { ends = 1; }

// Until it is unmounted.
bool ServeOnce(const char* mount_point) {
  const fuse_lowlevel_ops ops = MakeNullOperations();
  const char* argv[] = {"null", "-o", "subtype=null,default_permissions,allow_other,dev,suid"};
  fuse_args args = FUSE_ARGS_INIT(3, const_cast<char**>(argv));
  Server server;  // for the options that INIT depends on
  const auto in_flight = InFlight::Make();
  fuse_session* const session = fuse_session_new(&args, &ops, sizeof(ops), &server);
  fuse_opt_free_args(&args);
  if (session == nullptr || !in_flight.ok()) return false;
  if (fuse_session_mount(session, mount_point) != 0) return false;
  const bool begun = BeginSession(session, in_flight->get()).ok();
  if (begun) {
    fuse_loop_config* const config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_idle_threads(config, 16);
    fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
  }
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return begun;
}

int Main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: null MOUNT_POINT\n");
    return 2;
  }
  struct sigaction action {};
  action.sa_handler = End;
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  struct stat& root = At(FUSE_ROOT_ID).st;
  root.st_ino = At(FUSE_ROOT_ID).parent = FUSE_ROOT_ID;
  root.st_mode = S_IFDIR | 01777;
  root.st_nlink = 2;
  while (ends == 0) {
    if (!ServeOnce(argv[1])) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) { return pkramfs::Main(argc, argv); }
