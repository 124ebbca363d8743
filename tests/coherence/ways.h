// Ways to write a block of a file and ways to read one, as programs have them.
#ifndef TESTS_COHERENCE_WAYS_H_
#define TESTS_COHERENCE_WAYS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace pkramfs {

inline constexpr size_t kBlock = 4096;
inline constexpr size_t kBlocks = 16;

// Each belongs to one process and one file of kBlocks blocks; `bytes` are kBlock, and aligned to
// that.  A call that fails throws std::runtime_error.
class Writer {
 public:
  virtual ~Writer() = default;
  virtual void Write(size_t block, const char* bytes) = 0;
};

class Reader {
 public:
  virtual ~Reader() = default;
  // False when this way has nothing to say this time.
  virtual bool Read(size_t block, char* bytes) = 0;
};

template <typename T>
struct Way {
  std::string name;
  std::unique_ptr<T> (*make)(const std::string& path);  // nothing, where the system has no such way
};

std::vector<Way<Writer>> WaysToWrite();
std::vector<Way<Reader>> WaysToRead();

}  // namespace pkramfs

#endif  // TESTS_COHERENCE_WAYS_H_
