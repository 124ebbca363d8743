#include "mount/tools/tree_source.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "mount/region/mounts.h"
#include "mount/tools/directory.h"
#include "mount/tools/file_attributes.h"
#include "mount/tools/workers.h"
#include "pkram/descriptor.h"
#include "pkram/mutex.h"

namespace pkramfs {

using pkram::kPageSize;
using pkram::PagesFor;

namespace {

absl::Status Changed(const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": changed while it was read: nothing was imported"));
}

// The path in /proc of an open file.
std::string PathOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

// A directory that stays open as long as one of its files is to be read.
using Directory = std::shared_ptr<const pkram::Descriptor>;

class Source {
 public:
  // Without a builder it counts.
  Source(TreeBuilder* builder, pkram::Region* region, int threads, ImportProgress* progress)
      : builder_(builder), region_(region), progress_(progress), workers_(threads) {}
  ~Source() { stopped_ = true; }

  // Builds the file at `name` in `in`, and returns its number.
  absl::StatusOr<TreeBuilder::Name> Read(const Directory& in, const std::string& name,
                                         const std::string& path, Ino parent);
  absl::Status ReadSeveral(const std::vector<std::string>& sources, TreeBuilder::Name* top);
  // Waits until all that was begun is done.
  absl::Status Finish();

 private:
  absl::Status ReadDirectory(const Directory& in, const std::string& name, const std::string& path,
                             const struct stat& st, Ino ino, Ino parent);
  absl::Status ReadFile(const Directory& in, const std::string& name, const std::string& path,
                        const struct stat& st, Ino ino);
  absl::Status ReadOther(const Directory& in, const std::string& name, const std::string& path,
                         const struct stat& st, Ino ino);
  absl::StatusOr<std::vector<TreeBuilder::Extent>> ExtentsOf(int fd, const std::string& path,
                                                             uint64_t size) const;
  absl::Status SendBytes(int fd, const std::string& path, uint64_t offset, uint64_t size,
                         uint64_t to) const;
  absl::Status CopyBytes(int fd, const std::string& path, uint64_t offset, uint64_t size,
                         uint64_t to) const;
  void Count(const struct stat& st, size_t entries);
  Ino Reserve() { return builder_ != nullptr ? builder_->Reserve() : 0; }
  void Note(absl::Status status) {
    if (status.ok()) return;
    pkram::MutexLock lock(&mu_);
    if (problem_.ok()) problem_ = std::move(status);
    stopped_ = true;
  }

  TreeBuilder* const builder_;
  pkram::Region* const region_;
  ImportProgress* const progress_;
  struct Linked {
    Ino ino;
    uint32_t names;
  };
  absl::flat_hash_map<std::pair<dev_t, ino_t>, Linked> linked_;
  std::atomic<bool> stopped_{false};
  pkram::Mutex mu_;
  absl::Status problem_ ABSL_GUARDED_BY(mu_);
  Workers workers_;
};

void Source::Count(const struct stat& st, size_t entries) {
  ++progress_->inodes;
  uint64_t pages = 1;
  if (S_ISREG(st.st_mode)) {
    const auto size = static_cast<uint64_t>(st.st_size);
    if (builder_ != nullptr) return;
    progress_->bytes += size;
    // Holes are no pages.
    const uint64_t held =
        std::min(PagesFor(size), static_cast<uint64_t>(st.st_blocks) * 512 / kPageSize + 1);
    if (size > kInlineBytes) pages += held;
    if (held > pkram::format::kShortLinkEntries) {
      pages += (held + pkram::format::kLinkEntries - 1) / pkram::format::kLinkEntries;
    }
  }
  pages += entries / kInlineSlots;
  progress_->pages += pages;
}

absl::StatusOr<TreeBuilder::Name> Source::Read(const Directory& in, const std::string& name,
                                               const std::string& path, Ino parent) {
  struct stat st;
  if (fstatat(in->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return Failed(path, errno);
  TreeBuilder::Name named{name, 0, st.st_mode};
  if (S_ISDIR(st.st_mode)) {
    named.ino = Reserve();
    absl::Status read = ReadDirectory(in, name, path, st, named.ino, parent);
    if (!read.ok()) return read;
    return named;
  }
  if (st.st_nlink > 1) {
    const auto [it, is_new] = linked_.try_emplace({st.st_dev, st.st_ino}, Linked{0, 0});
    if (is_new) it->second.ino = Reserve();
    named.ino = it->second.ino;
    if (++it->second.names > 1) return named;
  } else {
    named.ino = Reserve();
  }
  Count(st, 0);
  if (builder_ == nullptr) return named;
  workers_.Add([this, in, name, path, st, ino = named.ino] {
    if (stopped_) return;
    Note(S_ISREG(st.st_mode) ? ReadFile(in, name, path, st, ino)
                             : ReadOther(in, name, path, st, ino));
  });
  return named;
}

absl::Status Source::ReadDirectory(const Directory& in, const std::string& name,
                                   const std::string& path, const struct stat& st, Ino ino,
                                   Ino parent) {
  if (progress_->stop) return absl::CancelledError(path);
  const auto directory = std::make_shared<const pkram::Descriptor>(
      openat(in->get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (directory->get() < 0) return Failed(path, errno);
  TreeBuilder::Attributes attributes = AttributesOf(st);
  if (builder_ != nullptr) {
    absl::Status read = ReadXattrs(directory->get(), path, st.st_mode, &attributes.xattrs);
    if (!read.ok()) return read;
  }
  const absl::StatusOr<std::vector<std::string>> names = ListNames(directory->get(), path);
  if (!names.ok()) return names.status();
  std::vector<TreeBuilder::Name> entries;
  for (const std::string& entry : *names) {
    if (stopped_) return absl::OkStatus();  // an error that is known already
    absl::StatusOr<TreeBuilder::Name> named =
        Read(directory, entry, absl::StrCat(path, path.ends_with('/') ? "" : "/", entry), ino);
    if (!named.ok()) return named.status();
    entries.push_back(*std::move(named));
  }
  struct stat now;
  if (fstat(directory->get(), &now) != 0) return Failed(path, errno);
  if (!IsSame(st, now)) return Changed(path);
  Count(st, entries.size());
  if (builder_ == nullptr) return absl::OkStatus();
  return builder_->MakeDirectory(ino, parent, attributes, entries);
}

absl::Status Source::ReadOther(const Directory& in, const std::string& name,
                               const std::string& path, const struct stat& st, Ino ino) {
  TreeBuilder::Attributes attributes = AttributesOf(st);
  absl::Status read =
      ReadXattrs(absl::StrCat(PathOf(in->get()), "/", name), path, st.st_mode, &attributes.xattrs);
  if (!read.ok()) return read;
  if (!S_ISLNK(st.st_mode)) return builder_->MakeNode(ino, attributes);
  char target[4097];
  const ssize_t size = readlinkat(in->get(), name.c_str(), target, sizeof(target));
  if (size < 0) return Failed(path, errno);
  if (size != st.st_size && st.st_size != 0) return Changed(path);
  if (static_cast<size_t>(size) > kMaxSymlink) return Failed(path, ENAMETOOLONG);
  return builder_->MakeSymlink(ino, attributes, {target, static_cast<size_t>(size)});
}

// --- Contents ---------------------------------------------------------------------------

// Reads whole pages; the last one as far as the file goes.
absl::StatusOr<std::vector<TreeBuilder::Extent>> Source::ExtentsOf(int fd, const std::string& path,
                                                                   uint64_t size) const {
  std::vector<TreeBuilder::Extent> extents;
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    const off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    if (data < 0 || hole < 0) return Failed(path, errno);
    const uint64_t from = std::max(at, static_cast<uint64_t>(data) / kPageSize * kPageSize);
    const uint64_t end = std::min(size, PagesFor(static_cast<uint64_t>(hole)) * kPageSize);
    if (end <= from) break;
    extents.push_back({from, end - from});
    at = end;
  }
  return extents;
}

absl::Status ReadAll(int fd, const std::string& path, uint64_t offset, absl::Span<char> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed(path, errno);
    if (n == 0) return Changed(path);
    offset += static_cast<uint64_t>(n);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

// Lets the kernel copy from its pages of the file to those of the region's file, each byte once.
// UNIMPLEMENTED, and nothing is done, where the kernel cannot.
absl::Status Source::SendBytes(int fd, const std::string& path, uint64_t offset, uint64_t size,
                               uint64_t to) const {
  const pkram::Descriptor region(
      open(PathOf(region_->backing().fd()).c_str(), O_WRONLY | O_CLOEXEC));
  if (region.get() < 0 || lseek(region.get(), static_cast<off_t>(to), SEEK_SET) < 0) {
    return absl::UnimplementedError(path);
  }
  auto from = static_cast<off_t>(offset);
  for (uint64_t done = 0; done < size;) {
    if (stopped_) return absl::CancelledError(path);
    constexpr uint64_t kAtOnce = 8 << 20;
    const ssize_t n = sendfile(region.get(), fd, &from, std::min(size - done, kAtOnce));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ENOSPC) return absl::ResourceExhaustedError(path);
    if (n < 0 && done == 0) return absl::UnimplementedError(path);
    if (n < 0) return Failed(path, errno);
    if (n == 0) return Changed(path);
    done += static_cast<uint64_t>(n);
    progress_->bytes += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

// Small pieces through a buffer that stays in the processor's cache.
absl::Status Source::CopyBytes(int fd, const std::string& path, uint64_t offset, uint64_t size,
                               uint64_t to) const {
  constexpr uint64_t kBuffer = 256 << 10;
  if (size >= kBuffer && !region_->backing().device_pages()) {
    absl::Status sent = SendBytes(fd, path, offset, size, to);
    if (!absl::IsUnimplemented(sent)) return sent;
  }
  static thread_local std::unique_ptr<char[]> buffer(new char[kBuffer]);
  for (uint64_t done = 0; done < size;) {
    if (stopped_) return absl::CancelledError(path);
    const uint64_t n = std::min(size - done, kBuffer);
    if (absl::Status s = ReadAll(fd, path, offset + done, {buffer.get(), n}); !s.ok()) return s;
    const iovec iov{buffer.get(), n};
    if (absl::Status s = region_->Fill(to + done, {&iov, 1}); !s.ok()) return s;
    done += n;
    progress_->bytes += n;
  }
  return absl::OkStatus();
}

absl::Status Source::ReadFile(const Directory& in, const std::string& name, const std::string& path,
                              const struct stat& st, Ino ino) {
  const pkram::Descriptor file(
      openat(in->get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.get() < 0) return Failed(path, errno);
  TreeBuilder::Attributes attributes = AttributesOf(st);
  if (absl::Status s = ReadXattrs(file.get(), path, st.st_mode, &attributes.xattrs); !s.ok()) {
    return s;
  }
  const auto size = static_cast<uint64_t>(st.st_size);
  const int fd = file.get();
  std::vector<TreeBuilder::Extent> extents;
  if (static_cast<uint64_t>(st.st_blocks) * 512 < size) {
    absl::StatusOr<std::vector<TreeBuilder::Extent>> found = ExtentsOf(fd, path, size);
    if (!found.ok()) return found.status();
    extents = *std::move(found);
  } else if (size > 0) {
    extents.push_back({0, size});
  }
  const TreeBuilder::Reader reader = {
      [&](uint64_t offset, absl::Span<char> bytes) {
        progress_->bytes += bytes.size();
        return ReadAll(fd, path, offset, bytes);
      },
      [&](uint64_t offset, uint64_t n, uint64_t to) { return CopyBytes(fd, path, offset, n, to); }};
  absl::Status made = builder_->MakeFile(ino, attributes, size, extents, reader);
  if (absl::IsResourceExhausted(made)) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": no space is left in the region"));
  }
  if (!made.ok()) return made;
  // Checks that this is the file that was looked at before, and that it has not changed since.
  struct stat now;
  if (fstat(fd, &now) != 0) return Failed(path, errno);
  return IsSame(st, now) ? absl::OkStatus() : Changed(path);
}

// --- The whole ----------------------------------------------------------------------------

std::string LastPart(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

absl::Status Source::ReadSeveral(const std::vector<std::string>& sources, TreeBuilder::Name* top) {
  struct stat st {};
  st.st_mode = S_IFDIR | 0755;
  st.st_uid = geteuid();
  st.st_gid = getegid();
  clock_gettime(CLOCK_REALTIME, &st.st_mtim);
  st.st_atim = st.st_ctim = st.st_mtim;
  const auto here = std::make_shared<const pkram::Descriptor>(open(".", O_PATH | O_CLOEXEC));
  top->ino = Reserve();
  top->mode = st.st_mode;
  std::vector<TreeBuilder::Name> names;
  for (const std::string& source : sources) {
    absl::StatusOr<TreeBuilder::Name> name = Read(here, source, source, top->ino);
    if (!name.ok()) return name.status();
    name->name = LastPart(Canonical(source));
    for (const TreeBuilder::Name& other : names) {
      if (other.name != name->name) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": another source has the name ", name->name, ", too"));
    }
    names.push_back(*std::move(name));
  }
  Count(st, names.size());
  if (builder_ == nullptr) return absl::OkStatus();
  return builder_->MakeDirectory(top->ino, TreeBuilder::root(), AttributesOf(st), names);
}

absl::Status Source::Finish() {
  workers_.Finish();
  pkram::MutexLock lock(&mu_);
  if (problem_.ok() && builder_ != nullptr) {
    // Files that have names elsewhere, too, have as many here as were found.
    for (const auto& [of, linked] : linked_) builder_->SetLinks(linked.ino, linked.names);
  }
  return problem_;
}

absl::StatusOr<TreeBuilder::Name> ReadSources(const std::vector<std::string>& sources,
                                              Source* source) {
  TreeBuilder::Name top;
  if (sources.size() > 1) {
    if (absl::Status s = source->ReadSeveral(sources, &top); !s.ok()) return s;
  } else {
    // A link that is named is followed, as "DIR/" is.
    const std::string path = Canonical(sources[0]);
    const auto here = std::make_shared<const pkram::Descriptor>(open("/", O_PATH | O_CLOEXEC));
    absl::StatusOr<TreeBuilder::Name> read =
        source->Read(here, path, sources[0], TreeBuilder::root());
    if (!read.ok()) return read.status();
    top = *std::move(read);
  }
  if (absl::Status s = source->Finish(); !s.ok()) return s;
  return top;
}

}  // namespace

absl::StatusOr<Filesystem::BuiltTree> BuildTree(const std::vector<std::string>& sources,
                                                pkram::Region* region, int threads,
                                                ImportProgress* progress) {
  TreeBuilder builder(region);
  Source source(&builder, region, threads - 1, progress);
  const absl::StatusOr<TreeBuilder::Name> top = ReadSources(sources, &source);
  absl::StatusOr<Filesystem::BuiltTree> tree =
      top.ok() ? builder.Finish(top->ino, top->mode) : top.status();
  if (absl::IsResourceExhausted(tree.status()) && tree.status().message() == "the region is full") {
    return absl::ResourceExhaustedError("no space is left in the region");
  }
  return tree;
}

absl::Status CountTree(const std::vector<std::string>& sources, ImportProgress* progress) {
  Source source(nullptr, nullptr, 0, progress);
  return ReadSources(sources, &source).status();
}

}  // namespace pkramfs
