#include "mount/tools/salvage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "fs/survivors.h"
#include "fs/xattrs.h"
#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"
#include "mount/tools/directory.h"
#include "mount/tools/progress.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

absl::Status Failed(const std::string& path) {
  return absl::InternalError(absl::StrCat(path, ": ", std::strerror(errno)));
}

// Whether an error that one file met will meet all others, too.
bool EndsAll(int error) {
  return error == ENOSPC || error == EDQUOT || error == EROFS || error == EIO || error == EMFILE;
}

constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// Writes one tree.  It looks up nothing by a path, so symlinks that it has written lead it nowhere.
class Writer {
 public:
  Writer(const pkram::PageView& pages, const std::vector<pkram::PageRun>& contested,
         const SurvivingTree& tree, Salvaged* salvaged,
         const std::function<void(const std::string&)>& lost)
      : pages_(pages), contested_(contested), tree_(tree), salvaged_(salvaged), lost_(lost) {}

  absl::Status Write(int top) {
    // A node's name may be a path, or lead upwards.
    std::string name = absl::StrReplaceAll(tree_.node, {{"%", "%25"}, {"/", "%2F"}});
    if (name.front() == '.') name = "%2E" + name.substr(1);
    top_ = top;
    if (absl::Status s = WriteTree(kRootIno, top, name, name); !s.ok()) return s;
    return WriteNameless(top, name + ".lost+found");
  }

 private:
  // A directory that is being written; its attributes are set when it is left.
  struct Open {
    Ino ino;
    Descriptor fd;
    std::string name;
    size_t path;      // as much of the path is its own
    size_t next = 0;  // of its names
  };

  void Lose(const std::string& what, const std::string& why) {
    line_.Clear();
    ++salvaged_->lost;
    lost_(absl::StrCat(what, ": ", why));
  }
  std::string WhyLost(Ino ino) const {
    const auto it = tree_.damaged.find(ino);
    return it != tree_.damaged.end() ? it->second.what
                                     : absl::StrCat("inode ", ino, " is not there");
  }
  const SurvivingTree::Inode* Intact(Ino ino) const {
    const auto it = tree_.inodes.find(ino);
    return it == tree_.inodes.end() ? nullptr : &it->second;
  }
  uint32_t TypeOf(Ino ino) const {
    const SurvivingTree::Inode* const inode = Intact(ino);
    return inode == nullptr
               ? 0
               : static_cast<uint32_t>(RecordOf(pages_, *inode).mode_nlink) & uint32_t{S_IFMT};
  }
  bool IsDirectory(Ino ino) const {
    return TypeOf(ino) == S_IFDIR || (Intact(ino) == nullptr && tree_.names.contains(ino));
  }

  // No descriptor, and errno, when that fails.
  static Descriptor MakeDirectory(int parent, const std::string& name) {
    const bool made = mkdirat(parent, name.c_str(), 0700) == 0;
    return Descriptor(made ? openat(parent, name.c_str(), kDirectory) : -1);
  }

  // Makes a directory, and writes what is below it.  It uses a stack of its own, and one descriptor
  // at a time, because a tree may be as deep as there are inodes.
  absl::Status WriteTree(Ino top, int parent, const std::string& top_name, std::string path) {
    std::vector<Open> stack;
    const auto enter = [&](Ino ino, int above, const std::string& name) {
      Descriptor made = MakeDirectory(above, name);
      if (made.get() < 0) {
        if (EndsAll(errno)) return Failed(path);
        Lose(path, std::strerror(errno));
        return absl::OkStatus();
      }
      written_.insert(ino);
      ++salvaged_->directories;
      if (Intact(ino) == nullptr) {
        const bool has_names = tree_.names.contains(ino);
        Lose(path, WhyLost(ino) + (has_names ? " (names in it as found)" : ""));
      }
      if (!stack.empty()) stack.back().fd = Descriptor(-1);  // found again through ".."
      stack.push_back({ino, std::move(made), name, path.size()});
      return absl::OkStatus();
    };
    if (absl::Status s = enter(top, parent, top_name); !s.ok()) return s;
    while (!stack.empty()) {
      Open& open = stack.back();
      path.resize(open.path);
      const auto names = tree_.names.find(open.ino);
      if (names == tree_.names.end() || open.next == names->second.size()) {
        Descriptor up(stack.size() > 1 ? openat(open.fd.get(), "..", kDirectory) : -1);
        if (const SurvivingTree::Inode* inode = Intact(open.ino)) {
          SetAttributes(*inode, stack.size() > 1 ? up.get() : parent, open.name);
        }
        stack.pop_back();
        if (!stack.empty()) stack.back().fd = std::move(up);
        continue;
      }
      const SurvivingName& name = names->second[open.next++];
      absl::StrAppend(&path, "/", name.name);
      if (!IsDirectory(name.ino)) {
        if (absl::Status s = WriteFile(name, open.fd.get(), path); !s.ok()) return s;
      } else if (written_.contains(name.ino)) {
        Lose(path, "its directory has another name, too");
      } else if (absl::Status s = enter(name.ino, open.fd.get(), name.name); !s.ok()) {
        return s;
      }
    }
    return absl::OkStatus();
  }

  absl::Status WriteFile(const SurvivingName& name, int parent, const std::string& where) {
    line_.Show(done_++, tree_.inodes.size());
    const SurvivingTree::Inode* const inode = Intact(name.ino);
    if (inode == nullptr) {
      Lose(where, WhyLost(name.ino));
      return absl::OkStatus();
    }
    if (name.type << 12 != TypeOf(name.ino)) {
      Lose(where, absl::StrCat("inode ", name.ino, " is of another type"));
      return absl::OkStatus();
    }
    const auto first = links_.find(name.ino);
    if (first != links_.end() &&
        linkat(top_, first->second.c_str(), parent, name.name.c_str(), 0) == 0) {
      return absl::OkStatus();
    }
    return WriteInode(*inode, name.ino, name.name, parent, where);
  }

  absl::Status WriteInode(const SurvivingTree::Inode& inode, Ino ino, const std::string& name,
                          int parent, const std::string& where) {
    const InodeRecord& record = RecordOf(pages_, inode);
    const auto fail = [&] {
      if (EndsAll(errno)) return Failed(where);
      const int error = errno;
      Lose(where, std::strerror(error));
      if (error != EEXIST) written_.insert(ino);  // under another name it would fail again
      return absl::OkStatus();
    };
    const auto mode = static_cast<uint32_t>(record.mode_nlink);
    if (S_ISLNK(mode)) {
      std::string target;
      const bool whole =
          ForEachPiece(pages_, contested_, inode, [&](uint64_t offset, std::string_view bytes) {
            target.resize(offset);
            target.append(bytes);
            return true;
          });
      if (!whole || target.empty() || target.find('\0') != std::string::npos) {
        written_.insert(ino);
        Lose(where, whole ? "it leads nowhere" : "a page of it is another's, too");
        return absl::OkStatus();
      }
      if (symlinkat(target.c_str(), parent, name.c_str()) != 0) return fail();
    } else if (S_ISREG(mode)) {
      const Descriptor fd(
          openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
      if (fd.get() < 0) return fail();
      int error = 0;
      const bool whole =
          ForEachPiece(pages_, contested_, inode, [&](uint64_t offset, std::string_view bytes) {
            const ssize_t n =
                pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (n != static_cast<ssize_t>(bytes.size())) error = n < 0 ? errno : ENOSPC;
            salvaged_->bytes += bytes.size();
            return error == 0;
          });
      if (error == 0 && whole && ftruncate(fd.get(), static_cast<off_t>(record.size)) != 0) {
        error = errno;
      }
      if (error == ENOSPC || error == EDQUOT) {
        errno = error;
        return Failed(where);
      }
      if (error != 0 || !whole) {
        unlinkat(parent, name.c_str(), 0);
        written_.insert(ino);
        Lose(where, error != 0 ? std::strerror(error) : "a page of it is another's, too");
        return absl::OkStatus();
      }
    } else {
      const dev_t device =
          makedev(static_cast<unsigned>(record.rdev >> 32), static_cast<unsigned>(record.rdev));
      if (mknodat(parent, name.c_str(), (mode & S_IFMT) | 0600, device) != 0) return fail();
    }
    SetAttributes(inode, parent, name);
    written_.insert(ino);
    ++salvaged_->files;
    if (record.mode_nlink >> 32 > 1) links_.emplace(ino, where);
    return absl::OkStatus();
  }

  // Sets attributes, as far as this user may, and the filesystem there can.
  void SetAttributes(const SurvivingTree::Inode& inode, int parent, const std::string& name) {
    const InodeRecord& record = RecordOf(pages_, inode);
    const auto mode = static_cast<uint32_t>(record.mode_nlink);
    int failed = fchownat(parent, name.c_str(), static_cast<uid_t>(record.owner),
                          static_cast<gid_t>(record.owner >> 32), AT_SYMLINK_NOFOLLOW);
    // Set-user-id bits are kept only if the file has its owner again.
    const uint32_t bits = mode & (failed != 0 ? 01777 : 07777);
    if (!S_ISLNK(mode)) failed |= fchmodat(parent, name.c_str(), bits, 0);
    const std::string path = absl::StrCat("/proc/self/fd/", parent, "/", name);
    Xattrs::ForEachOf(inode.xattrs, [&](std::string_view xattr, std::string_view value) {
      failed |= lsetxattr(path.c_str(), std::string(xattr).c_str(), value.data(), value.size(), 0);
    });
    const auto time = [&](TimeIndex index, uint64_t nanos) {
      return timespec{static_cast<time_t>(record.seconds[index]), static_cast<long>(nanos)};
    };
    const timespec times[2] = {time(kAtime, record.nanos[0] & 0xffffffff),
                               time(kMtime, record.nanos[0] >> 32)};
    failed |= utimensat(parent, name.c_str(), times, AT_SYMLINK_NOFOLLOW);
    if (failed != 0) ++salvaged_->bare;
  }

  // Writes files that are intact but that no intact directory leads to.
  absl::Status WriteNameless(int top, const std::string& path) {
    std::set<Ino> named, listed;  // by what was not written, and by what was
    for (const auto& [directory, names] : tree_.names) {
      for (const SurvivingName& name : names) {
        (written_.contains(directory) ? listed : named).insert(name.ino);
      }
    }
    Descriptor found(-1);
    // First those to which nothing else among them leads.
    for (const bool tops : {true, false}) {
      for (const auto& [ino, inode] : tree_.inodes) {
        const uint64_t nlink = RecordOf(pages_, inode).mode_nlink >> 32;
        if (nlink == 0 || written_.contains(ino) || (tops && named.contains(ino))) continue;
        if (found.get() < 0) {
          found = MakeDirectory(top, path);
          if (found.get() < 0) return Failed(path);
        }
        const std::string name = absl::StrCat("inode-", ino);
        const std::string where = absl::StrCat(path, "/", name);
        const uint64_t copied = salvaged_->files + salvaged_->directories;
        const absl::Status s = IsDirectory(ino) ? WriteTree(ino, found.get(), name, where)
                                                : WriteInode(inode, ino, name, found.get(), where);
        if (!s.ok()) return s;
        // The reason why it was not copied is reported by now.
        if (salvaged_->files + salvaged_->directories > copied) Lose(where, "its name");
      }
    }
    for (const auto& [ino, wreck] : tree_.damaged) {
      if (!written_.contains(ino) && !listed.contains(ino)) {
        Lose(absl::StrCat("inode ", ino), wreck.what);
      }
    }
    return absl::OkStatus();
  }

  const pkram::PageView& pages_;
  const std::vector<pkram::PageRun>& contested_;
  const SurvivingTree& tree_;
  Salvaged* const salvaged_;
  const std::function<void(const std::string&)>& lost_;
  uint64_t done_ = 0;  // files that were looked at, by their names
  ProgressLine line_{"salvage: copying", ProgressLine::Unit::kPlain};
  int top_ = -1;  // what paths are relative to
  std::set<Ino> written_;
  std::map<Ino, std::string> links_;  // where an inode of several names is
};

}  // namespace

absl::StatusOr<Salvaged> SalvageRegion(const std::string& path, const std::string& directory,
                                       const std::function<void(const std::string&)>& lost) {
  const auto backing = OpenRegionBacking(path, pkram::OpenFor::kReading);
  if (!backing.ok()) return backing.status();
  const absl::StatusOr<Descriptor> top = OpenEmptyDirectory(directory);
  if (!top.ok()) return top.status();
  Salvaged salvaged;
  Survivors survivors;
  CountingClient client("salvage: looking", &survivors);
  const auto write = [&](const pkram::PageView& pages, const pkram::Walk& walk) {
    client.End();
    const std::vector<pkram::PageRun> contested = Merged(walk.contested());
    for (const SurvivingTree& tree : survivors.trees()) {
      if (!tree.filesystem) {
        ++salvaged.lost;
        lost(absl::StrCat("node '", tree.node, "': is no filesystem that is known"));
        continue;
      }
      Writer writer(pages, contested, tree, &salvaged, lost);
      if (absl::Status s = writer.Write(top->get()); !s.ok()) return s;
    }
    return absl::OkStatus();
  };
  absl::StatusOr<pkram::Region::Report> report =
      pkram::Region::Check(backing->get(), &client, write);
  if (!report.ok()) return report.status();
  salvaged.report = *std::move(report);
  for (const pkram::NodeCounts& node : salvaged.report.nodes) {
    if (node.state != pkram::format::kSaved) continue;
    ++salvaged.lost;
    lost(absl::StrCat("node '", node.name, "': no filesystem, and not copied"));
  }
  return salvaged;
}

}  // namespace pkramfs
