// Crash points: copies of a region as a successor would find it after a kill at a store,
// and what a new mount of such a copy shows.
#ifndef TESTS_CRASH_POINTS_H_
#define TESTS_CRASH_POINTS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/fs_fixture.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::MemoryFile;
using Image = MemoryFile::Image;

// How many were opened so far, for the report at the end.
inline std::atomic<uint64_t> crash_points_tried{0};

// Between two stores, only bytes that nothing reaches may have changed; often nothing has.
inline void Add(Image image, std::vector<Image>* images) {
  if (images->empty() || images->back() != image) images->push_back(std::move(image));
}

// While it records, takes an image of the region at every store, because its hook is the region's.
// With `most`, it takes so many, at random stores.
class Recorder {
 public:
  // A random number below `n`.
  using Below = std::function<uint64_t(uint64_t n)>;

  explicit Recorder(const MemoryFile* file) : file_(file) {}
  Recorder(const MemoryFile* file, size_t most, Below below)
      : most_(most), below_(std::move(below)), file_(file) {}
  std::function<void()> hook() {
    return [this] {
      if (recording) Store();
    };
  }
  void Start(bool records = true) {
    recording = records;
    stores_ = 0;
    images.clear();
  }
  bool recording = false;
  std::vector<Image> images;

 private:
  void Store() {
    ++stores_;
    if (images.size() < most_) return Add(file_->Save(), &images);
    if (const uint64_t i = below_(stores_); i < most_) images[i] = file_->Save();
  }

  const size_t most_ = SIZE_MAX;
  const Below below_;
  const MemoryFile* const file_;
  uint64_t stores_ = 0;
};

// Bytes of a file that may be torn.
struct Mask {
  std::string path;
  size_t from = 0;
  size_t to = 0;
};

inline Ino Walk(Filesystem& fs, const std::string& path) {
  Ino ino = kRootIno;
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const auto found = fs.Lookup(ino, path.substr(at, slash - at));
    if (!found.ok()) return 0;
    ino = (*found).ino;
    fs.Forget(ino, 1);
    at = slash + 1;
  }
  return ino;
}

// The picture of a region image, as a new mount shows it.  Numbers of inodes are
// left out when two operations race for them.
inline Picture PictureOfImage(const Image& image, const Mask& mask, bool numbers, int64_t* used) {
  MemoryFile file;
  file.Restore(image);
  Picture picture;
  {
    const Mounted mounted(file);
    if (mounted.fs() == nullptr) return picture;
    picture = PictureOf(mounted.fs());
  }
  // The mask is of the file, whatever name it is seen by.
  const auto masked = picture.find(mask.path);
  const auto number = [](const std::string& text) { return text.substr(0, text.find(" mode=")); };
  const std::string masked_ino = masked == picture.end() ? "" : number(masked->second);
  for (auto& [path, text] : picture) {
    const bool mask_this = number(text) == masked_ino;
    if (!numbers) text.erase(0, text.find(" mode="));
    if (!mask_this) continue;
    const size_t blocks = text.find(" blocks=");
    text.erase(blocks, text.find(' ', blocks + 1) - blocks);
    const size_t data = text.find(" data=") + 6;
    for (size_t i = data + mask.from; i < data + mask.to && i < text.size(); ++i) text[i] = '*';
  }
  FsCheck check;
  const int64_t pages = pkram::UsedPages(file, &check);
  if (used != nullptr) *used = pages;
  return picture;
}

inline std::string Difference(const Picture& a, const Picture& b) {
  std::string out;
  const auto brief = [](const std::string& s) { return s.substr(0, 300); };
  for (const auto& [path, text] : a) {
    const auto it = b.find(path);
    if (it == b.end())
      out += "only here: " + path + "\n";
    else if (it->second != text)
      out += path + "\n  " + brief(text) + "\n  " + brief(it->second) + "\n";
  }
  for (const auto& [path, text] : b) {
    if (!a.contains(path)) out += "only there: " + path + "\n";
  }
  return out;
}

// The images that a recovery of `image` leaves if it dies, one for each of its stores; or `most` of
// them.
inline std::vector<Image> DeathsInRecovery(const Image& image, size_t most = SIZE_MAX,
                                           Recorder::Below below = nullptr) {
  MemoryFile file;
  file.Restore(image);
  Recorder recorder(&file, most, std::move(below));
  recorder.Start();
  const Mounted recovered(file, 0, recorder.hook());
  return std::move(recorder.images);
}

}  // namespace pkramfs

#endif  // TESTS_CRASH_POINTS_H_
