// A file of a few pages that is written again and again, by two processes, while others read it.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <sstream>

#include "pkram/descriptor.h"
#include "tests/coherence/coherence.h"
#include "tests/coherence/ways.h"

namespace pkramfs {
namespace {

// Blocks are filled with numbers that rise.
struct Oracle {
  std::atomic<uint64_t> begun[kBlocks], acknowledged[kBlocks];
  std::atomic<uint64_t> writes{0}, reads{0};
  Fault fault;
};

struct alignas(kBlock) Block {
  char bytes[kBlock];
  void Fill(uint64_t number) {
    for (size_t i = 0; i < kBlock; i += sizeof(number)) {
      std::memcpy(bytes + i, &number, sizeof(number));
    }
  }
};

std::string NameOf(const std::array<Way<Writer>, 2>& ways) {
  if (ways[0].name == ways[1].name) return ways[0].name;
  return ways[0].name + " | " + ways[1].name;
}

// Those of `parity`.
void WriteUntil(Deadline deadline, Writer* writer, size_t parity, Oracle* oracle) {
  Block block;
  std::minstd_rand random(static_cast<unsigned>(getpid()));
  while (!oracle->fault.stop() && !IsOver(deadline)) {
    const size_t at = random() % (kBlocks / 2) * 2 + parity;
    const uint64_t number = oracle->begun[at] + 1;
    block.Fill(number);
    oracle->begun[at] = number;
    writer->Write(at, block.bytes);
    oracle->acknowledged[at] = number;
    ++oracle->writes;
  }
}

void ReadUntil(Deadline deadline, const std::string& how, Reader* reader, Oracle* oracle) {
  Block block;
  std::minstd_rand random(static_cast<unsigned>(getpid()));
  while (!oracle->fault.stop() && !IsOver(deadline)) {
    const size_t at = random() % kBlocks;
    const uint64_t least = oracle->acknowledged[at];
    if (!reader->Read(at, block.bytes)) continue;
    const uint64_t most = oracle->begun[at];
    ++oracle->reads;
    for (size_t i = 0; i < kBlock; i += sizeof(uint64_t)) {
      uint64_t number;
      std::memcpy(&number, block.bytes + i, sizeof(number));
      if (IsMadeOf(number, least, most)) continue;
      std::ostringstream text;
      text << how << " shows " << number << " at byte " << i << " of block " << at << "; " << least
           << " was acknowledged, " << most << " begun";
      oracle->fault.Say(text.str());
      return;
    }
  }
}

// `ways`: the writer's, and the other process's.
std::string CheckOne(const std::string& path, const std::array<Way<Writer>, 2>& ways,
                     double seconds) {
  const Shared<Oracle> oracle;
  {
    const pkram::Descriptor fd(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644));
    Block block;
    block.Fill(1);
    for (size_t i = 0; i < kBlocks; ++i) {
      if (write(fd.get(), block.bytes, kBlock) != static_cast<ssize_t>(kBlock)) return "write";
      oracle->begun[i] = oracle->acknowledged[i] = 1;
    }
  }
  const Deadline deadline = In(seconds);
  std::vector<std::function<void()>> processes;
  for (const size_t parity : {0, 1}) {
    processes.emplace_back([&, parity] {
      const std::unique_ptr<Writer> writer = ways[parity].make(path);
      if (writer != nullptr) WriteUntil(deadline, writer.get(), parity, &*oracle);
    });
  }
  for (const Way<Reader>& reading : WaysToRead()) {
    processes.emplace_back([&, reading] {
      const std::unique_ptr<Reader> reader = reading.make(path);
      if (reader != nullptr) ReadUntil(deadline, reading.name, reader.get(), &*oracle);
    });
  }
  RunAll(processes, &oracle->fault);
  std::printf("  %-40s %8llu writes %9llu reads\n", NameOf(ways).c_str(),
              static_cast<unsigned long long>(oracle->writes),
              static_cast<unsigned long long>(oracle->reads));
  return oracle->fault.text();
}

}  // namespace

// Each way beside itself, and beside direct writes.
bool CheckContents(const std::string& directory, double seconds) {
  const std::vector<Way<Writer>> ways = WaysToWrite();
  bool is_right = true;
  const auto direct = std::ranges::find(ways, std::string("libaio, O_DIRECT"), &Way<Writer>::name);
  for (const Way<Writer>& way : ways) {
    for (const Way<Writer>& other : {way, *direct}) {
      const std::array<Way<Writer>, 2> both = {way, other};
      const std::string fault =
          CheckOne(directory + "/contents", both, seconds / static_cast<double>(2 * ways.size()));
      if (fault.empty()) continue;
      std::printf("%s: %s\n", NameOf(both).c_str(), fault.c_str());
      is_right = false;
    }
  }
  return is_right;
}

}  // namespace pkramfs
