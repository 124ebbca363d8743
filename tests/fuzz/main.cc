// libFuzzer's way in: FUZZ_TARGET is one of targets.h.
#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pkramfs::FUZZ_TARGET(data, size);
  return 0;
}
