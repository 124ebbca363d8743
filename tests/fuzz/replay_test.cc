// The corpus, and as many random inputs, without a fuzzer; .ci/fuzz looks for more.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/fuzz/targets.h"

namespace pkramfs {
namespace {

class ReplayTest : public testing::TestWithParam<FuzzTarget> {};

TEST_P(ReplayTest, Corpus) {
  int inputs = 0;
  const std::string dir = std::string(SOURCE_DIR "/tests/fuzz/corpus/") + GetParam().name;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    std::ifstream in(entry.path(), std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    const std::string bytes = out.str();
    SCOPED_TRACE(entry.path().string());
    GetParam().run(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    ++inputs;
  }
  EXPECT_GE(inputs, 20);
}

TEST_P(ReplayTest, RandomInputs) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::vector<uint8_t> bytes(4 + random() % 60);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    GetParam().run(bytes.data(), bytes.size());
  }
}

TEST(RequestsTest, ReachEveryHandler) { EXPECT_EQ(HandlersWithoutRequests(), 0u); }

INSTANTIATE_TEST_SUITE_P(All, ReplayTest, testing::ValuesIn(kFuzzTargets),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace pkramfs
