// pkramctl preserve --check: what the kernel, the system and the region say before a kexec.
#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "mount/ctl/output.h"
#include "mount/ctl/preserve.h"
#include "mount/region/handover.h"
#include "mount/region/live_update.h"
#include "mount/region/memfd.h"
#include "mount/region/memory_limit.h"
#include "mount/region/units.h"
#include "mount/tools/live_mount.h"

namespace pkramfs {
namespace {

constexpr char kHandover[] = "/sys/kernel/debug/kho/out";

std::string TextOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Lines for a person: "ok" is as it should be; "missing" says what to do; "note" is what nobody but
// the reader can check.
class Findings {
 public:
  void Ok(const std::string& text) { Add("ok", text); }
  void Note(const std::string& text) { Add("note", text); }
  void Missing(const std::string& text) {
    Add("missing", text);
    ++missing_;
  }
  const std::string& text() const { return text_; }
  bool all_there() const { return missing_ == 0; }

 private:
  void Add(std::string state, const std::string& text) {
    state.resize(9, ' ');
    absl::StrAppend(&text_, state, text, "\n");
  }
  std::string text_;
  int missing_ = 0;
};

bool HasWord(const std::string& line, std::string_view word) {
  const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \n"));
  return std::ranges::count(words, word) != 0;
}

void LookAtKernel(Findings* findings) {
  utsname name{};
  uname(&name);
  const std::string release = name.release;
  const std::string built = TextOf("/boot/config-" + release);
  const std::string words = TextOf("/proc/cmdline");
  const bool has_words = HasWord(words, "kho=on") && HasWord(words, "liveupdate=on");
  if (access(kLiveUpdateDevice, F_OK) == 0) {
    findings->Ok(absl::StrCat("kernel: Linux ", release, " has ", kLiveUpdateDevice));
  } else if (built.find("CONFIG_LIVEUPDATE_MEMFD=y") == std::string::npos && !built.empty()) {
    findings->Missing(absl::StrCat("kernel: Linux ", release,
                                   " was built without CONFIG_LIVEUPDATE_MEMFD: take one of 7.0 or "
                                   "newer that has it"));
  } else if (has_words) {
    findings->Missing(absl::StrCat("kernel: Linux ", release, " has no ", kLiveUpdateDevice,
                                   ": it takes 7.0 or newer with CONFIG_LIVEUPDATE_MEMFD"));
  } else {
    findings->Missing(absl::StrCat("kernel: Linux ", release, " has no ", kLiveUpdateDevice,
                                   ": boot 7.0 or newer, built with CONFIG_LIVEUPDATE_MEMFD, with "
                                   "the words below"));
  }
  if (has_words) {
    findings->Ok("command line: kho=on liveupdate=on");
  } else {
    findings->Missing(
        "command line: add kho=on liveupdate=on, to this kernel's and the next one's");
  }
}

// Of the kernel and initrd that are booted next nothing is known but what lies in /boot.
void LookAtScratch(Findings* findings) {
  uint64_t scratch = 0;
  for (const auto& length : absl::StrSplit(TextOf(absl::StrCat(kHandover, "/scratch_len")), '\n',
                                           absl::SkipWhitespace())) {
    scratch = std::max<uint64_t>(scratch, std::strtoull(std::string(length).c_str(), nullptr, 0));
  }
  if (scratch == 0) {
    findings->Note(
        "scratch memory: its size is not seen (mount -t debugfs none /sys/kernel/debug); the next "
        "kernel and its initrd must fit");
    return;
  }
  uint64_t largest = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/boot", error)) {
    if (entry.path().filename().string().starts_with("initrd")) {
      largest = std::max(largest, entry.file_size(error));
    }
  }
  if (largest == 0) {
    findings->Note(absl::StrCat("scratch memory: ", Human(scratch),
                                "; the next kernel and its initrd must fit"));
  } else if (largest < scratch) {
    findings->Ok(absl::StrCat("scratch memory: ", Human(scratch), ", for the next kernel and its ",
                              "initrd (the largest in /boot has ", Human(largest), ")"));
  } else {
    findings->Missing(absl::StrCat("scratch memory: ", Human(scratch), ", and the largest initrd ",
                                   "in /boot has ", Human(largest),
                                   ": boot with a larger kho_scratch="));
  }
}

// The words by which two kernels know whether they understand each other.
void LookAtAbi(Findings* findings) {
  std::vector<std::string> found;
  for (const auto& [file, prefix] :
       {std::pair{"/fdt", "kho-v"}, std::pair{"/sub_fdts/LUO", "luo-v"}}) {
    const std::string bytes = TextOf(absl::StrCat(kHandover, file));
    const size_t at = bytes.find(prefix);
    if (at != std::string::npos) found.emplace_back(bytes.c_str() + at);
  }
  findings->Note(
      found.empty() ? "next kernel: must understand this one's handover; nothing of it is seen here"
                    : absl::StrCat("next kernel: must understand ", absl::StrJoin(found, ", "),
                                   ", or everything is freed"));
}

void LookAtKexec(Findings* findings) {
  if (TextOf("/sys/kernel/kexec_loaded") == "1\n") {
    findings->Note(
        "kexec: a kernel is loaded; was it by kexec -s? Otherwise all is lost, silently");
  } else {
    findings->Note("kexec: no kernel is loaded; load one by kexec -s, never without -s");
  }
}

void LookAtSystemd(Findings* findings) {
  const std::optional<int> version = SystemdVersion();
  if (!version) {
    findings->Note("systemd: does not run here; use kexec -e");
  } else if (*version >= kSystemdSince) {
    findings->Ok(
        absl::StrCat("systemd: ", *version, " brings what a unit has preserved over a kexec"));
  } else {
    findings->Note(absl::StrCat("systemd: ", *version, " brings nothing over a kexec, ",
                                kSystemdSince, " does; use kexec -e"));
  }
}

// Who has the session of that name open.
std::string HolderOf(const std::string& session) {
  const std::vector<std::string> holders = HoldersOfSession(session);
  if (holders.empty()) return "";
  std::string name = TextOf("/proc/" + holders.front() + "/comm");
  if (!name.empty()) name.pop_back();
  return absl::StrCat("process ", holders.front(), " (", name, ")");
}

void LookAtRegion(const std::string& given, Findings* findings) {
  const absl::StatusOr<std::string> region = RegionAt(RegionOrMountPoint(given));
  if (!region.ok() || !IsMemfd(*region)) {
    findings->Missing(absl::StrCat(
        given, ": ", region.ok() ? "not memfd:NAME" : std::string(region.status().message())));
    return;
  }
  const absl::StatusOr<std::string> session = SessionOf(*region);
  if (!session.ok()) {
    findings->Missing(std::string(session.status().message()));
    return;
  }
  const pkram::Descriptor memfd = OpenMemfd(*region, O_RDONLY);
  if (memfd.get() < 0) {
    findings->Missing(absl::StrCat(*region, ": no process of this user holds one of that name"));
    return;
  }
  const std::string holder = HolderOf(*session);
  if (holder.empty()) {
    findings->Note(absl::StrCat(*region, ": not preserved yet"));
  } else {
    findings->Ok(absl::StrCat(*region, ": preserved; ", holder, " has its session"));
    if (holder.find("(pkramfs-session)") != std::string::npos) {
      findings->Note("that process ends at systemctl kexec: use kexec -e, or pkramfs@.service");
    }
  }
  const absl::StatusOr<PreserveCost> cost = CostOf(memfd.get());
  if (!cost.ok()) return;
  const std::string takes = absl::StrCat("memory: ", Human(cost->bytes), " will be preserved; ",
                                         Human(cost->holes), " of it are holes, which take memory");
  if (cost->holes <= cost->room) {
    findings->Ok(takes);
  } else {
    findings->Missing(absl::StrCat(takes, ", and ", Human(cost->room), " can be had"));
  }
}

void LookAtLimits(Findings* findings) {
  const std::string top = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0
                              ? "/sys/fs/cgroup/cgroup.procs"
                              : "/sys/fs/cgroup/memory/cgroup.procs";
  if (access(top.c_str(), W_OK) == 0 || access("/sys/fs/cgroup", F_OK) != 0) {
    findings->Ok("limits: the memory is taken back outside of all cgroups");
    return;
  }
  const std::optional<MemoryLimit> limit = LowestMemoryLimit();
  if (!limit) return;
  findings->Missing(
      absl::StrCat("limits: ", limit->file, " is ", Human(limit->bytes), ", and ", top,
                   " cannot be written to: a mount in this cgroup will refuse to take "
                   "the memory back"));
}

}  // namespace

int RunPreserveCheck(const std::string& given) {
  Findings findings;
  LookAtKernel(&findings);
  LookAtScratch(&findings);
  LookAtAbi(&findings);
  LookAtKexec(&findings);
  LookAtSystemd(&findings);
  LookAtLimits(&findings);
  if (!given.empty()) LookAtRegion(given, &findings);
  const int printed = Print(findings.text());
  return printed != 0 ? printed : findings.all_there() ? 0 : kProblems;
}

}  // namespace pkramfs
