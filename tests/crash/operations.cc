#include "tests/crash/operations.h"

#include <fcntl.h>

#include <algorithm>
#include <iterator>
#include <type_traits>

namespace pkramfs {
namespace {

constexpr uint32_t kNoReplace = 1, kExchange = 2, kWhiteout = 4;

template <typename T>
int64_t Outcome(const Result<T>& result) {
  if (!result.ok()) return -result.error();
  if constexpr (std::is_same_v<T, size_t>) return static_cast<int64_t>(*result);
  return 0;
}

}  // namespace

Operation OperationMaker::One() {
  for (;;) {
    if (auto operation = Try()) return *std::move(operation);
  }
}

void OperationMaker::Collect(const NodePtr& node, const std::string& path,
                             std::vector<Place>* places) const {
  for (const auto& [name, child] : node->children) {
    const std::string below = path.empty() ? name : path + "/" + name;
    places->push_back({below, child, node, name});
    if (child->directory()) Collect(child, below, places);
  }
}

std::vector<OperationMaker::Place> OperationMaker::Places() const {
  std::vector<Place> places = {{"", root_, nullptr, ""}};
  Collect(root_, "", &places);
  return places;
}

std::string OperationMaker::NewName(const Node& directory) {
  for (;;) {
    std::string name = "n" + std::to_string(Below(200));
    if (OneIn(20)) name += std::string(200 + Below(40), 'l');
    if (!directory.children.contains(name)) return name;
  }
}

uint64_t OperationMaker::Offset() {
  static constexpr uint64_t kEdges[] = {0, 1, 3900, 3920, 4095, 4096, 8192, 409600, 409601};
  if (OneIn(2)) return kEdges[Below(std::size(kEdges))];
  return OneIn(4) ? Below(1000000) : Below(30000);
}

std::string OperationMaker::FirstPath(const NodePtr& node) const {
  for (const Place& p : Places()) {
    if (p.node == node) return "/" + p.path;
  }
  return "";
}

std::string OperationMaker::Bytes(size_t size) {
  std::string bytes(size, 0);
  for (char& c : bytes) c = static_cast<char>('a' + random_() % 26);
  return bytes;
}

void OperationMaker::Drop(const NodePtr& parent, const std::string& name) {
  --parent->children.at(name)->names;
  parent->children.erase(name);
}

std::optional<Operation> OperationMaker::Try() {
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

Operation OperationMaker::Make(const Place& in, const std::string& name) {
  static constexpr uint32_t kModes[] = {S_IFREG | 0644, S_IFREG | 0600, S_IFREG | 0666,
                                        S_IFDIR | 0755, S_IFDIR | 0700, S_IFLNK | 0777,
                                        S_IFIFO | 0600, S_IFCHR | 0600};
  const uint32_t mode = kModes[Below(std::size(kModes))];
  const std::string target = S_ISLNK(mode) ? Bytes(1 + Below(4000)) : "";
  const uint64_t rdev = S_ISCHR(mode) ? 0x103 : 0;
  const bool temporary = S_ISREG(mode) && OneIn(4);
  return {
      (temporary ? "tmpfile and link " : "make ") + in.path + "/" + name + " " +
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
        in.node->children[name] = std::make_shared<Node>(Node{mode, 0, 0, rdev, 1, target, {}, {}});
      },
      {},
      /*makes_space=*/false,
      /*one_call=*/!temporary};
}

Operation OperationMaker::LinkTo(const Place& of, const Place& in, const std::string& name) {
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

Operation OperationMaker::Remove(const Place& what) {
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

std::optional<Operation> OperationMaker::Move(const std::vector<Place>& places) {
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
        return Outcome(
            fs.Rename(ctx, Walk(fs, from.directory()), from.name, Walk(fs, in.path), name, flags));
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

void OperationMaker::Overwrite(std::string* data, uint64_t offset, std::string_view bytes) {
  if (data->size() < offset + bytes.size()) data->resize(offset + bytes.size());
  data->replace(offset, bytes.size(), bytes);
}

Operation OperationMaker::Put(const Place& of, uint64_t offset, const std::string& bytes) const {
  return {"write " + of.path + " at " + std::to_string(offset) + " " + std::to_string(bytes.size()),
          [=](Filesystem& fs, const Context& ctx) {
            return Outcome(fs.Write(ctx, Walk(fs, of.path), offset, BytesOf(bytes)));
          },
          [=](int64_t done) {
            Overwrite(&of.node->data, offset,
                      std::string_view(bytes).substr(0, static_cast<size_t>(done)));
          },
          {FirstPath(of.node), offset, offset + bytes.size()}};
}

Operation OperationMaker::Allocate(const Place& of) {
  static constexpr int kModes[] = {0, FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                   FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
  const int mode = kModes[Below(std::size(kModes))];
  const bool zero = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
  const uint64_t offset = Offset(), length = 1 + Below(OneIn(3) ? 1000000 : 20000);
  // Allocations that stay must fit, most times.
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

std::optional<Operation> OperationMaker::Copy(const Place& from, const Place& to) {
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

Operation OperationMaker::Attributes(const Place& of) {
  const std::string name = (S_ISREG(of.node->mode) || of.node->directory() ? "user." : "trusted.") +
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

}  // namespace pkramfs
