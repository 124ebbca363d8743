// Random programs of system calls, run on tmpfs and on a mount of pkramfs at once: every
// result must be the same, and so must the trees that they leave, with unmounts and kills
// of the daemon in between.  A program that shows a difference is cut down to the calls
// that it takes, and printed.
//
//   differential [--seed N] [--programs N | --seconds N] [--calls N]
#include <sys/mman.h>
#include <sys/xattr.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <sstream>

#include "mount/tools/command_line.h"
#include "tests/conformance/subject.h"
#include "tests/killer.h"
#include "tests/manifest.h"

namespace pkramfs {
namespace {

// Since Linux 6.6, as user xattrs.
bool TmpfsHasDirect() {
  static const bool has = [] {
    const int fd = memfd_create("direct", MFD_CLOEXEC);
    const int again = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDWR | O_DIRECT);
    if (again >= 0) close(again);
    close(fd);
    return again >= 0;
  }();
  return has;
}

bool TmpfsHasUserXattrs() {
  static const bool has = [] {
    const int fd = memfd_create("user", MFD_CLOEXEC);
    const bool is_set = fsetxattr(fd, "user.a", "v", 1, 0) == 0;
    close(fd);
    return is_set;
  }();
  return has;
}

constexpr int kSlots = 4;  // open descriptors

const char* const kPaths[] = {"a",     "b",     "c",       "d", "d/a", "d/b", "d/e",
                              "d/e/a", "d/e/f", "d/e/f/a", "g", "g/a", "g/b", "g/a/x"};
const User kUsers[] = {{0, 0}, {0, 0}, {1001, 1001}, {1002, 1002, {1001}}};

struct Call {
  enum Kind {
    kOpen,
    kClose,
    kWrite,
    kAppend,
    kRead,
    kStore,
    kTruncate,
    kFtruncate,
    kFallocate,
    kSeek,
    kCopy,
    kMkdir,
    kMknod,
    kSymlink,
    kLink,
    kUnlink,
    kRmdir,
    kRename,
    kChmod,
    kChown,
    kUtimens,
    kSetXattr,
    kRemoveXattr,
    kGetXattr,
    kSetAcl,
    kStat,
    kFstat,
    kReadlink,
    kList,
    kBecome,
    kUmask,
    kUnmount,
    kKill,
    kCount
  };
  Kind kind = kOpen;
  std::string path, other;
  int slot = 0, other_slot = 0;
  int flags = 0;
  unsigned mode = 0, user = 0;
  off_t offset = 0, to_offset = 0, length = 0;
  std::string text{};  // attribute's name or value, bytes to write

  std::string Print() const;
};

using Program = std::vector<Call>;

// --- Making programs -----------------------------------------------------------------

class Maker {
 public:
  // A program that allocates cannot ask where holes are: what is allocated and not
  // written is a hole to tmpfs, and data here.
  explicit Maker(uint64_t seed) : random_(seed), allocates_(seed % 2 == 0) {}

  Program Make(size_t calls) {
    Program program;
    for (size_t i = 0; i < calls; ++i) program.push_back(One());
    return program;
  }

 private:
  size_t Below(size_t n) { return random_() % n; }
  bool OneIn(size_t n) { return Below(n) == 0; }
  template <typename T, size_t N>
  T Pick(const T (&from)[N]) {
    return from[Below(N)];
  }
  std::string Path() { return Pick(kPaths); }
  off_t Offset() {
    const off_t edges[] = {0,    1,     3900,   3920,    4095,    4096,
                           8192, 12288, 100000, 2088960, 2088961, 4177920};
    if (OneIn(2)) return Pick(edges);
    return static_cast<off_t>(OneIn(3) ? Below(5000000) : Below(20000));
  }
  off_t Length() {
    const off_t lengths[] = {1, 7, 100, 4096, 4097, 9000, 70000};
    return OneIn(12) ? static_cast<off_t>(Below(3000000)) : Pick(lengths);
  }

  Call One() {
    static const std::pair<Call::Kind, int> kWeights[] = {
        {Call::kOpen, 14},     {Call::kClose, 3},    {Call::kWrite, 14},      {Call::kAppend, 4},
        {Call::kRead, 6},      {Call::kStore, 3},    {Call::kTruncate, 3},    {Call::kFtruncate, 5},
        {Call::kFallocate, 6}, {Call::kSeek, 4},     {Call::kCopy, 6},        {Call::kMkdir, 8},
        {Call::kMknod, 2},     {Call::kSymlink, 3},  {Call::kLink, 5},        {Call::kUnlink, 5},
        {Call::kRmdir, 3},     {Call::kRename, 10},  {Call::kChmod, 4},       {Call::kChown, 3},
        {Call::kUtimens, 3},   {Call::kSetXattr, 4}, {Call::kRemoveXattr, 2}, {Call::kGetXattr, 2},
        {Call::kSetAcl, 3},    {Call::kStat, 5},     {Call::kFstat, 3},       {Call::kReadlink, 1},
        {Call::kList, 3},      {Call::kBecome, 2},   {Call::kUmask, 1},       {Call::kUnmount, 1},
        {Call::kKill, 1}};
    static const int kTotal = [] {
      int total = 0;
      for (const auto& [kind, weight] : kWeights) total += weight;
      return total;
    }();
    auto at = static_cast<int>(Below(static_cast<size_t>(kTotal)));
    Call call;
    for (const auto& [kind, weight] : kWeights) {
      call.kind = kind;
      if ((at -= weight) < 0) break;
    }
    if (call.kind == Call::kFallocate && !allocates_) call.kind = Call::kSeek;
    if (call.kind == Call::kSeek && allocates_) call.kind = Call::kFallocate;
    // A copy has holes where its source has, which on tmpfs it has not: the holes are filled
    // first, so where they are cannot be compared either.
    if (call.kind == Call::kCopy && !allocates_) call.kind = Call::kSeek;
    if ((call.kind == Call::kUnmount || call.kind == Call::kKill) && !OneIn(2))
      call.kind = Call::kStat;
    call.path = Path();
    call.other = Path();
    call.slot = static_cast<int>(Below(kSlots));
    call.other_slot = static_cast<int>(Below(kSlots));
    call.offset = Offset();
    call.length = Length();
    call.user = static_cast<unsigned>(Below(std::size(kUsers)));
    const unsigned modes[] = {0644,  0755,  0777, 0600,  0666, 0700, 04755,
                              02755, 06777, 0,    01777, 0440, 02777};
    call.mode = Pick(modes);
    switch (call.kind) {
      case Call::kOpen: {
        const int flags[] = {O_RDONLY,
                             O_WRONLY,
                             O_RDWR,
                             O_RDWR,
                             O_RDWR | O_CREAT,
                             O_RDWR | O_CREAT,
                             O_WRONLY | O_CREAT,
                             O_RDWR | O_CREAT | O_EXCL,
                             O_RDWR | O_TRUNC,
                             O_RDWR | O_CREAT | O_APPEND,
                             O_RDWR | (TmpfsHasDirect() ? O_DIRECT : 0),
                             O_RDONLY | O_DIRECTORY,
                             O_RDWR | O_NOFOLLOW,
                             O_WRONLY | O_CREAT | O_TRUNC};
        call.flags = Pick(flags) | O_NONBLOCK;
        break;
      }
      case Call::kFallocate: {
        const int flags[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
        call.flags = Pick(flags);
        if (OneIn(5)) call.length = static_cast<off_t>(Below(6000000)) + 1;
        break;
      }
      case Call::kSeek:
        call.flags = OneIn(2) ? SEEK_DATA : SEEK_HOLE;
        break;
      case Call::kCopy:
        // Whole pages are not copied in the same way.
        if (!OneIn(3)) call.offset -= call.offset % 4096;
        if (OneIn(2)) call.length = static_cast<off_t>(Below(1000000));
        call.to_offset = OneIn(4) ? call.offset / 3 : call.offset / 3 / 4096 * 4096;
        break;
      case Call::kRename: {
        const int flags[] = {0, 0, 0, 1, 2, 4};
        call.flags = Pick(flags);
        break;
      }
      case Call::kMknod:
        call.flags = OneIn(2) ? S_IFIFO : OneIn(2) ? S_IFSOCK : S_IFREG;
        break;
      case Call::kSymlink: {
        const char* const targets[] = {"a", "../a", "d", "nowhere", "b", "d/e"};
        call.text = Pick(targets);
        break;
      }
      case Call::kSetXattr:
      case Call::kRemoveXattr:
      case Call::kGetXattr: {
        const char* const names[] = {"user.a", "user.b", "trusted.a", "security.x", "system.x"};
        call.text = Pick(names);
        if (!TmpfsHasUserXattrs() && call.text.rfind("user.", 0) == 0) {
          call.text.replace(0, 4, "trusted");
        }
        call.flags = OneIn(4) ? XATTR_CREATE : OneIn(4) ? XATTR_REPLACE : 0;
        call.length = OneIn(8) ? 40000 : static_cast<off_t>(Below(300));
        break;
      }
      case Call::kSetAcl: {
        // {tag, perm, id}: owner, a user, group, mask, others; or the three of a mode
        const std::string head("\2\0\0\0", 4);
        const auto entry = [](uint16_t tag, unsigned perm, uint32_t id) {
          std::string e(8, 0);
          const auto p = static_cast<uint16_t>(perm);
          std::memcpy(&e[0], &tag, 2);
          std::memcpy(&e[2], &p, 2);
          std::memcpy(&e[4], &id, 4);
          return e;
        };
        const uint32_t none = ~uint32_t{0};
        const bool large = OneIn(2);
        call.text = head + entry(1, call.mode >> 6 & 7, none) + (large ? entry(2, 5, 1001) : "") +
                    entry(4, call.mode >> 3 & 7, none) + (large ? entry(0x10, 6, none) : "") +
                    entry(0x20, call.mode & 7, none);
        call.flags = OneIn(2);
        break;
      }
      case Call::kWrite:
      case Call::kAppend:
        call.text = std::string(static_cast<size_t>(std::min<off_t>(call.length, 300000)),
                                static_cast<char>('a' + Below(26)));
        break;
      default:
        break;
    }
    return call;
  }

  std::mt19937_64 random_;
  const bool allocates_;
};

// --- Running them ----------------------------------------------------------------------

std::string ErrorText(long result) {
  return result < 0 ? strerrorname_np(static_cast<int>(-result)) : std::to_string(result);
}

class Runner {
 public:
  // In a directory of its own, and another one around it, for links that lead to "..".
  // Blocks and holes are not asked for unless they are to be
  // compared.
  Runner(Subject* fs, const std::string& directory, bool blocks)
      : fs_(fs), root_(fs->base), around_(root_ + "/" + directory), blocks_(blocks) {
    fs_->Become(kUsers[0]);
    fs_->Umask(022);
    for (const char* const part : {directory.c_str(), "in"}) {
      fs_->Mkdir(part, 0777);
      fs_->base += std::string("/") + part;
      fs_->Chmod(".", 0777);
    }
    std::fill(std::begin(fds_), std::end(fds_), -1);
  }
  ~Runner() {
    CloseAll();
    fs_->Become(kUsers[0]);
    std::ignore = std::system(("rm -rf " + around_).c_str());
    fs_->base = root_;
  }

  // What the call came to, as text to compare.
  std::string Run(const Call& c) {
    struct stat st {};
    std::string text;
    std::set<std::string> names;
    const int fd = fds_[c.slot];
    switch (c.kind) {
      case Call::kOpen: {
        const int opened = fs_->Open(c.path, c.flags, c.mode);
        if (opened < 0) return ErrorText(opened);
        if (fd >= 0) fs_->Close(fd);
        fds_[c.slot] = opened;
        return "opened";
      }
      case Call::kClose:
        fds_[c.slot] = -1;
        return fd < 0 ? "none" : ErrorText(fs_->Close(fd));
      case Call::kWrite:
        return ErrorText(fs_->Write(fd, c.text, c.offset));
      case Call::kAppend:
        return ErrorText(fs_->Append(fd, c.text));
      case Call::kRead: {
        const ssize_t n = fs_->Read(fd, &text, static_cast<size_t>(c.length), c.offset);
        return ErrorText(n) + " crc " + std::to_string(pkram::Crc32c(text.data(), text.size()));
      }
      case Call::kStore:
        return Store(c);
      case Call::kTruncate:
        return ErrorText(fs_->Truncate(c.path, c.offset));
      case Call::kFtruncate:
        return ErrorText(fs_->Ftruncate(fd, c.offset));
      case Call::kFallocate:
        return ErrorText(fs_->Fallocate(fd, c.flags, c.offset, c.length));
      case Call::kSeek:
        if (!blocks_ || (fd >= 0 && (fs_->Fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)))) {
          return "no file";
        }
        return ErrorText(fs_->Seek(fd, c.offset, c.flags));
      case Call::kCopy:
        if (fd < 0 || fs_->Fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return "no file";
        if (const int filled = fs_->Fallocate(fd, 0, 0, st.st_size); filled != 0) {
          return "no holes to fill: " + ErrorText(filled);
        }
        return ErrorText(fs_->CopyRange(fd, c.offset, fds_[c.other_slot], c.to_offset,
                                        static_cast<size_t>(c.length)));
      case Call::kMkdir:
        return ErrorText(fs_->Mkdir(c.path, c.mode));
      case Call::kMknod:
        return ErrorText(fs_->Mknod(c.path, static_cast<mode_t>(c.flags) | (c.mode & 0777), 0));
      case Call::kSymlink:
        return ErrorText(fs_->Symlink(c.text, c.path));
      case Call::kLink:
        return ErrorText(fs_->Link(c.path, c.other));
      case Call::kUnlink:
        return ErrorText(fs_->Unlink(c.path));
      case Call::kRmdir:
        return ErrorText(fs_->Rmdir(c.path));
      case Call::kRename:
        return ErrorText(fs_->Rename(c.path, c.other, static_cast<unsigned>(c.flags)));
      case Call::kChmod:
        return ErrorText(fs_->Chmod(c.path, c.mode));
      case Call::kChown:
        return ErrorText(fs_->Chown(c.path, c.user == 0 ? ~0u : kUsers[c.user].uid,
                                    kUsers[c.user].gid, c.slot % 2 == 0));
      case Call::kUtimens: {
        const timespec set{1000000 + c.offset, 123456789};
        const timespec omit{0, UTIME_OMIT};
        const timespec times[2] = {c.slot == 0 ? omit : set, c.slot == 1 ? omit : set};
        // Writing to a fifo changes its times on tmpfs only.
        if (fs_->Stat(c.path, &st) == 0 && S_ISFIFO(st.st_mode)) return "a fifo";
        return ErrorText(fs_->Utimens(c.path, c.slot == 2 ? nullptr : times, c.user % 2 == 0));
      }
      case Call::kSetXattr:
        return ErrorText(fs_->SetXattr(c.path, c.text,
                                       std::string(static_cast<size_t>(c.length), 'v'), c.flags));
      case Call::kRemoveXattr:
        return ErrorText(fs_->RemoveXattr(c.path, c.text));
      case Call::kGetXattr: {
        const int got = fs_->GetXattr(c.path, c.text, &text);
        return ErrorText(got) + " " + std::to_string(text.size());
      }
      case Call::kSetAcl:
        return ErrorText(fs_->SetXattr(c.path, AclName(c), c.text));
      case Call::kStat:
        return Describe(fs_->Lstat(c.path, &st), st);
      case Call::kFstat:
        return Describe(fs_->Fstat(fd, &st), st);
      case Call::kReadlink: {
        const int read = fs_->Readlink(c.path, &text);
        return ErrorText(read) + " " + text;
      }
      case Call::kList: {
        const int listed = fs_->List(c.path, &names);
        text = ErrorText(listed);
        for (const std::string& name : names) text += " " + name;
        return text;
      }
      case Call::kBecome:
        fs_->Become(kUsers[c.user]);
        user_ = c.user;
        return "";
      case Call::kUmask:
        fs_->Umask(c.mode & 0777);
        return "";
      case Call::kUnmount:
      case Call::kKill:
        CloseAll();
        fs_->Become(kUsers[0]);
        fs_->Remount(c.kind == Call::kKill ? Subject::By::kKill : Subject::By::kUnmount);
        fs_->Become(kUsers[user_]);
        return "";
      case Call::kCount:
        break;
    }
    return "";
  }

  // The tree, as root sees it.
  Manifest Tree() {
    fs_->Become(kUsers[0]);
    ManifestOptions options;
    options.inode_numbers = false;
    options.blocks = blocks_;
    options.all_times = false;
    Manifest manifest = ManifestOf(fs_->base, options);
    fs_->Become(kUsers[user_]);
    return manifest;
  }

  static const char* AclName(const Call& c) {
    return c.flags != 0 ? "system.posix_acl_default" : "system.posix_acl_access";
  }

 private:
  void CloseAll() {
    for (int& fd : fds_) {
      if (fd >= 0) fs_->Close(fd);
      fd = -1;
    }
  }
  std::string Describe(int result, const struct stat& st) const {
    if (result < 0) return ErrorText(result);
    std::ostringstream out;
    out << std::oct << st.st_mode << std::dec << " nlink " << st.st_nlink << " " << st.st_uid << ":"
        << st.st_gid << " size " << st.st_size << " blocks " << (blocks_ ? st.st_blocks : 0)
        << " mtime ";
    st.st_mtim.tv_sec > 1000000000 ? out << "now" : out << st.st_mtim.tv_sec;
    return out.str();
  }
  // Through a shared mapping, within the file.
  std::string Store(const Call& c) {
    struct stat st;
    const int fd = fds_[c.slot];
    if (fs_->Fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
      return "nothing to map";
    const off_t offset = c.offset % st.st_size;
    const auto length = static_cast<size_t>(std::min(c.length, st.st_size - offset));
    const off_t page = offset / 4096 * 4096;
    const size_t mapped = length + static_cast<size_t>(offset - page);
    void* const map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
    if (map == MAP_FAILED) return ErrorText(-errno);
    std::memset(static_cast<char*>(map) + (offset - page), 'M', length);
    const int synced = msync(map, mapped, MS_SYNC);
    munmap(map, mapped);
    return synced == 0 ? "stored" : "not synced";
  }

  Subject* const fs_;
  const std::string root_, around_;
  const bool blocks_;
  int fds_[kSlots];
  unsigned user_ = 0;
};

std::string Brief(const std::string& text) {
  return text.size() <= 400 ? text : text.substr(0, 400) + "...";
}

std::string Difference(const Manifest& a, const Manifest& b) {
  for (const auto& [path, text] : a) {
    const auto it = b.find(path);
    if (it == b.end()) return path + ": only on tmpfs";
    if (it->second != text)
      return path + ":\n    tmpfs   " + Brief(text) + "\n    pkramfs " + Brief(it->second);
  }
  for (const auto& [path, text] : b) {
    if (!a.contains(path)) return path + ": only on pkramfs";
  }
  return "";
}

struct Outcome {
  size_t calls = 0;          // that were run
  std::string difference{};  // or ""
};

class Comparison {
 public:
  Comparison(bool writeback, bool kills)
      : tmpfs_(MakeTmpfsSubject()),
        mount_(writeback ? MakeWritebackSubject() : MakeMountSubject()) {
    if (kills) killer_.emplace(mount_->base);
  }

  Outcome Run(const Program& program) {
    const std::string directory = "run" + std::to_string(++runs_);
    const bool blocks = !mount_->writes_back();  // it knows of them late, and of holes never
    Runner a(tmpfs_.get(), directory, blocks), b(mount_.get(), directory, blocks);
    constexpr size_t kOften = 40;
    for (size_t i = 0; i < program.size(); ++i) {
      const bool restarts = program[i].kind == Call::kUnmount || program[i].kind == Call::kKill;
      if (restarts && killer_) continue;
      const std::string there = a.Run(program[i]), here = b.Run(program[i]);
      if (there != here)
        return {i + 1, program[i].Print() + "\n    tmpfs   " + there + "\n    pkramfs " + here};
      if (restarts || i % kOften == kOften - 1 || i + 1 == program.size()) {
        const std::string difference = Difference(a.Tree(), b.Tree());
        if (!difference.empty()) return {i + 1, "the tree after it: " + difference};
      }
    }
    return {program.size()};
  }

  // The shortest program that can be had by leaving calls out.
  Program Shrink(Program program) {
    program.resize(Run(program).calls);
    for (size_t piece = std::max<size_t>(1, program.size() / 2);; piece /= 2) {
      bool shorter = false;
      for (size_t at = 0; at < program.size();) {
        Program candidate = program;
        const auto from = candidate.begin() + static_cast<ptrdiff_t>(at);
        candidate.erase(from,
                        from + static_cast<ptrdiff_t>(std::min(piece, candidate.size() - at)));
        const Outcome outcome = Run(candidate);
        if (outcome.difference.empty()) {
          at += piece;
          continue;
        }
        candidate.resize(outcome.calls);
        program = std::move(candidate);
        shorter = true;
      }
      if (piece == 1 && !shorter) return program;
      if (piece == 1) piece = 2;
    }
  }

 private:
  std::unique_ptr<Subject> tmpfs_, mount_;
  std::optional<Killer> killer_;  // of servers below it, which nobody may notice
  int runs_ = 0;
};

// --- Printing them ------------------------------------------------------------------------

std::string Call::Print() const {
  std::ostringstream out;
  const auto bytes = [&] {
    return "fill('" + std::string(1, text.empty() ? '?' : text[0]) + "', " +
           std::to_string(text.size()) + "), " + std::to_string(text.size());
  };
  const std::string fd = "fd[" + std::to_string(slot) + "]";
  const auto octal = [](unsigned m) {
    char buffer[16];
    std::snprintf(buffer, sizeof(buffer), "0%o", m);
    return std::string(buffer);
  };
  const std::string p = '"' + path + '"', o = '"' + other + '"';
  switch (kind) {
    case kOpen:
      out << fd << " = open(" << p << ", " << octal(static_cast<unsigned>(flags)) << ", "
          << octal(mode) << ")";
      break;
    case kClose:
      out << "close(" << fd << ")";
      break;
    case kWrite:
      out << "pwrite(" << fd << ", " << bytes() << ", " << offset << ")";
      break;
    case kAppend:
      out << "write(" << fd << ", " << bytes() << ")";
      break;
    case kRead:
      out << "pread(" << fd << ", buffer, " << length << ", " << offset << ")";
      break;
    case kStore:
      out << "store through a mapping of " << fd << ": " << length << " bytes at " << offset
          << " (modulo the size), msync";
      break;
    case kTruncate:
      out << "truncate(" << p << ", " << offset << ")";
      break;
    case kFtruncate:
      out << "ftruncate(" << fd << ", " << offset << ")";
      break;
    case kFallocate:
      out << "fallocate(" << fd << ", " << flags << ", " << offset << ", " << length << ")";
      break;
    case kSeek:
      out << "lseek(" << fd << ", " << offset << ", "
          << (flags == SEEK_DATA ? "SEEK_DATA" : "SEEK_HOLE") << ")";
      break;
    case kCopy:
      out << "copy_file_range(" << fd << ", " << offset << ", fd[" << other_slot << "], "
          << to_offset << ", " << length << ", 0)";
      break;
    case kMkdir:
      out << "mkdir(" << p << ", " << octal(mode) << ")";
      break;
    case kMknod:
      out << "mknod(" << p << ", " << octal(static_cast<unsigned>(flags) | (mode & 0777)) << ", 0)";
      break;
    case kSymlink:
      out << "symlink(\"" << text << "\", " << p << ")";
      break;
    case kLink:
      out << "link(" << p << ", " << o << ")";
      break;
    case kUnlink:
      out << "unlink(" << p << ")";
      break;
    case kRmdir:
      out << "rmdir(" << p << ")";
      break;
    case kRename:
      out << "renameat2(AT_FDCWD, " << p << ", AT_FDCWD, " << o << ", " << flags << ")";
      break;
    case kChmod:
      out << "chmod(" << p << ", " << octal(mode) << ")";
      break;
    case kChown:
      out << (slot % 2 == 0 ? "chown(" : "lchown(") << p << ", "
          << (user == 0 ? -1 : static_cast<int>(kUsers[user].uid)) << ", " << kUsers[user].gid
          << ")";
      break;
    case kUtimens:
      out << "utimensat(AT_FDCWD, " << p << ", "
          << (slot == 2   ? "now"
              : slot == 0 ? "{omit, set}"
              : slot == 1 ? "{set, omit}"
                          : "{set, set}")
          << ", " << (user % 2 == 0 ? "0" : "AT_SYMLINK_NOFOLLOW") << ")";
      break;
    case kSetXattr:
      out << "lsetxattr(" << p << ", \"" << text << "\", fill('v', " << length << "), " << length
          << ", " << flags << ")";
      break;
    case kRemoveXattr:
      out << "lremovexattr(" << p << ", \"" << text << "\")";
      break;
    case kGetXattr:
      out << "lgetxattr(" << p << ", \"" << text << "\", buffer, 65536)";
      break;
    case kSetAcl:
      out << "lsetxattr(" << p << ", \"" << Runner::AclName(*this) << "\", "
          << (text.size() > 28 ? "a user, a mask, " : "") << octal(mode & 0777) << ")";
      break;
    case kStat:
      out << "lstat(" << p << ", &st)";
      break;
    case kFstat:
      out << "fstat(" << fd << ", &st)";
      break;
    case kReadlink:
      out << "readlink(" << p << ", buffer, 8192)";
      break;
    case kList:
      out << "readdir of " << p;
      break;
    case kBecome:
      out << "seteuid(" << kUsers[user].uid << "), setegid(" << kUsers[user].gid << ")"
          << (kUsers[user].groups.empty() ? "" : ", setgroups({1001})");
      break;
    case kUmask:
      out << "umask(" << octal(mode & 0777) << ")";
      break;
    case kUnmount:
      out << "close all, unmount, mount";
      break;
    case kKill:
      out << "close all, kill -9, mount";
      break;
    case kCount:
      break;
  }
  return out.str() + ";";
}

int Main(int argc, char** argv) {
  CommandLine line("differential", "Compares pkramfs with tmpfs, call by call.");
  uint64_t seed = 1, programs = 0, seconds = 0, calls = 150;
  bool writeback = false, kills = false;
  line.Option("--seed", &seed, "Of the first program; the next ones count up");
  line.Option("--programs", &programs, "How many (default: until the time is over)");
  line.Option("--seconds", &seconds, "How long (default: until the programs are done)");
  line.Option("--calls", &calls, "Of each program");
  line.Flag("--writeback", &writeback, "Mount with -o writeback");
  line.Flag("--kills", &kills, "Kill the server, or its keeper, all the time");
  if (const auto status = line.Parse(argc, argv)) return *status;
  if (programs == 0 && seconds == 0) programs = 100;
  if (geteuid() != 0 || access("/dev/fuse", F_OK) != 0) {
    std::puts("skipped: needs root and /dev/fuse");
    return 0;
  }
  signal(SIGPIPE, SIG_IGN);  // of fifos that nobody reads
  Comparison comparison(writeback, kills);
  const auto start = std::chrono::steady_clock::now();
  uint64_t done = 0, run = 0;
  for (; (programs == 0 || done < programs) &&
         (seconds == 0 || std::chrono::steady_clock::now() - start < std::chrono::seconds(seconds));
       ++done) {
    const Program program = Maker(seed + done).Make(calls);
    const Outcome outcome = comparison.Run(program);
    run += outcome.calls;
    if (outcome.difference.empty()) continue;
    std::printf("seed %llu differs: %s\n", static_cast<unsigned long long>(seed + done),
                outcome.difference.c_str());
    const Program shortest = comparison.Shrink(program);
    std::printf("it takes these %zu calls:\n", shortest.size());
    for (const Call& call : shortest) std::printf("  %s\n", call.Print().c_str());
    std::printf("  // %s\n", comparison.Run(shortest).difference.c_str());
    return 1;
  }
  std::printf("%llu programs, %llu calls: no difference\n", static_cast<unsigned long long>(done),
              static_cast<unsigned long long>(run));
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) { return pkramfs::Main(argc, argv); }
