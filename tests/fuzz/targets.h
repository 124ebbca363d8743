// Hostile regions.  An input is a list of edits of a sound region.  The edits know the format, so
// most results get past the checksums.  Each target aborts when a promise is broken, and returns
// otherwise.
#ifndef TESTS_FUZZ_TARGETS_H_
#define TESTS_FUZZ_TARGETS_H_

#include <cstddef>
#include <cstdint>

namespace pkramfs {

struct FuzzTarget {
  const char* name;
  void (*run)(const uint8_t* data, size_t size);
};

// Opens and checks.  A region that is refused must not have changed.  A region that is not refused
// can be sealed, and is sound.
void FuzzOpen(const uint8_t* data, size_t size);
// Loading every saved node, saving one, removing them.
void FuzzStreams(const uint8_t* data, size_t size);
// Mounting: the whole tree is walked and everything in it is read; then all of it is changed
// and removed, and what is left is sound.
void FuzzMount(const uint8_t* data, size_t size);
// Salvaging what is left, to nowhere.
void FuzzSurvivors(const uint8_t* data, size_t size);

// Requests with hostile arguments, on a sound region, which must stay one.
void FuzzRequests(const uint8_t* data, size_t size);
// Trees that another program has built, adopted: refused, or sound.
void FuzzTrees(const uint8_t* data, size_t size);
// How many handlers of the server it has no request for.
size_t HandlersWithoutRequests();

inline constexpr FuzzTarget kFuzzTargets[] = {
    {"open", FuzzOpen},           {"streams", FuzzStreams},   {"mount", FuzzMount},
    {"survivors", FuzzSurvivors}, {"requests", FuzzRequests}, {"trees", FuzzTrees}};

}  // namespace pkramfs

#endif  // TESTS_FUZZ_TARGETS_H_
