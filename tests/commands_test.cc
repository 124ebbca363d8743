// pkramctl's commands as they are typed: what they list, whom they take for a region, and what each
// says of wrong use.
#include <gmock/gmock.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <regex>
#include <set>

#include "tests/mount_fixture.h"

namespace pkramfs {
namespace {

using nlohmann::json;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

class CommandsTest : public MountTest {
 protected:
  Ran Ctl(const std::string& arguments) { return Shell(Pkramctl() + " " + arguments); }
  // What list says of a region, when its server has answered: a busy machine may need its time.
  json Listed(const std::string& region) {
    json one;
    EXPECT_TRUE(Eventually([&] {
      one = ListedAtOnce(region);
      return one.is_null() || one["state"] != "no answer";
    }));
    return one;
  }
  json ListedAtOnce(const std::string& region) {
    const json all = json::parse(Ctl("list --json").out);
    for (const json& one : all) {
      if (one["region"] == region) return one;
    }
    return json();
  }
  std::string name() const { return region_.substr(region_.rfind('/') + 1); }
};

TEST_F(CommandsTest, ListShowsARegionInEachState) {
  EXPECT_TRUE(Listed(region_).is_null());
  Mount("size=64m");
  json one = Listed(region_);
  EXPECT_EQ(one["state"], "mounted");
  EXPECT_EQ(one["mounted_on"], mount_);
  EXPECT_EQ(one["user"], "root");
  EXPECT_EQ(one["pid"], DaemonPid());
  EXPECT_GT(one["size"], 64 << 20);
  const std::string table = Ctl("list").out;
  EXPECT_THAT(table, ContainsRegex(region_ + " +mounted +.* " + mount_ + " +root +" +
                                   std::to_string(DaemonPid())));
  Unmount();
  WaitUntilFree();
  one = Listed(region_);
  EXPECT_EQ(one["state"], "sealed");
  EXPECT_FALSE(one.contains("mounted_on"));
  EXPECT_GT(one["used"], 0);
  Mount("notakeover");
  ASSERT_EQ(kill(DaemonPid(), SIGKILL), 0);
  WaitUntilFree();
  one = Listed(region_);
  EXPECT_EQ(one["state"], "dead");
  EXPECT_EQ(one["mounted_on"], mount_);
  ASSERT_EQ(umount2(mount_.c_str(), MNT_DETACH), 0);
  EXPECT_EQ(Listed(region_)["state"], "not sealed");
}

TEST_F(CommandsTest, ListWaitsForNobody) {
  Mount("size=64m,notakeover");
  const pid_t server = DaemonPid();
  ASSERT_EQ(kill(server, SIGSTOP), 0);
  const json one = ListedAtOnce(region_);
  EXPECT_EQ(kill(server, SIGCONT), 0);
  EXPECT_EQ(one["state"], "no answer");
  EXPECT_EQ(Listed(region_)["state"], "mounted");
}

TEST_F(CommandsTest, ListSaysWhatAnotherProcessUses) {
  Mount("size=64m");
  const Ran ran =
      Shell("unshare --mount sh -c 'umount -l " + mount_ + " && " + Pkramctl() + " list --json'");
  bool is_seen = false;
  for (const json& one : json::parse(ran.out)) {
    is_seen = is_seen || (one["region"] == region_ && one["state"] == "in use");
  }
  EXPECT_TRUE(is_seen) << ran.out;
}

TEST_F(CommandsTest, OutputThatIsLostIsAFailure) {
  Mount("size=64m");
  for (const std::string& command :
       std::vector<std::string>{"list", "list --json", "list --names", "info " + mount_,
                                "info --json " + mount_, "metrics"}) {
    const Ran ran = Ctl(command + " >/dev/full");
    EXPECT_EQ(ran.status, 2) << command;
    EXPECT_THAT(ran.err, HasSubstr("cannot be written")) << command;
  }
}

TEST_F(CommandsTest, ListLeavesOutWhatIsNoRegion) {
  Spill(region_, std::string(8192, 'x'));
  EXPECT_TRUE(Listed(region_).is_null());
  ASSERT_EQ(unlink(region_.c_str()), 0);
  Spill(region_, "");
  EXPECT_TRUE(Listed(region_).is_null());
  ASSERT_EQ(unlink(region_.c_str()), 0);
  // A pipe that nobody writes to does not stop it.
  const std::string pipe = region_ + "-pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(Listed(pipe).is_null());
}

TEST_F(CommandsTest, AMountPointStandsForItsRegion) {
  Mount("size=64m");
  EXPECT_EQ(json::parse(Ctl("info --json " + mount_).out)["region"], region_);
  EXPECT_EQ(json::parse(Ctl("info --json " + mount_ + "/../mnt/").out)["region"], region_);
  EXPECT_EQ(Shell("cd " + mount_ + " && " + Pkramctl() + " info .").status, 0);
  EXPECT_EQ(Shell("cd " + dir_ + " && " + Pkramctl() + " info mnt").status, 0);
  EXPECT_EQ(Ctl("resize " + mount_ + " size=32m").status, 0);
  EXPECT_EQ(Ctl("freeze " + mount_).status, 0);
  EXPECT_EQ(Ctl("thaw " + mount_).status, 0);
  EXPECT_EQ(Ctl("checkpoint " + mount_ + " " + dir_ + "/image").status, 0);
  const json made = json::parse(Ctl("checkpoint --json " + mount_ + " " + dir_ + "/image").out);
  EXPECT_EQ(made["bytes"], made["pages"].get<uint64_t>() * 4096);
  EXPECT_EQ(Ctl("upgrade " + mount_).status, 0);
  EXPECT_THAT(Ctl("metrics " + mount_).out, HasSubstr("mount=\"" + mount_ + "\"} 1\n"));
  // What needs a region that is not mounted says whose it is.
  for (const char* const command : {"check ", "put ", "get ", "rm "}) {
    const std::string more = command == std::string("check ") ? "" : " name </dev/null";
    const Ran ran = Ctl(command + mount_ + more);
    EXPECT_EQ(ran.status, 2) << command;
    EXPECT_THAT(ran.err, HasSubstr(region_)) << command;
  }
  // A directory inside is none.
  ASSERT_EQ(mkdir((mount_ + "/inside").c_str(), 0755), 0);
  EXPECT_EQ(Ctl("info " + mount_ + "/inside").status, 2);
  Unmount();
  EXPECT_EQ(Ctl("info " + mount_).status, 2);
}

TEST_F(CommandsTest, ARegionsNameComesBeforeADirectorys) {
  Mount("size=64m");
  // A directory of the region's name, on which another region is mounted.
  const std::string place = dir_ + "/" + name(), other = dir_ + "/other";
  ASSERT_EQ(mkdir(place.c_str(), 0755), 0);
  ASSERT_EQ(Shell(Pkramfs() + " " + other + " " + place + " -o size=16m").status, 0);
  const auto info = [&](const std::string& which) {
    return json::parse(Shell("cd " + dir_ + " && " + Pkramctl() + " info --json " + which).out);
  };
  EXPECT_EQ(info(name())["region"], region_);
  EXPECT_EQ(info("./" + name())["region"], other);
  ASSERT_EQ(umount2(place.c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(WaitUntilRegionIsFree(other));
}

TEST_F(CommandsTest, MetricsAreThoseOfTheMount) {
  Mount("size=64m");
  Spill(mount_ + "/file", std::string(10000, 'x'));
  const std::string text = Ctl("metrics " + region_).out;
  const std::string labels = "{region=\"" + region_ + "\",mount=\"" + mount_ + "\"";
  EXPECT_THAT(text, HasSubstr("pkramfs_up" + labels + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("pkramfs_inodes" + labels + "} 2\n"));
  EXPECT_THAT(text, HasSubstr("pkramfs_requests_total" + labels + ",kind=\"create\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("pkramfs_bytes_total" + labels + ",direction=\"written\"} 10000\n"));
  EXPECT_THAT(text, HasSubstr("pkramfs_errors_total" + labels + ",error=\"ENOSPC\"} 0\n"));
  EXPECT_NE(Shell("head -c 100M /dev/zero >" + mount_ + "/large").status, 0);
  EXPECT_THAT(Ctl("metrics " + region_).out,
              Not(HasSubstr("pkramfs_errors_total" + labels + ",error=\"ENOSPC\"} 0\n")));
  // All mounts, among them this one.
  EXPECT_THAT(Ctl("metrics").out, HasSubstr("pkramfs_up" + labels + "} 1\n"));
  const Ran none = Ctl("metrics /nowhere");
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.err, HasSubstr("/nowhere: not mounted here"));
}

TEST_F(CommandsTest, WatchShowsWhatHasChanged) {
  Mount("size=64m");
  // It ends when nobody reads any more.
  const Ran ran = Shell("( " + Pkramctl() + " info --watch --interval 0.01 " + region_ +
                        " & i=0; while kill -0 $! 2>/dev/null; do echo > " + mount_ +
                        "/f$((i += 1)); done ) | grep -m 1 -E '^inodes +[0-9]+ +\\+'");
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  const Ran json_too = Ctl("info --watch --json " + region_);
  EXPECT_EQ(json_too.status, 2);
  EXPECT_THAT(json_too.err, HasSubstr("--watch and --json"));
  EXPECT_EQ(Ctl("info --watch --interval 0 " + region_).status, 2);
  Unmount();
  const Ran unmounted = Ctl("info --watch " + region_);
  EXPECT_EQ(unmounted.status, 2);
  EXPECT_THAT(unmounted.err, HasSubstr("not mounted here"));
}

TEST_F(CommandsTest, ProgressIsForTerminalsOnly) {
  Mount("size=64m");
  Spill(mount_ + "/file", std::string(1 << 20, 'x'));
  Unmount();
  WaitUntilFree();
  EXPECT_EQ(Ctl("check " + region_).err, "");
  const std::string typescript = dir_ + "/typescript";
  Spill(dir_ + "/input", std::string(6 << 20, 'x'));
  const auto put = [&](const std::string& option) {
    // A terminal of its own, whose output goes to a file.
    ASSERT_EQ(Shell("script -qec '" + Pkramctl() + " " + option + " put " + region_ + " name <" +
                    dir_ + "/input' " + typescript)
                  .status,
              0);
    ASSERT_EQ(Ctl("get " + region_ + " name | cmp - " + dir_ + "/input").status, 0);
    ASSERT_EQ(Ctl("rm " + region_ + " name").status, 0);
  };
  put("");
  EXPECT_THAT(Slurp(typescript), HasSubstr("put: "));
  put("--quiet");
  EXPECT_THAT(Slurp(typescript), Not(HasSubstr("put: ")));
  // Behind the command, too.
  ASSERT_EQ(Shell("script -qec '" + Pkramctl() + " put --quiet " + region_ + " name <" + dir_ +
                  "/input' " + typescript)
                .status,
            0);
  EXPECT_THAT(Slurp(typescript), Not(HasSubstr("put: ")));
}

// Each command has a help, refuses what it does not know, and says that something is missing.
TEST_F(CommandsTest, EachCommandSaysHowItIsUsed) {
  const std::string help = Ctl("--help").out;
  const std::regex command("\n  ([a-z]+) ");
  std::set<std::string> commands;
  const size_t from =
      help.find("ommands:") != std::string::npos ? help.find("ommands:") : help.find("OMMANDS:");
  ASSERT_NE(from, std::string::npos) << help;
  const std::string list = help.substr(from);
  for (std::sregex_iterator it(list.begin(), list.end(), command), end; it != end; ++it) {
    commands.insert((*it)[1]);
  }
  EXPECT_EQ(commands,
            (std::set<std::string>{"check", "checkpoint", "export", "freeze", "get", "import",
                                   "info", "list", "metrics", "preserve", "put", "release",
                                   "resize", "restore", "rm", "thaw", "unpreserve", "upgrade"}));
  const std::string manual = Slurp(std::string(SOURCE_DIR) + "/mount/pkramctl.8");
  for (const std::string& name : commands) {
    const Ran helped = Ctl(name + " --help");
    EXPECT_EQ(helped.status, 0) << name;
    EXPECT_THAT(helped.out, HasSubstr("pkramctl " + name)) << name;
    EXPECT_EQ(helped.err, "") << name;
    const Ran wrong = Ctl(name + " --nonsense");
    EXPECT_EQ(wrong.status, 2) << name;
    EXPECT_EQ(wrong.out, "") << name;
    EXPECT_THAT(wrong.err, HasSubstr("see pkramctl " + name + " --help")) << name;
    EXPECT_THAT(manual, ContainsRegex("\\.(BR|BI) \"?" + name + " ")) << name;
    if (name == "list" || name == "metrics") continue;  // they need no argument
    const Ran missing = Ctl(name);
    EXPECT_EQ(missing.status, 2) << name;
    EXPECT_THAT(missing.err, HasSubstr("is required")) << name;
  }
  EXPECT_EQ(Ctl("").status, 2);
  EXPECT_EQ(Ctl("nonsense").status, 2);
}

TEST_F(CommandsTest, WhereTheRegionIsNotThereEachCommandSaysSo) {
  for (const std::string words :
       {"info ?", "check ?", "put ? name", "get ? name", "rm ? name", "resize ? size=1m",
        "freeze ?", "thaw ?", "upgrade ?", "checkpoint ? /tmp/x", "metrics ?"}) {
    std::string line = words;
    line.replace(line.find('?'), 1, "/nowhere/region");
    const Ran ran = Ctl(line);
    EXPECT_EQ(ran.status, 2) << line;
    EXPECT_EQ(ran.out, "") << line;
    EXPECT_THAT(ran.err, HasSubstr("/nowhere/region")) << line;
  }
}

}  // namespace
}  // namespace pkramfs
