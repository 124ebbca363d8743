#include "pkram/checksum.h"

#include <gtest/gtest.h>

#include <cstring>

namespace pkram {
namespace {

// The check value of CRC-32C, from the catalogue of parametrised CRCs.
TEST(Crc32c, MatchesTheCatalogue) { EXPECT_EQ(Crc32c("123456789", 9), 0xe3069283u); }

TEST(Crc32c, ContinuesWhereItStopped) {
  const char text[] = "one page-sized link of 510 entries";
  const size_t n = std::strlen(text);
  EXPECT_EQ(Crc32c(text + 7, n - 7, Crc32c(text, 7)), Crc32c(text, n));
}

}  // namespace
}  // namespace pkram
