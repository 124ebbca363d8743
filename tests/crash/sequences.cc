// Random sequences of operations, thousands deep, compared with a model that knows nothing
// of pages; and at some of their stores the process dies.  What a successor finds must be
// the model's state before the operation or the one after it, also when the successor dies
// in its recovery, and its successor too.  Now and then the sequence goes on from what one
// of them found.
//
//   crash_sequences [--seed N] [--sequences N] [--operations N] [--points N]
#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "tests/crash/points.h"

namespace pkramfs {
namespace {

constexpr uint32_t kNoReplace = 1, kExchange = 2, kWhiteout = 4;

// --- The model ----------------------------------------------------------------------------

struct Node {
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  uint64_t rdev = 0;
  uint32_t names = 0;
  std::string data;  // or a symlink's target
  std::map<std::string, std::string> xattrs;
  std::map<std::string, std::shared_ptr<Node>> children;
  bool directory() const { return S_ISDIR(mode); }
};
using NodePtr = std::shared_ptr<Node>;

// What can be seen at a path.  Hard links are told by the first path of the file.
struct Seen {
  std::string first, text, data;
};
using View = std::map<std::string, Seen>;

Seen Describe(const std::string& first, uint32_t mode, uint32_t nlink, uint32_t uid, uint32_t gid,
              uint64_t rdev, const std::map<std::string, std::string>& xattrs, std::string data) {
  std::string text = "mode " + std::to_string(mode) + " links " + std::to_string(nlink) +
                     " owner " + std::to_string(uid) + ":" + std::to_string(gid) + " device " +
                     std::to_string(rdev);
  for (const auto& [name, value] : xattrs) text += " " + name + "=" + value;
  return {first, text, std::move(data)};
}

void ViewModel(const NodePtr& node, const std::string& path, std::map<Node*, std::string>* firsts,
               View* view) {
  uint32_t nlink = node->names;
  if (node->directory()) {
    nlink = 2;
    for (const auto& [name, child] : node->children) nlink += child->directory();
  }
  const std::string first = firsts->emplace(node.get(), path).first->second;
  (*view)[path] = Describe(first, node->mode, nlink, node->uid, node->gid, node->rdev, node->xattrs,
                           node->data);
  for (const auto& [name, child] : node->children) {
    ViewModel(child, path + "/" + name, firsts, view);
  }
}

View ViewOf(const NodePtr& root) {
  std::map<Node*, std::string> firsts;
  View view;
  ViewModel(root, "", &firsts, &view);
  return view;
}

void ViewFilesystem(Filesystem* fs, Ino ino, const std::string& path,
                    std::map<Ino, std::string>* firsts, View* view) {
  const Attr a = *fs->GetAttr(ino);
  std::map<std::string, std::string> xattrs;
  const std::string names = *fs->ListXattrs({}, ino);
  for (size_t at = 0; at < names.size(); at = names.find('\0', at) + 1) {
    const std::string name = names.c_str() + at;
    xattrs[name] = *fs->GetXattr(ino, name);
  }
  std::string data;
  if (S_ISREG(a.mode)) data = TextOf(*fs->Read(ino, 0, a.size));
  if (S_ISLNK(a.mode)) data = *fs->ReadLink(ino);
  (*view)[path] = Describe(firsts->emplace(ino, path).first->second, a.mode, a.nlink, a.uid, a.gid,
                           a.rdev, xattrs, data);
  if (!S_ISDIR(a.mode)) return;
  std::map<std::string, Ino> children;
  const auto read = fs->ReadDirectory(ino, 2, [&](const DirEntry& e) {
    children.emplace(std::string(e.name), e.ino);
    return true;
  });
  if (!read.ok()) return;
  for (const auto& [name, child] : children) {
    ViewFilesystem(fs, child, path + "/" + name, firsts, view);
  }
}

View ViewOf(Filesystem* fs) {
  std::map<Ino, std::string> firsts;
  View view;
  ViewFilesystem(fs, kRootIno, "", &firsts, &view);
  return view;
}

// The first difference, or nothing.  Bytes of `mask` may be anything; what is done in parts
// (a copy: pages that are shared, and bytes at the ends) may have come to any of them.
std::string Differ(const View& wanted, const View& found, const Mask& mask) {
  for (const auto& [path, seen] : wanted) {
    const auto it = found.find(path);
    if (it == found.end()) return path + " is missing";
    const Seen& other = it->second;
    if (seen.first != other.first) return path + " is " + other.first + ", not " + seen.first;
    if (seen.text != other.text) return path + " has " + other.text + ", not " + seen.text;
    const bool touched = seen.first == mask.path;
    const size_t size = other.data.size();
    if (seen.data.size() != size && !(touched && mask.from < size && size < mask.to)) {
      return path + " has " + std::to_string(size) + " bytes, not " +
             std::to_string(seen.data.size());
    }
    if (seen.data == other.data) continue;
    for (size_t i = 0; i < std::min(size, seen.data.size()); ++i) {
      const bool masked = touched && i >= mask.from && i < mask.to;
      if (!masked && seen.data[i] != other.data[i]) {
        return path + " differs at byte " + std::to_string(i);
      }
    }
  }
  for (const auto& [path, seen] : found) {
    if (!wanted.contains(path)) return path + " should not be there";
  }
  return "";
}

// --- Operations -----------------------------------------------------------------------------

struct Operation {
  std::string text;
  // Returns how much was done (of bytes; else 0), or a negative errno.
  std::function<int64_t(Filesystem&, const Context&)> run;
  // The same to the model, which has the operation's nodes.
  std::function<void(int64_t done)> apply;
  Mask mask{};
  bool makes_space = false;  // so that "full" is no answer
};

template <typename T>
int64_t Outcome(const Result<T>& result) {
  if (!result.ok()) return -result.error();
  if constexpr (std::is_same_v<T, size_t>) return static_cast<int64_t>(*result);
  return 0;
}

class Maker {
 public:
  Maker(uint64_t seed, NodePtr root) : root_(std::move(root)), random_(seed) {}

  uint64_t Below(uint64_t n) { return random_() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  // An operation that the model says will work, if there is space.
  Operation One() {
    for (;;) {
      if (auto operation = Try()) return *std::move(operation);
    }
  }

 private:
  struct Place {
    std::string path;
    NodePtr node, parent;
    std::string name;
    std::string directory() const {
      return path.size() > name.size() ? path.substr(0, path.size() - name.size() - 1) : "";
    }
  };

  void Collect(const NodePtr& node, const std::string& path, std::vector<Place>* places) const {
    for (const auto& [name, child] : node->children) {
      const std::string below = path.empty() ? name : path + "/" + name;
      places->push_back({below, child, node, name});
      if (child->directory()) Collect(child, below, places);
    }
  }
  std::vector<Place> Places() const {
    std::vector<Place> places = {{"", root_, nullptr, ""}};
    Collect(root_, "", &places);
    return places;
  }
  template <typename Fn>
  std::optional<Place> PickWhere(const std::vector<Place>& places, Fn good) {
    std::vector<const Place*> those;
    for (const Place& p : places) {
      if (good(*p.node)) those.push_back(&p);
    }
    if (those.empty()) return std::nullopt;
    return *those[Below(those.size())];
  }
  std::string NewName(const Node& directory) {
    for (;;) {
      std::string name = "n" + std::to_string(Below(200));
      if (OneIn(20)) name += std::string(200 + Below(40), 'l');
      if (!directory.children.contains(name)) return name;
    }
  }
  uint64_t Offset() {
    static constexpr uint64_t kEdges[] = {0, 1, 3900, 3920, 4095, 4096, 8192, 409600, 409601};
    if (OneIn(2)) return kEdges[Below(std::size(kEdges))];
    return OneIn(4) ? Below(1000000) : Below(30000);
  }
  std::string FirstPath(const NodePtr& node) const {
    for (const Place& p : Places()) {
      if (p.node == node) return "/" + p.path;
    }
    return "";
  }
  std::string Bytes(size_t size) {
    std::string bytes(size, 0);
    for (char& c : bytes) c = static_cast<char>('a' + random_() % 26);
    return bytes;
  }
  static void Drop(const NodePtr& parent, const std::string& name) {
    --parent->children.at(name)->names;
    parent->children.erase(name);
  }

  std::optional<Operation> Try() {
    const std::vector<Place> places = Places();
    const auto is_directory = [](const Node& n) { return n.directory(); };
    const auto is_file = [](const Node& n) { return S_ISREG(n.mode); };
    const bool crowded = places.size() > 80;
    switch (Below(18)) {
      case 0:
      case 1: {  // what is made
        if (crowded) return std::nullopt;
        const Place in = *PickWhere(places, is_directory);
        return Make(in, NewName(*in.node));
      }
      case 2: {
        const Place in = *PickWhere(places, is_directory);
        const auto of = PickWhere(places, [](const Node& n) { return !n.directory(); });
        if (!of || crowded) return std::nullopt;
        return LinkTo(*of, in, NewName(*in.node));
      }
      case 3:
      case 4: {
        const Place what = places[Below(places.size())];
        if (what.parent == nullptr || !what.node->children.empty()) return std::nullopt;
        if (!crowded && OneIn(2)) return std::nullopt;
        return Remove(what);
      }
      case 5:
      case 6:
        return Move(places);
      case 7:
      case 8:
      case 9:
      case 10: {
        const auto of = PickWhere(places, is_file);
        if (!of) return std::nullopt;
        return Put(*of, Offset(), Bytes(1 + Below(OneIn(3) ? 40000 : 3000)));
      }
      case 11: {
        const auto of = PickWhere(places, is_file);
        if (!of) return std::nullopt;
        const uint64_t size = OneIn(3) ? 0 : Offset();
        const auto apply = [node = of->node, size](int64_t) { node->data.resize(size); };
        return Operation{"truncate " + of->path + " " + std::to_string(size),
                         [path = of->path, size](Filesystem& fs, const Context& ctx) {
                           return Outcome(fs.SetAttr(ctx, Walk(fs, path),
                                                     {.what = AttrChange::kSetSize, .size = size}));
                         },
                         apply,
                         {},
                         size == 0};
      }
      case 12:
      case 13: {
        const auto of = PickWhere(places, is_file);
        if (!of) return std::nullopt;
        return Allocate(*of);
      }
      case 14:
      case 15: {
        const auto from = PickWhere(places, is_file);
        const auto to = PickWhere(places, is_file);
        if (!from || from->node == to->node) return std::nullopt;
        return Copy(*from, *to);
      }
      case 16: {
        const Place of = places[Below(places.size())];
        return Attributes(of);
      }
      default: {
        const Place of = places[Below(places.size())];
        const uint32_t mode = (of.node->mode & S_IFMT) | static_cast<uint32_t>(Below(01000));
        const uint32_t uid = static_cast<uint32_t>(Below(5));
        return Operation{
            "chmod and chown " + of.path,
            [=](Filesystem& fs, const Context& ctx) {
              return Outcome(fs.SetAttr(
                  ctx, Walk(fs, of.path),
                  {.what = AttrChange::kSetMode | AttrChange::kSetUid, .mode = mode, .uid = uid}));
            },
            [=](int64_t) {
              of.node->mode = mode;
              of.node->uid = uid;
            },
            {}};
      }
    }
  }

  Operation Make(const Place& in, const std::string& name) {
    static constexpr uint32_t kModes[] = {S_IFREG | 0644, S_IFREG | 0600, S_IFREG | 0666,
                                          S_IFDIR | 0755, S_IFDIR | 0700, S_IFLNK | 0777,
                                          S_IFIFO | 0600, S_IFCHR | 0600};
    const uint32_t mode = kModes[Below(std::size(kModes))];
    const std::string target = S_ISLNK(mode) ? Bytes(1 + Below(4000)) : "";
    const uint64_t rdev = S_ISCHR(mode) ? 0x103 : 0;
    const bool temporary = S_ISREG(mode) && OneIn(4);
    return {(temporary ? "tmpfile and link " : "make ") + in.path + "/" + name + " " +
                std::to_string(mode),
            [=](Filesystem& fs, const Context& ctx) -> int64_t {
              const Ino parent = Walk(fs, in.path);
              if (S_ISDIR(mode)) {
                const auto made = fs.MakeDirectory(ctx, parent, name, mode);
                if (made.ok()) fs.Forget((*made).ino, 1);
                return Outcome(made);
              }
              if (temporary) {
                const auto made = fs.MakeTemporary(ctx, parent, mode);
                if (!made.ok()) return -made.error();
                const auto linked = fs.Link(ctx, (*made).ino, parent, name);
                fs.Forget((*made).ino, linked.ok() ? 2 : 1);
                return Outcome(linked);
              }
              const auto made = S_ISLNK(mode) ? fs.MakeSymlink(ctx, parent, name, target)
                                              : fs.MakeNode(ctx, parent, name, mode, rdev);
              if (made.ok()) fs.Forget((*made).ino, 1);
              return Outcome(made);
            },
            [=](int64_t) {
              in.node->children[name] =
                  std::make_shared<Node>(Node{mode, 0, 0, rdev, 1, target, {}, {}});
            },
            {}};
  }

  static Operation LinkTo(const Place& of, const Place& in, const std::string& name) {
    return {"link " + of.path + " " + in.path + "/" + name,
            [=](Filesystem& fs, const Context& ctx) {
              const Ino ino = Walk(fs, of.path);
              const auto linked = fs.Link(ctx, ino, Walk(fs, in.path), name);
              if (linked.ok()) fs.Forget(ino, 1);
              return Outcome(linked);
            },
            [=](int64_t) {
              in.node->children[name] = of.node;
              ++of.node->names;
            },
            {}};
  }

  static Operation Remove(const Place& what) {
    return {"remove " + what.path,
            [=](Filesystem& fs, const Context& ctx) {
              const Ino parent = Walk(fs, what.directory());
              return Outcome(what.node->directory() ? fs.RemoveDirectory(ctx, parent, what.name)
                                                    : fs.Unlink(ctx, parent, what.name));
            },
            [=](int64_t) { Drop(what.parent, what.name); },
            {},
            true};
  }

  std::optional<Operation> Move(const std::vector<Place>& places) {
    const Place from = places[Below(places.size())];
    if (from.parent == nullptr) return std::nullopt;
    const Place in = *PickWhere(places, [](const Node& n) { return n.directory(); });
    const auto below = [](const std::string& path, const Place& of) {
      return path == of.path || path.starts_with(of.path + "/");
    };
    if (below(in.path, from)) return std::nullopt;
    std::string name = NewName(*in.node);
    NodePtr target;
    if (OneIn(2) && !in.node->children.empty()) {
      auto it = in.node->children.begin();
      std::advance(it, Below(in.node->children.size()));
      name = it->first;
      target = it->second;
    }
    if (target == from.node) return std::nullopt;
    uint32_t flags = 0;
    if (target == nullptr) {
      flags = OneIn(5) ? kWhiteout : OneIn(4) ? kNoReplace : 0;
    } else if (OneIn(3)) {
      flags = kExchange;
      const Place to{in.path.empty() ? name : in.path + "/" + name, target, in.node, name};
      if (below(from.path, to)) return std::nullopt;
    } else if (target->directory() != from.node->directory() || !target->children.empty()) {
      return std::nullopt;
    }
    return Operation{
        "rename " + from.path + " " + in.path + "/" + name + " flags " + std::to_string(flags),
        [=](Filesystem& fs, const Context& ctx) {
          return Outcome(fs.Rename(ctx, Walk(fs, from.directory()), from.name, Walk(fs, in.path),
                                   name, flags));
        },
        [=](int64_t) {
          if (flags == kExchange) {
            std::swap(from.parent->children[from.name], in.node->children[name]);
            return;
          }
          if (target != nullptr) Drop(in.node, name);
          in.node->children[name] = from.node;
          from.parent->children.erase(from.name);
          if (flags == kWhiteout) {
            from.parent->children[from.name] =
                std::make_shared<Node>(Node{S_IFCHR, 0, 0, 0, 1, "", {}, {}});
          }
        },
        {}};
  }

  static void Overwrite(std::string* data, uint64_t offset, std::string_view bytes) {
    if (data->size() < offset + bytes.size()) data->resize(offset + bytes.size());
    data->replace(offset, bytes.size(), bytes);
  }

  Operation Put(const Place& of, uint64_t offset, const std::string& bytes) const {
    return {
        "write " + of.path + " at " + std::to_string(offset) + " " + std::to_string(bytes.size()),
        [=](Filesystem& fs, const Context& ctx) {
          return Outcome(fs.Write(ctx, Walk(fs, of.path), offset, BytesOf(bytes)));
        },
        [=](int64_t done) {
          Overwrite(&of.node->data, offset,
                    std::string_view(bytes).substr(0, static_cast<size_t>(done)));
        },
        {FirstPath(of.node), offset, offset + bytes.size()}};
  }

  Operation Allocate(const Place& of) {
    static constexpr int kModes[] = {
        0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    const int mode = kModes[Below(std::size(kModes))];
    const bool zero = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
    const uint64_t offset = Offset(), length = 1 + Below(OneIn(3) ? 1000000 : 20000);
    // What is allocated for good must fit, most times.
    const uint64_t end =
        offset + ((mode & FALLOC_FL_PUNCH_HOLE) != 0 ? length : std::min<uint64_t>(length, 300000));
    return {"fallocate " + of.path + " from " + std::to_string(offset) + " to " +
                std::to_string(end) + " mode " + std::to_string(mode),
            [=](Filesystem& fs, const Context& ctx) {
              return Outcome(fs.Fallocate(ctx, Walk(fs, of.path), offset, end - offset, mode));
            },
            [=](int64_t) {
              std::string& data = of.node->data;
              if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && data.size() < end) data.resize(end);
              if (!zero || offset >= data.size()) return;
              const uint64_t to = std::min<uint64_t>(end, data.size());
              std::fill(data.begin() + static_cast<ptrdiff_t>(offset),
                        data.begin() + static_cast<ptrdiff_t>(to), '\0');
            },
            zero ? Mask{FirstPath(of.node), offset, end} : Mask{}};
  }

  std::optional<Operation> Copy(const Place& from, const Place& to) {
    const std::string& data = from.node->data;
    if (data.empty()) return std::nullopt;
    uint64_t offset = std::min<uint64_t>(Offset(), data.size() - 1), target = Offset();
    uint64_t size = 1 + Below(30000);
    if (OneIn(2)) {  // whole pages, which are shared
      offset = offset / kPageSize * kPageSize;
      target = target / kPageSize * kPageSize;
      size = 1 + Below(600000);
    }
    size = std::min(size, data.size() - offset);
    return Operation{
        "copy " + from.path + " at " + std::to_string(offset) + " " + to.path + " at " +
            std::to_string(target) + " " + std::to_string(size),
        [=](Filesystem& fs, const Context& ctx) {
          return Outcome(
              fs.CopyRange(ctx, Walk(fs, from.path), offset, Walk(fs, to.path), target, size));
        },
        [=](int64_t done) {
          Overwrite(&to.node->data, target,
                    std::string_view(from.node->data).substr(offset, static_cast<size_t>(done)));
        },
        {FirstPath(to.node), target, target + size}};
  }

  Operation Attributes(const Place& of) {
    const std::string name =
        (S_ISREG(of.node->mode) || of.node->directory() ? "user." : "trusted.") +
        std::to_string(Below(3));
    if (of.node->xattrs.contains(name) && OneIn(2)) {
      return {"removexattr " + of.path + " " + name,
              [=](Filesystem& fs, const Context& ctx) {
                return Outcome(fs.RemoveXattr(ctx, Walk(fs, of.path), name));
              },
              [=](int64_t) { of.node->xattrs.erase(name); },
              {},
              true};
    }
    const std::string value = Bytes(Below(OneIn(3) ? 9000 : 100));
    return {"setxattr " + of.path + " " + name + " " + std::to_string(value.size()),
            [=](Filesystem& fs, const Context& ctx) {
              return Outcome(fs.SetXattr(ctx, Walk(fs, of.path), name, value, 0));
            },
            [=](int64_t) { of.node->xattrs[name] = value; },
            {}};
  }

  const NodePtr root_;
  std::mt19937_64 random_;
};

// A region on a filesystem that others fill up: while it is full, no page comes to be.
class CrowdedBacking : public pkram::Backing {
 public:
  CrowdedBacking(std::unique_ptr<Backing> below, const bool* full)
      : Backing(below->name()), below_(std::move(below)), full_(full) {}
  int fd() const override { return below_->fd(); }
  absl::StatusOr<uint64_t> Size() const override { return below_->Size(); }
  absl::Status Lock(bool exclusive) override { return below_->Lock(exclusive); }
  absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) override {
    return below_->Map(pages, writable);
  }
  absl::Status Reserve(pkram::PageRun run) override {
    const absl::Status fits = Fits(run.first.offset(), run.count * kPageSize);
    return fits.ok() ? below_->Reserve(run) : fits;
  }
  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    uint64_t size = 0;
    for (const iovec& v : bytes) size += v.iov_len;
    const absl::Status fits = Fits(offset, size);
    return fits.ok() ? below_->Write(offset, bytes) : fits;
  }
  absl::Status FillZeros(pkram::PageRun run) override {
    const absl::Status fits = Fits(run.first.offset(), run.count * kPageSize);
    return fits.ok() ? below_->FillZeros(run) : fits;
  }
  bool HoldsMoreThan(uint64_t pages) const override { return below_->HoldsMoreThan(pages); }
  void GiveBack(pkram::PageRun run) override { below_->GiveBack(run); }
  void ShrinkTo(uint64_t pages) override { below_->ShrinkTo(pages); }

 private:
  absl::Status Fits(uint64_t offset, uint64_t size) const {
    if (!*full_) return absl::OkStatus();
    const uint64_t from = offset / kPageSize * kPageSize;
    const auto end = static_cast<off_t>(offset + size);
    if (lseek(fd(), static_cast<off_t>(from), SEEK_DATA) == static_cast<off_t>(from) &&
        lseek(fd(), static_cast<off_t>(from), SEEK_HOLE) >= end) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError("full");
  }
  const std::unique_ptr<Backing> below_;
  const bool* const full_;
};

// --- Sequences ------------------------------------------------------------------------------

struct Counts {
  uint64_t operations = 0, full = 0, points = 0, in_recovery = 0, gone_on = 0, remounts = 0;
};

struct Limits {
  uint64_t pages = 800, inodes = 0;
  bool crowded = false;
};

class Sequence {
 public:
  Sequence(uint64_t seed, const Limits& limits, Counts* counts)
      : root_(std::make_shared<Node>(Node{S_IFDIR | 01777, 0, 0, 0, 1, "", {}, {}})),
        maker_(seed, root_),
        limits_(limits),
        counts_(counts) {
    pkram::FormatRegion(&file_, limits.pages);
    file_.wrap = [this](std::unique_ptr<pkram::Backing> backing) {
      return std::make_unique<CrowdedBacking>(std::move(backing), &full_);
    };
    Mount();
  }

  // Returns what is wrong, or nothing.
  std::string Run(uint64_t operations, uint64_t points) {
    for (uint64_t i = 0; i < operations; ++i) {
      // As many as there are, in as many operations as there are.
      const bool dies = maker_.Below(operations) < points / kPointsOfOne;
      const std::string fault = One(dies);
      if (!fault.empty()) return "operation " + std::to_string(i) + ", " + text_ + ": " + fault;
    }
    return "";
  }

 private:
  static constexpr uint64_t kPointsOfOne = 4;

  void Mount() { mounted_ = std::make_unique<Mounted>(file_, limits_.inodes, recorder_.hook()); }

  std::string One(bool dies) {
    if (maker_.OneIn(150)) return Remount(dies);
    if (limits_.crowded && maker_.OneIn(20)) full_ = !full_;
    const Operation operation = maker_.One();
    text_ = operation.text;
    ++counts_->operations;
    const Context context{.uid = 0, .gid = 0, .now = {static_cast<int64_t>(1000 + clock_++), 7}};
    View before;
    if (dies) before = ViewOf(root_);
    recorder_.recording = dies;
    recorder_.images.clear();
    const int64_t done = operation.run(*mounted_->fs(), context);
    recorder_.recording = false;
    if (done == -ENOSPC && !operation.makes_space) {
      ++counts_->full;
    } else if (done < 0) {
      return "failed with errno " + std::to_string(-done);
    } else {
      operation.apply(done);
    }
    if (!dies) return "";
    const View after = ViewOf(root_);
    if (std::string d = Differ(after, ViewOf(mounted_->fs()), {}); !d.empty()) return d;
    return Deaths(before, after, operation.mask);
  }

  // A few of the images that were taken: each shows one state or the other.
  std::string Deaths(const View& before, const View& after, const Mask& mask) {
    std::vector<Image> images = std::move(recorder_.images);
    for (uint64_t i = 0; i < kPointsOfOne && !images.empty(); ++i) {
      Image image = images[maker_.Below(images.size())];
      std::string fault = OneDeath(image, before, after, mask);
      if (!fault.empty()) return fault;
      if (!maker_.OneIn(3)) continue;
      // The recovery dies, and so does the next one.
      for (int depth = 1; depth <= 2; ++depth) {
        std::vector<Image> deaths = DeathsInRecovery(image);
        if (deaths.empty()) break;
        image = deaths[maker_.Below(deaths.size())];
        ++counts_->in_recovery;
        fault = OneDeath(image, before, after, mask);
        if (!fault.empty()) return "in recovery " + std::to_string(depth) + ": " + fault;
      }
    }
    return "";
  }

  std::string OneDeath(const Image& image, const View& before, const View& after,
                       const Mask& mask) {
    ++counts_->points;
    MemoryFile file;
    file.Restore(image);
    View found;
    {
      const Mounted mounted(file);
      if (mounted.fs() == nullptr) return "cannot be mounted any more";
      found = ViewOf(mounted.fs());
    }
    FsCheck check;
    if (pkram::UsedPages(file, &check) < 0) return "is not sound after the recovery";
    const std::string from_before = Differ(before, found, mask);
    if (from_before.empty()) return "";
    const std::string from_after = Differ(after, found, mask);
    if (from_after.empty()) return "";
    return "neither before (" + from_before + ") nor after (" + from_after + ")";
  }

  // An unmount, or a kill; both show what was there, and so does a death in either.
  std::string Remount(bool dies) {
    ++counts_->remounts;
    full_ = false;
    const View view = ViewOf(root_);
    recorder_.recording = dies;
    recorder_.images.clear();
    text_ = "remount";
    if (maker_.OneIn(2)) {
      mounted_->Close();
    } else {
      // What is found goes on from a store of the past, when there is one.
      mounted_.reset();
    }
    Mount();
    recorder_.recording = false;
    if (mounted_->fs() == nullptr) return "cannot be mounted";
    if (std::string d = Differ(view, ViewOf(mounted_->fs()), {}); !d.empty()) return d;
    if (!recorder_.images.empty() && maker_.OneIn(2)) {
      ++counts_->gone_on;
      const Image image = recorder_.images[maker_.Below(recorder_.images.size())];
      mounted_.reset();
      file_.Restore(image);
      Mount();
      if (mounted_->fs() == nullptr) return "cannot be mounted from a death";
    }
    return Deaths(view, view, {});
  }

  const NodePtr root_;
  Maker maker_;
  const Limits limits_;
  Counts* const counts_;
  MemoryFile file_;
  Recorder recorder_{&file_};
  bool full_ = false;  // what the region is on
  std::unique_ptr<Mounted> mounted_;
  std::string text_;
  uint64_t clock_ = 0;
};

int Main(int argc, char** argv) {
  CLI::App app("Random operations that die at random stores, compared with a model.");
  uint64_t seed = 1, sequences = 1, operations = 3000, points = 3000;
  app.add_option("--seed", seed, "Of the first sequence");
  app.add_option("--sequences", sequences, "How many");
  app.add_option("--operations", operations, "Of each");
  app.add_option("--points", points, "Places to die, of each, about");
  Limits limits;
  app.add_option("--pages", limits.pages, "Of the region: few, and it is full most of the time");
  app.add_option("--inodes", limits.inodes, "As many as there may be; 0 for no limit");
  app.add_flag("--crowded", limits.crowded, "What the region is on is full now and then");
  CLI11_PARSE(app, argc, argv);
  Counts counts;
  for (uint64_t i = 0; i < sequences; ++i) {
    const std::string fault = Sequence(seed + i, limits, &counts).Run(operations, points);
    if (!fault.empty() || testing::Test::HasFailure()) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed + i), fault.c_str());
      return 1;
    }
  }
  const auto count = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf(
      "%llu sequences, %llu operations (%llu found it full), %llu remounts (%llu from a death), "
      "%llu crash points, %llu of them in a recovery: each as before or as after\n",
      count(sequences), count(counts.operations), count(counts.full), count(counts.remounts),
      count(counts.gone_on), count(counts.points), count(counts.in_recovery));
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  testing::InitGoogleTest();
  return pkramfs::Main(argc, argv);
}
