#include "mount/region/options.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "mount/region/memfd.h"
#include "mount/region/memory_limit.h"

namespace pkramfs {
namespace {

// Options that go to the kernel and libfuse as they are.
constexpr std::string_view kFuseOptions[] = {"allow_other", "allow_root", "auto_unmount",
                                             "default_permissions", "debug"};

// The same, with a value.  The last four are for security modules.
constexpr std::string_view kFuseValues[] = {"fsname",    "subtype",    "context",
                                            "fscontext", "defcontext", "rootcontext"};

// Options for mount(8), fstab and systemd, and options that mean nothing here, as on tmpfs.
constexpr std::string_view kIgnoredOptions[] = {
    "defaults",   "auto",   "noauto",  "user",    "nouser",  "users",  "nousers", "owner",
    "noowner",    "group",  "nogroup", "nofail",  "_netdev", "mand",   "nomand",  "iversion",
    "noiversion", "silent", "loud",    "inode32", "inode64", "noquota"};
// The kernel reports user_id= and the like for a FUSE mount, and mount(8) passes them on.
constexpr std::string_view kIgnoredValues[] = {"user",    "comment",  "uhelper", "helper",
                                               "user_id", "group_id", "blksize"};

// Options of tmpfs for things that pkramfs does not have.
constexpr struct {
  std::string_view name, reason;
} kRefusedOptions[] = {
    {"huge", "pages of a FUSE filesystem are small ones: leave it out"},
    {"mpol",
     "whose memory is taken is the region's matter: leave it out, or start pkramfs with "
     "numactl"},
    {"quota", "there are no quotas: leave it out"},
    {"usrquota", "there are no quotas: leave it out"},
    {"grpquota", "there are no quotas: leave it out"},
    {"usrquota_block_hardlimit", "there are no quotas: leave it out"},
    {"usrquota_inode_hardlimit", "there are no quotas: leave it out"},
    {"grpquota_block_hardlimit", "there are no quotas: leave it out"},
    {"grpquota_inode_hardlimit", "there are no quotas: leave it out"},
    {"casefold", "names are compared byte by byte: leave it out"},
    {"strict_encoding", "names are bytes, of any encoding: leave it out"},
};

template <size_t N>
bool Contains(const std::string_view (&list)[N], std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

absl::Status Wrong(std::string_view option, std::string_view value, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      "option ", std::string(option), "=", std::string(value), ": not ", std::string(wanted)));
}

// A number or a name, as mount(8) takes them.
absl::Status ParseId(std::string_view option, std::string_view value, std::optional<uint32_t>* id) {
  const std::string name(value);
  uint32_t number;
  if (absl::SimpleAtoi(name, &number)) {
    *id = number;
  } else if (option == "uid") {
    const passwd* const user = getpwnam(name.c_str());
    if (user != nullptr) *id = user->pw_uid;
  } else {
    const group* const found = getgrnam(name.c_str());
    if (found != nullptr) *id = found->gr_gid;
  }
  if (*id && **id != ~uint32_t{0}) return absl::OkStatus();
  return Wrong(option, value, option == "uid" ? "a user that is known" : "a group that is known");
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

// "90", "10m", "1h", "1d"; seconds without a unit.
absl::Status ParseTime(std::string_view option, std::string_view value, uint64_t* seconds) {
  constexpr struct {
    char name;
    uint64_t seconds;
  } kUnits[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  std::string number(value);
  uint64_t unit = 1, count = 0;
  for (const auto& known : kUnits) {
    if (value.empty() || value.back() != known.name) continue;
    unit = known.seconds;
    number.pop_back();
  }
  if (!absl::SimpleAtoi(number, &count) || count > 10 * 365 * uint64_t{86400} / unit) {
    return Wrong(option, value, "a time: seconds, or with s, m, h or d, as 10m");
  }
  *seconds = count * unit;
  return absl::OkStatus();
}

absl::Status ParseYesNo(std::string_view option, std::string_view value, bool* yes) {
  if (value != "yes" && value != "no") return Wrong(option, value, "yes or no");
  *yes = value == "yes";
  return absl::OkStatus();
}

absl::Status ApplyCheckpoint(std::string_view name, std::string_view value, MountOptions* options) {
  if (name == "checkpoint_every") return ParseTime(name, value, &options->checkpoint_every);
  if (name == "checkpoint_at_exit") return ParseYesNo(name, value, &options->checkpoint_at_exit);
  // (What the daemon says of itself has room for so much.)
  if (value.empty() || value.front() != '/' || value.back() == '/' ||
      value.size() > kMaxImagePath) {
    return Wrong(name, value, "the whole path of a file, as /var/lib/pkramfs/cache.img");
  }
  options->checkpoint = value;
  return absl::OkStatus();
}

absl::Status ApplyOne(std::string_view option, uint64_t memory, MountOptions* options) {
  const size_t equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  const bool has_value = equals != std::string_view::npos;
  const std::string_view value = has_value ? option.substr(equals + 1) : std::string_view();
  if (name.substr(0, 2) == "x-" || name.substr(0, 2) == "X-") return absl::OkStatus();
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
  if (has_value && name == "nr_blocks") {
    absl::StatusOr<uint64_t> count = ParseSize(value, 0);
    if (!count.ok() || *count == 0 || *count > std::numeric_limits<int64_t>::max() / 4096) {
      return Wrong(name, value, "a number of 4 KiB blocks from 1 on, as 512k");
    }
    options->size = *count * 4096;
    return absl::OkStatus();
  }
  if (has_value &&
      (name == "checkpoint" || name == "checkpoint_every" || name == "checkpoint_at_exit")) {
    return ApplyCheckpoint(name, value, options);
  }
  if (has_value && name == "max_read") {
    uint32_t bytes;
    if (!absl::SimpleAtoi(std::string(value), &bytes) || bytes < 4096) {
      return Wrong(name, value, "a number of bytes from 4096 on");
    }
    options->max_read = bytes;
    return absl::OkStatus();
  }
  if (has_value && Contains(kFuseValues, name)) {
    options->fuse.emplace_back(option);
    return absl::OkStatus();
  }
  // tmpfs calls it noswap.
  if (!has_value && (name == "mlock" || name == "noswap")) {
    options->lock_memory = true;
    return absl::OkStatus();
  }
  if (!has_value && (name == "export" || name == "noexport")) {
    options->export_handles = name == "export";
    return absl::OkStatus();
  }
  if (!has_value && (name == "takeover" || name == "notakeover")) {
    options->takeover = name == "takeover";
    return absl::OkStatus();
  }
  if (!has_value && name == "writeback") {
    options->writeback = true;
    return absl::OkStatus();
  }
  if (!has_value && name == "remount") {
    options->remount = true;
    return absl::OkStatus();
  }
  if (!has_value && Contains(kFuseOptions, name)) {
    options->fuse.emplace_back(option);
    return absl::OkStatus();
  }
  if ((!has_value && options->flags.Apply(name)) ||
      (!has_value && Contains(kIgnoredOptions, name)) ||
      (has_value && Contains(kIgnoredValues, name)) || option == "huge=never" ||
      option == "mpol=default") {
    return absl::OkStatus();
  }
  for (const auto& refused : kRefusedOptions) {
    if (name == refused.name) {
      return absl::InvalidArgumentError(
          absl::StrCat("option ", std::string(name), ": ", std::string(refused.reason)));
    }
  }
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

bool ApplyLists(const std::string& program, const std::vector<std::string>& lists,
                MountOptions* options) {
  for (const std::string& list : lists) {
    if (absl::Status s = ApplyMountOptions(list, MemorySize(), options); !s.ok()) {
      std::fprintf(stderr, "%s: %s\n", program.c_str(), std::string(s.message()).c_str());
      return false;
    }
  }
  return true;
}

std::string RegionPath(std::string_view name) {
  if (name.substr(0, 3) == "fd=") {
    return absl::StrCat("/proc/self/fd/", std::string(name.substr(3)));
  }
  if (IsMemfd(name)) return std::string(name);
  return name.find('/') == std::string_view::npos ? absl::StrCat("/dev/shm/", std::string(name))
                                                  : std::string(name);
}

}  // namespace pkramfs
