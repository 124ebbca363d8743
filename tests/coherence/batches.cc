// Large direct writes that are submitted many at once, beside readers of the cache, as databases
// and virtual machines have them.
#include <fcntl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "pkram/descriptor.h"
#include "tests/coherence/async_io.h"
#include "tests/coherence/coherence.h"
#include "tests/coherence/ways.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr size_t kBatch = 640 << 10;
constexpr size_t kBatches = 4;

// Each batch is filled with a number, which rises.
struct Numbers {
  std::atomic<uint64_t> begun[kBatches], acknowledged[kBatches];
  std::atomic<uint64_t> writes{0}, reads{0};
  Fault fault;
};

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<char, Free>;
Buffer NewBuffer() { return Buffer(static_cast<char*>(std::aligned_alloc(kBlock, kBatch))); }

void Fill(char* bytes, uint64_t number) {
  for (size_t i = 0; i < kBatch; i += sizeof(number))
    std::memcpy(bytes + i, &number, sizeof(number));
}

void MustBe(const char* bytes, size_t size, uint64_t least, uint64_t most, const char* who) {
  for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
    uint64_t number;
    std::memcpy(&number, bytes + i, sizeof(number));
    if (IsMadeOf(number, least, most)) continue;
    throw std::runtime_error(std::string(who) + " sees " + std::to_string(number) + " at byte " +
                             std::to_string(i) + "; " + std::to_string(least) +
                             " was acknowledged, " + std::to_string(most) + " begun");
  }
}

// The writer reads its bytes at once through the cache.
void Write(Deadline deadline, const std::string& path, size_t pieces, size_t parity,
           Numbers* numbers) {
  LinuxAio aio;
  if (!aio.ok()) return;
  const Descriptor direct(open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
  const Descriptor cached(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const Buffer bytes = NewBuffer(), again = NewBuffer();
  std::minstd_rand random(static_cast<unsigned>(getpid()));
  while (!numbers->fault.stop() && !IsOver(deadline)) {
    const size_t at = random() % (kBatches / 2) * 2 + parity;
    const uint64_t number = numbers->begun[at] + 1;
    Fill(bytes.get(), number);
    numbers->begun[at] = number;
    if (!aio.WriteAtOnce(direct.get(), bytes.get(), kBatch, at * kBatch, pieces)) {
      throw std::runtime_error("io_submit");
    }
    numbers->acknowledged[at] = number;
    ++numbers->writes;
    const auto offset = static_cast<off_t>(at * kBatch);
    if (pread(cached.get(), again.get(), kBatch, offset) != static_cast<ssize_t>(kBatch)) {
      throw std::runtime_error("a short read");
    }
    MustBe(again.get(), kBatch, number, number, "who has written");
  }
}

void Read(Deadline deadline, const std::string& path, Numbers* numbers) {
  const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const Buffer bytes = NewBuffer();
  std::minstd_rand random(static_cast<unsigned>(getpid()));
  while (!numbers->fault.stop() && !IsOver(deadline)) {
    const size_t at = random() % kBatches;
    const size_t from = random() % (kBatch / kBlock) * kBlock;
    const size_t size = std::min(kBatch - from, size_t{1} << (12 + random() % 8));
    const uint64_t least = numbers->acknowledged[at];
    const ssize_t n = pread(fd.get(), bytes.get(), size, static_cast<off_t>(at * kBatch + from));
    const uint64_t most = numbers->begun[at];
    if (n != static_cast<ssize_t>(size)) throw std::runtime_error("a short read");
    MustBe(bytes.get(), size, least, most, "a reader");
    ++numbers->reads;
  }
}

}  // namespace

bool CheckBatches(const std::string& directory, double seconds) {
  const std::string path = directory + "/batches";
  bool is_right = true;
  for (const size_t pieces : {1, 8}) {
    const Shared<Numbers> numbers;
    {
      const Descriptor fd(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
      const Buffer bytes = NewBuffer();
      Fill(bytes.get(), 1);
      for (size_t i = 0; i < kBatches; ++i) {
        numbers->begun[i] = numbers->acknowledged[i] = 1;
        if (write(fd.get(), bytes.get(), kBatch) != static_cast<ssize_t>(kBatch)) return false;
      }
    }
    const Deadline deadline = In(seconds / 2);
    const auto writer = [&](size_t parity) {
      return [&, parity] { Write(deadline, path, pieces, parity, &*numbers); };
    };
    const auto reader = [&] { Read(deadline, path, &*numbers); };
    RunAll({writer(0), writer(1), reader, reader, reader}, &numbers->fault);
    std::printf("  640 KiB, O_DIRECT, %zu at once %18llu writes %9llu reads\n", pieces,
                static_cast<unsigned long long>(numbers->writes),
                static_cast<unsigned long long>(numbers->reads));
    if (numbers->fault.text().empty()) continue;
    std::printf("640 KiB, %zu at once: %s\n", pieces, numbers->fault.text().c_str());
    is_right = false;
  }
  return is_right;
}

}  // namespace pkramfs
