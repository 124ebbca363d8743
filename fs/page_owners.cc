#include "fs/page_owners.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace pkramfs {
namespace {

namespace format = pkram::format;

class Paths {
 public:
  explicit Paths(const SurvivingTree& tree) {
    for (const auto& [directory, names] : tree.names) {
      for (const SurvivingName& name : names) names_.try_emplace(name.ino, directory, &name.name);
    }
  }

  std::string Of(Ino ino) const {
    if (ino == kRootIno) return "/";
    std::vector<const std::string*> names;
    std::set<Ino> seen;
    for (Ino at = ino; at != kRootIno;) {
      const auto name = names_.find(at);
      // In a damaged region a directory may be below itself.
      if (name == names_.end() || !seen.insert(at).second) return absl::StrCat("inode ", ino);
      names.push_back(name->second.second);
      at = name->second.first;
    }
    std::string path;
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      absl::StrAppend(&path, "/", **name);
    }
    return path;
  }

 private:
  std::map<Ino, std::pair<Ino, const std::string*>> names_;
};

}  // namespace

std::map<pkram::Pfn, std::string> OwnersOf(const std::set<pkram::Pfn>& wanted,
                                           const pkram::PageView& pages,
                                           const SurvivingTree& tree) {
  std::map<pkram::Pfn, std::string> owners;
  if (!tree.filesystem) return owners;
  const Paths paths(tree);
  const auto note = [&](pkram::Pfn page, Ino ino) {
    if (wanted.contains(page)) owners.try_emplace(page, paths.Of(ino));
  };
  for (const auto& [ino, inode] : tree.inodes) {
    note(inode.page, ino);
    const format::ObjectHeader& header = pages.At<format::Object>(inode.page)->header;
    const auto each = [&, owner = ino](std::optional<uint64_t>, pkram::Pfn page) {
      note(page, owner);
      return true;
    };
    ForEachPage(pages, header.pages, header.allocated_end, each);
    ForEachPage(pages, header.bytes, pkram::PagesFor(header.bytes_len), each);
  }
  for (const auto& [ino, wreck] : tree.damaged) note(wreck.page, ino);
  return owners;
}

}  // namespace pkramfs
