#include "mount/ctl/named_bytes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "mount/ctl/output.h"
#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"
#include "pkram/region.h"
#include "pkram/stream.h"

namespace pkramfs {
namespace {

constexpr size_t kBuffer = 1 << 20;

absl::Status IoError(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

template <typename Fn>
int ChangeRegion(const std::string& path, Fn change) {
  auto backing = OpenRegionBacking(path, pkram::OpenFor::kWriting);
  if (!backing.ok()) return Fail(backing.status());
  FsCheck check;
  pkram::Region::OpenOptions options;
  options.client = &check;
  auto region = pkram::Region::Open(*std::move(backing), options);
  if (!region.ok()) return Fail(region.status());
  const absl::Status changed = change(region->get());
  const absl::Status closed = (*region)->Close(&check);
  if (!changed.ok()) return Fail(changed);
  return closed.ok() ? 0 : Fail(closed);
}

// How many bytes a descriptor will give, or 0 if it does not know: of a pipe.
uint64_t SizeOf(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? static_cast<uint64_t>(st.st_size) : 0;
}

// Fills the buffer, so that a pipe does not become many short writes.  Returns fewer bytes at the
// end of the input only.
absl::StatusOr<size_t> ReadAll(int in, std::vector<std::byte>* buffer) {
  size_t have = 0;
  while (have < buffer->size()) {
    const ssize_t n = read(in, buffer->data() + have, buffer->size() - have);
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("read");
    have += static_cast<size_t>(n);
  }
  return have;
}

absl::Status WriteAll(int out, const std::byte* bytes, size_t size) {
  while (size > 0) {
    const ssize_t n = write(out, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("write");
    bytes += n;
    size -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status Put(pkram::Region* region, const std::string& name, int in) {
  auto save = pkram::SaveStream::Prepare(region, name);
  if (!save.ok()) return save.status();
  auto object = (*save)->PrepareObject();
  if (!object.ok()) return object.status();
  ProgressLine line("put", ProgressLine::Unit::kBytes);
  const uint64_t whole = SizeOf(in);
  uint64_t done = 0;
  std::vector<std::byte> buffer(kBuffer);
  for (;;) {
    const absl::StatusOr<size_t> have = ReadAll(in, &buffer);
    if (!have.ok()) return have.status();
    if (*have == 0) return (*save)->Finish();
    absl::Status s = (*object)->WriteBytes(absl::MakeConstSpan(buffer.data(), *have));
    if (!s.ok()) return s;
    line.Show(done += *have, whole);
  }
}

absl::Status Get(pkram::Region* region, const std::string& name, int out) {
  auto load = pkram::LoadStream::Prepare(region, name);
  if (!load.ok()) return load.status();
  uint64_t whole = 0, done = 0;
  for (const pkram::NodeCounts& node : region->found()) {
    if (node.name == name) whole = node.byte_pages * pkram::kPageSize;
  }
  ProgressLine line("get", ProgressLine::Unit::kBytes);
  std::vector<std::byte> buffer(kBuffer);
  for (;;) {
    auto object = (*load)->NextObject();
    if (absl::IsOutOfRange(object.status())) return absl::OkStatus();
    if (!object.ok()) return object.status();
    while (const size_t n = (*object)->ReadBytes(absl::MakeSpan(buffer))) {
      if (absl::Status s = WriteAll(out, buffer.data(), n); !s.ok()) return s;
      line.Show(done += n, whole);
    }
  }
}

absl::Status Remove(pkram::Region* region, const std::string& name) {
  if (absl::Status s = region->TakeName(name); !s.ok()) return s;
  const pkram::Pfn node = region->FindNode(name);
  if (!node) return absl::NotFoundError(absl::StrCat("no node '", name, "'"));
  region->RemoveNode(node);
  region->ReturnName(name);
  return absl::OkStatus();
}

}  // namespace

int RunPut(const std::string& region, const std::string& name) {
  return ChangeRegion(region, [&](pkram::Region* r) { return Put(r, name, STDIN_FILENO); });
}

int RunGet(const std::string& region, const std::string& name) {
  return ChangeRegion(region, [&](pkram::Region* r) { return Get(r, name, STDOUT_FILENO); });
}

int RunRemove(const std::string& region, const std::string& name) {
  return ChangeRegion(region, [&](pkram::Region* r) { return Remove(r, name); });
}

}  // namespace pkramfs
