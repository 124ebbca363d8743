// Work that is cut into pieces, for as many threads as there are processors.
#ifndef PKRAM_PARALLEL_H_
#define PKRAM_PARALLEL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace pkram {

// How many processors this process may use, at most 16.
int Processors();

// Calls work(0) to work(pieces - 1), each of them once, from up to `threads` threads at the same
// time, the caller's among them.  Returns when all have returned.  Where the system gives no more
// threads, fewer do all of it.
void InParallel(int threads, uint64_t pieces, absl::FunctionRef<void(uint64_t)> work);

}  // namespace pkram

#endif  // PKRAM_PARALLEL_H_
