#include "mount/region/options.h"

#include <gtest/gtest.h>

namespace pkramfs {
namespace {

constexpr uint64_t kMemory = uint64_t{1000} << 20;

TEST(SizeTest, AsTmpfsSpellsThem) {
  EXPECT_EQ(*ParseSize("4096", kMemory), 4096u);
  EXPECT_EQ(*ParseSize("16k", kMemory), 16384u);
  EXPECT_EQ(*ParseSize("16K", kMemory), 16384u);
  EXPECT_EQ(*ParseSize("3m", kMemory), 3u << 20);
  EXPECT_EQ(*ParseSize("2G", kMemory), uint64_t{2} << 30);
  EXPECT_EQ(*ParseSize("1t", kMemory), uint64_t{1} << 40);
  EXPECT_EQ(*ParseSize("50%", kMemory), kMemory / 2);
  EXPECT_EQ(*ParseSize("0", kMemory), 0u);
  for (const char* wrong : {"", "k", "%", "-1", "1.5g", "2x", "2gg", "+3", " 3", "0x10",
                            "99999999999999999999", "9999999999t"}) {
    EXPECT_FALSE(ParseSize(wrong, kMemory).ok()) << wrong;
  }
}

TEST(MountOptionsTest, OursAreTakenAndTheOthersPassedOn) {
  MountOptions options;
  ASSERT_EQ(ApplyMountOptions("size=2m,nr_inodes=10k,mode=750,uid=7,gid=8,pkram=db,mlock,noexport,"
                              "writeback",
                              kMemory, &options),
            absl::OkStatus());
  ASSERT_EQ(ApplyMountOptions("ro,noexec,,allow_other,defaults,nofail,x-systemd.automount,user",
                              kMemory, &options),
            absl::OkStatus());
  EXPECT_EQ(options.size, uint64_t{2} << 20);
  EXPECT_EQ(options.max_inodes, 10240u);
  EXPECT_EQ(options.mode, 0750u);
  EXPECT_EQ(options.uid, 7u);
  EXPECT_EQ(options.gid, 8u);
  EXPECT_TRUE(options.writeback);
  EXPECT_EQ(options.node, "db");
  EXPECT_TRUE(options.lock_memory);
  EXPECT_EQ(options.fuse, (std::vector<std::string>{"allow_other"}));
  EXPECT_EQ(options.flags.FuseWords(), (std::vector<std::string>{"ro", "noexec"}));
}

TEST(MountOptionsTest, TheErrorNamesTheOption) {
  for (const char* wrong :
       {"size", "mode=8", "mode=", "mode=77777", "uid=no-such-user", "gid=4294967295",
        "pkram=", "mlock=1", "nonsense", "size=0", "ro=1", "mpol=bind:0", "nr_blocks=x"}) {
    MountOptions options;
    const absl::Status s = ApplyMountOptions(wrong, kMemory, &options);
    EXPECT_FALSE(s.ok()) << wrong;
    const std::string name = std::string(wrong).substr(0, std::string(wrong).find('='));
    EXPECT_NE(std::string(s.message()).find(name), std::string::npos) << s;
  }
}

TEST(RegionPathTest, NamesWithoutASlashAreInDevShm) {
  EXPECT_EQ(RegionPath("cache.pkram"), "/dev/shm/cache.pkram");
  EXPECT_EQ(RegionPath("./cache.pkram"), "./cache.pkram");
  EXPECT_EQ(RegionPath("/mnt/r"), "/mnt/r");
}

}  // namespace
}  // namespace pkramfs
