// Keeps freed memory for the next caller that wants the same size.  The kernel is slow to give
// large pieces, and tests that take images of a region want the same size again and again.
#ifndef TESTS_KEPT_MEMORY_H_
#define TESTS_KEPT_MEMORY_H_

#include <malloc.h>

#include <bit>
#include <cstddef>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace pkramfs {

// So does malloc, which would give back what is large.  (A sanitizer's does as it likes.)
inline const bool malloc_keeps =
    mallopt(M_MMAP_THRESHOLD, 32 << 20) == 1 && mallopt(M_TRIM_THRESHOLD, 1 << 30) == 1;

// An allocator, as containers take it.  Thread-safe.
template <typename T>
struct KeptMemory {
  using value_type = T;
  KeptMemory() = default;
  template <typename U>
  explicit KeptMemory(const KeptMemory<U>&) {}

  T* allocate(size_t count) {
    const std::lock_guard lock(Mutex());
    const size_t bytes = Rounded(count);
    std::vector<void*>& kept = Kept()[bytes];
    if (kept.empty()) return static_cast<T*>(::operator new(bytes));
    void* const piece = kept.back();
    kept.pop_back();
    return static_cast<T*>(piece);
  }
  void deallocate(T* piece, size_t count) {
    const std::lock_guard lock(Mutex());
    Kept()[Rounded(count)].push_back(piece);
  }
  template <typename U>
  bool operator==(const KeptMemory<U>&) const {
    return true;
  }

 private:
  // Images that differ by some pages take the same piece, one after the other.
  static size_t Rounded(size_t count) { return std::bit_ceil(count * sizeof(T)); }
  // (Both outlive whatever is destroyed at exit.)
  static std::mutex& Mutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
  }
  static std::map<size_t, std::vector<void*>>& Kept() {
    static auto* const kept = new std::map<size_t, std::vector<void*>>;
    return *kept;
  }
};

}  // namespace pkramfs

#endif  // TESTS_KEPT_MEMORY_H_
