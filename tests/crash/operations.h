// Random operations of a filesystem, each also on the model.
#ifndef TESTS_CRASH_OPERATIONS_H_
#define TESTS_CRASH_OPERATIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/crash/model.h"

namespace pkramfs {

// An operation that works, in a region that has space.
struct Operation {
  std::string text;
  // Returns how much was done (of bytes; else 0), or a negative errno.
  std::function<int64_t(Filesystem&, const Context&)> run;
  // Does the same to the model, which has the operation's nodes.
  std::function<void(int64_t done)> apply;
  Mask mask{};
  bool makes_space = false;  // so that "full" is no answer
  bool one_call = true;      // else the state may be seen between two calls of it
};

class OperationMaker {
 public:
  OperationMaker(uint64_t seed, NodePtr root) : root_(std::move(root)), random_(seed) {}

  uint64_t Below(uint64_t n) { return random_() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  // An operation that the model says will work, if there is space.
  Operation One();

 private:
  struct Place {
    std::string path;
    NodePtr node, parent;
    std::string name;
    std::string directory() const {
      return path.size() > name.size() ? path.substr(0, path.size() - name.size() - 1) : "";
    }
  };

  void Collect(const NodePtr& node, const std::string& path, std::vector<Place>* places) const;
  std::vector<Place> Places() const;
  template <typename Fn>
  std::optional<Place> PickWhere(const std::vector<Place>& places, Fn good) {
    std::vector<const Place*> those;
    for (const Place& p : places) {
      if (good(*p.node)) those.push_back(&p);
    }
    if (those.empty()) return std::nullopt;
    return *those[Below(those.size())];
  }
  std::string NewName(const Node& directory);
  uint64_t Offset();
  std::string FirstPath(const NodePtr& node) const;
  std::string Bytes(size_t size);
  static void Drop(const NodePtr& parent, const std::string& name);

  // No operation if the kind that was picked has nothing to work on.
  std::optional<Operation> Try();
  Operation Make(const Place& in, const std::string& name);
  static Operation LinkTo(const Place& of, const Place& in, const std::string& name);
  static Operation Remove(const Place& what);
  std::optional<Operation> Move(const std::vector<Place>& places);
  static void Overwrite(std::string* data, uint64_t offset, std::string_view bytes);
  Operation Put(const Place& of, uint64_t offset, const std::string& bytes) const;
  Operation Allocate(const Place& of);
  std::optional<Operation> Copy(const Place& from, const Place& to);
  Operation Attributes(const Place& of);

  const NodePtr root_;
  std::mt19937_64 random_;
};

}  // namespace pkramfs

#endif  // TESTS_CRASH_OPERATIONS_H_
