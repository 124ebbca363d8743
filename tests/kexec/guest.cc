// What the guest of the kexec test needs besides the programs under test:
//   guest tree DIR              makes one of every kind of file there
//   guest manifest DIR FILE     writes down all that can be seen of a tree
//   guest compare DIR FILE      compares; prints the first difference
//   guest write DIR DEVICE      writers that note acknowledged calls at the device's end
//   guest verify DIR DEVICE     compares the files with these notes
//   guest scribble DEVICE       changes a byte of a region's metadata; again: back
//   guest time COMMAND...       runs it and prints how long it took
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "pkram/backing.h"
#include "pkram/format.h"
#include "tests/manifest.h"
#include "tests/noted_writers.h"
#include "tests/odd_tree.h"

namespace pkramfs {
namespace {

using Arguments = std::vector<std::string>;

// Names and values may hold anything, so their lengths come first.
void Print(const Manifest& manifest, const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  for (const auto& [name, text] : manifest) {
    out << name.size() << ' ' << text.size() << ' ' << name << text << '\n';
  }
}

Manifest ManifestFrom(const std::string& path) {
  Manifest manifest;
  std::ifstream in(path, std::ios::binary);
  for (size_t name_size, text_size; in >> name_size >> text_size && in.get() == ' '; in.get()) {
    std::string name(name_size, 0), text(text_size, 0);
    in.read(name.data(), static_cast<std::streamsize>(name_size));
    in.read(text.data(), static_cast<std::streamsize>(text_size));
    manifest[name] = text;
  }
  return manifest;
}

int Compare(const std::string& dir, const std::string& path) {
  const Manifest before = ManifestFrom(path), now = ManifestOf(dir);
  const std::string difference = FirstDifference(before, now);
  if (!difference.empty() || before.empty()) {
    std::printf("DIFFERENT: %s\n", difference.c_str());
    return 1;
  }
  std::printf("  %zu entries are as they were\n", now.size());
  return 0;
}

// The notes are in the device's last pages, behind the region.
Noted* NotesOf(pkram::Backing* device) {
  const uint64_t pages = *device->Size() / pkram::kPageSize;
  const absl::Span<std::byte> all = device->Map(pages, true).value();
  static_assert(sizeof(Noted) * kWriters * kFilesOfAWriter < 16 * pkram::kPageSize);
  return reinterpret_cast<Noted*>(all.data() + (pages - 16) * pkram::kPageSize);
}

std::unique_ptr<pkram::Backing> Device(const std::string& path) {
  return pkram::OpenBacking(path, pkram::OpenFor::kWriting).value();
}

// Until the kernel is gone.
int Write(const std::string& dir, const std::string& path) {
  const auto device = Device(path);
  Noted* const notes = NotesOf(device.get());
  std::memset(static_cast<void*>(notes), 0, 16 * pkram::kPageSize);
  for (int w = 0; w < kWriters; ++w) {
    if (fork() == 0) {
      Writer(dir + "/" + std::to_string(w), notes + w * kFilesOfAWriter,
             static_cast<uint64_t>(w) + 1)
          .Run();
      _exit(1);
    }
  }
  while (wait(nullptr) > 0) continue;
  return 1;
}

int Verify(const std::string& dir, const std::string& path) {
  const auto device = Device(path);
  Noted* const notes = NotesOf(device.get());
  NotedCounts counts;
  const std::string wrong = CheckNotes(dir, notes, &counts);
  uint64_t versions = 0;
  for (int i = 0; i < kWriters * kFilesOfAWriter; ++i) versions += notes[i].acknowledged.version;
  std::printf(
      "  at least %llu acknowledged calls are there; %llu were in flight, %llu of them done\n",
      static_cast<unsigned long long>(versions), static_cast<unsigned long long>(counts.in_flight),
      static_cast<unsigned long long>(counts.done));
  if (!wrong.empty()) std::printf("DIFFERENT: %s\n", wrong.c_str());
  return wrong.empty() && versions > 0 ? 0 : 1;
}

int Scribble(const std::string& path) {
  const auto device = Device(path);
  const absl::Span<std::byte> all = device->Map(*device->Size() / pkram::kPageSize, true).value();
  pkram::format::SuperBlock super;
  std::memcpy(&super, all.data(), sizeof(super));
  const pkram::Pfn node = pkram::format::EntryPfn(super.nodes);
  all[node.offset() + 100] ^= std::byte{1};
  std::printf("  a bit of page %llu is changed\n", static_cast<unsigned long long>(node.value()));
  return 0;
}

int Time(const Arguments& arguments) {
  std::vector<char*> argv;
  std::string line;
  for (const std::string& a : arguments) {
    argv.push_back(const_cast<char*>(a.c_str()));
    line += " " + a;
  }
  argv.push_back(nullptr);
  const auto begin = std::chrono::steady_clock::now();
  pid_t pid;
  if (posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) return 127;
  int status;
  waitpid(pid, &status, 0);
  const auto took = std::chrono::steady_clock::now() - begin;
  std::fprintf(stderr, "  %7.1f ms %s\n", std::chrono::duration<double, std::milli>(took).count(),
               line.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int Main(const Arguments& arguments) {
  const std::map<std::string, std::pair<size_t, std::function<int(const Arguments&)>>> commands = {
      {"tree", {1, [](const Arguments& a) { return MakeOddTree(a[0], 300), 0; }}},
      {"manifest", {2, [](const Arguments& a) { return Print(ManifestOf(a[0]), a[1]), 0; }}},
      {"compare", {2, [](const Arguments& a) { return Compare(a[0], a[1]); }}},
      {"write", {2, [](const Arguments& a) { return Write(a[0], a[1]); }}},
      {"verify", {2, [](const Arguments& a) { return Verify(a[0], a[1]); }}},
      {"scribble", {1, [](const Arguments& a) { return Scribble(a[0]); }}},
      {"time", {1, Time}},
  };
  const auto command = arguments.empty() ? commands.end() : commands.find(arguments[0]);
  if (command == commands.end() || arguments.size() <= command->second.first) {
    std::fprintf(stderr, "guest: wrong usage\n");
    return 2;
  }
  return command->second.second({arguments.begin() + 1, arguments.end()});
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main({argv + 1, argv + argc});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "guest: %s\n", e.what());
    return 1;
  }
}
