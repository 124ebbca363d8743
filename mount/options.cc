#include "mount/options.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace pkramfs {
namespace {

// For the kernel and libfuse, as they stand.
constexpr std::string_view kFuseOptions[] = {
    "allow_other", "allow_root", "auto_unmount", "default_permissions",
    "async",       "atime",      "dev",          "diratime",
    "dirsync",     "exec",       "noatime",      "nodev",
    "nodiratime",  "noexec",     "nosuid",       "rw",
    "ro",          "suid",       "sync",         "debug"};

// For mount(8), fstab and systemd; nothing to do for us.
constexpr std::string_view kIgnoredOptions[] = {
    "defaults", "auto",   "noauto",  "user",     "nouser",     "users",      "owner",
    "group",    "nofail", "_netdev", "relatime", "norelatime", "nolazytime", "nostrictatime"};

template <size_t N>
bool Contains(const std::string_view (&list)[N], std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

absl::Status Wrong(std::string_view option, std::string_view value, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      "option ", std::string(option), "=", std::string(value), ": not ", std::string(wanted)));
}

absl::Status ParseId(std::string_view option, std::string_view value, std::optional<uint32_t>* id) {
  uint32_t number;
  if (!absl::SimpleAtoi(std::string(value), &number) || number == ~uint32_t{0}) {
    return Wrong(option, value, "a numeric id");
  }
  *id = number;
  return absl::OkStatus();
}

absl::Status ParseMode(std::string_view value, std::optional<uint32_t>* mode) {
  uint32_t number = 0;
  for (const char c : value) {
    if (c < '0' || c > '7' || number > 0777) return Wrong("mode", value, "an octal mode, as 1777");
    number = number * 8 + static_cast<uint32_t>(c - '0');
  }
  if (value.empty()) return Wrong("mode", value, "an octal mode, as 1777");
  *mode = number;
  return absl::OkStatus();
}

absl::Status ApplyOne(std::string_view option, uint64_t memory, MountOptions* options) {
  const size_t equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  const bool has_value = equals != std::string_view::npos;
  const std::string_view value = has_value ? option.substr(equals + 1) : std::string_view();
  if (name.substr(0, 2) == "x-" || name.substr(0, 2) == "X-" || name == "comment") {
    return absl::OkStatus();
  }
  if (has_value && name == "size") {
    absl::StatusOr<uint64_t> size = ParseSize(value, memory);
    if (!size.ok()) return size.status();
    if (*size == 0) return Wrong(name, value, "possible: a region has a size, as size=2G");
    options->size = *size;
    return absl::OkStatus();
  }
  if (has_value && name == "nr_inodes") {
    absl::StatusOr<uint64_t> count = ParseSize(value, 0);
    if (!count.ok()) return Wrong(name, value, "a number, as 10k");
    options->max_inodes = *count;  // 0: no limit but that of the pages
    return absl::OkStatus();
  }
  if (has_value && name == "mode") return ParseMode(value, &options->mode);
  if (has_value && name == "uid") return ParseId(name, value, &options->uid);
  if (has_value && name == "gid") return ParseId(name, value, &options->gid);
  if (has_value && name == "pkram") {
    if (value.empty() || value.size() > 255) return Wrong(name, value, "a name of 1 to 255 bytes");
    options->node = value;
    return absl::OkStatus();
  }
  if (has_value && (name == "fsname" || name == "subtype" || name == "max_read")) {
    options->fuse.emplace_back(option);
    return absl::OkStatus();
  }
  if (!has_value && name == "mlock") {
    options->lock_memory = true;
    return absl::OkStatus();
  }
  if (!has_value && (name == "export" || name == "noexport")) {
    options->export_handles = name == "export";
    return absl::OkStatus();
  }
  if (!has_value && name == "writeback") {
    options->writeback = true;
    return absl::OkStatus();
  }
  if (!has_value && name == "remount") {
    return absl::InvalidArgumentError(
        "option remount: a FUSE filesystem cannot be remounted in place: unmount it and mount it "
        "again, its files stay; `pkramctl resize` changes size= and nr_inodes= in place");
  }
  if (!has_value && Contains(kFuseOptions, name)) {
    if (name == "ro") options->read_only = true;
    if (name == "rw") options->read_only = false;
    options->fuse.emplace_back(option);
    return absl::OkStatus();
  }
  if (!has_value && Contains(kIgnoredOptions, name)) return absl::OkStatus();
  if (options->sloppy) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("unknown option '", std::string(option), "': see pkramfs --help"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseSize(std::string_view text, uint64_t memory) {
  const std::string_view whole = text;
  uint64_t unit = 1;
  const char last = text.empty() ? '\0' : text.back();
  const std::string_view units = "kmgt";
  if (const size_t at = units.find(static_cast<char>(last | 0x20)); at != std::string_view::npos) {
    unit = uint64_t{1} << (10 * (at + 1));
    text.remove_suffix(1);
  } else if (last == '%' && memory != 0) {
    text.remove_suffix(1);
  }
  uint64_t number;
  if (text.empty() || text.front() < '0' || text.front() > '9' ||
      !absl::SimpleAtoi(std::string(text), &number) ||
      number > std::numeric_limits<int64_t>::max() / unit) {
    return Wrong("size", whole, "a size: bytes, or with k, m, g, t or %, as 2G");
  }
  if (last == '%') return memory / 100 * number;
  return number * unit;
}

absl::Status ApplyMountOptions(std::string_view list, uint64_t memory, MountOptions* options) {
  const std::string copy(list);
  for (const absl::string_view part : absl::StrSplit(copy, ',', absl::SkipEmpty())) {
    if (absl::Status s = ApplyOne({part.data(), part.size()}, memory, options); !s.ok()) return s;
  }
  return absl::OkStatus();
}

std::string RegionPath(std::string_view name) {
  uint32_t fd;
  if (name.substr(0, 3) == "fd=" && absl::SimpleAtoi(std::string(name.substr(3)), &fd)) {
    return absl::StrCat("/proc/self/fd/", fd);
  }
  return name.find('/') == std::string_view::npos ? absl::StrCat("/dev/shm/", std::string(name))
                                                  : std::string(name);
}

uint64_t PhysicalMemory() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace pkramfs
