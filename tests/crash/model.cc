#include "tests/crash/model.h"

#include <algorithm>

namespace pkramfs {
namespace {

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

}  // namespace

View ViewOf(const NodePtr& root) {
  std::map<Node*, std::string> firsts;
  View view;
  ViewModel(root, "", &firsts, &view);
  return view;
}

View ViewOf(Filesystem* fs) {
  std::map<Ino, std::string> firsts;
  View view;
  ViewFilesystem(fs, kRootIno, "", &firsts, &view);
  return view;
}

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

}  // namespace pkramfs
