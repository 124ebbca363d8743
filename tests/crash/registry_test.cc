// The registry: every public method that the headers of the filesystem, the streams and
// the region declare, and every flag that they speak of, is one that the enumerator tries,
// or one that is said here to change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/crash/regions.h"
#include "tests/crash/steps.h"

namespace pkramfs {
namespace {

std::string TextOfFile(const std::string& path) {
  std::ifstream in(std::string(SOURCE_DIR "/") + path);
  EXPECT_TRUE(in) << path;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// "Class::Method" of each public method that is not const.
std::set<std::string> MethodsOf(const std::string& path) {
  std::set<std::string> methods;
  std::istringstream lines(TextOfFile(path));
  const std::regex begins("^class (\\w+)( : public \\w+)? \\{$");
  const std::regex declares("^  (?:static )?[A-Za-z][\\w:<>,* ]* ([A-Z]\\w*)\\(");
  std::string name, text;
  bool open = false;
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_search(line, match, begins)) name = match[1];
    if (line == " public:") open = true;
    if (line == " private:" || line == "};") open = false;
    if (!open) continue;
    // A declaration to its end.
    if (text.empty() && !std::regex_search(line, match, declares)) continue;
    text += line;
    if (line.find(';') == std::string::npos && line.find('{') == std::string::npos) continue;
    std::regex_search(text, match, declares);
    const bool constructs = match[1] == name;
    if (!constructs && !std::regex_search(text, std::regex("\\) const[ ;]"))) {
      methods.insert(name + "::" + match[1].str());
    }
    text.clear();
  }
  return methods;
}

TEST(CrashRegistryTest, EveryOperationIsTried) {
  std::set<std::string> tried;
  std::string names;
  for (const Step& step : AllSteps()) {
    std::istringstream words(step.name);
    std::string method;
    words >> method;
    while (!method.empty() && method.back() == ',') method.pop_back();
    tried.insert("Filesystem::" + method);
    names += step.name + "\n";
  }
  for (const RegionStep& step : AllRegionSteps()) {
    std::istringstream words(step.name);
    for (std::string word; words >> word;) {
      while (word.back() == ',') word.pop_back();
      if (word.find("::") != std::string::npos) tried.insert(word);
    }
  }
  const std::set<std::string> otherwise = {
      "Filesystem::Open",    // CrashInCreationTest, and every recovery
      "Filesystem::Forget",  // after Unlink, and after MakeTemporary
      "Filesystem::Resize",  // CrashInResizeTest
      "Region::Format",      // CrashInFormatTest
      "Region::Open",        // every recovery
      "Region::FillZeros",   // what Fallocate does
      "Region::Overwrite",   // what Write does
      "Region::MakeExist",   // what AdoptTree does
      "Region::Unseal",      // what the first change of anything does
  };
  const std::set<std::string> changes_nothing = {
      "Filesystem::Lookup",
      "Filesystem::GetAttr",
      "Filesystem::ReadLink",
      "Filesystem::Read",
      "Filesystem::Seek",
      "Filesystem::ReadDirectory",
      "Filesystem::GetXattr",
      "Filesystem::ListXattrs",
      "Filesystem::Freeze",
      "LoadObject::ReadBytes",
      "LoadAccess::LoadFilePage",
      "Region::Look",
      "Region::GlanceAt",
      "Region::Check",
      "Region::Overhead",
      "Region::ContentPages",
      "Filesystem::CheckNode",
      "Region::LockInMemory",
      "Region::UnlockFromMemory",
      "Filesystem::AtRest",
      "Filesystem::StageTree",  // a part of AdoptTree
      "Filesystem::StagedName",
      "Filesystem::Recheck",
      "Filesystem::RestWhileLocked",
      "Filesystem::HoldAtRest",
      "Filesystem::Hold",
      "Filesystem::DiscardStaged",  // the last part of it
      "Region::IsNew",
      "Region::ProveReadable",
      "Region::OpenToBuild",
  };
  std::set<std::string> declared;
  for (const char* header : {"fs/filesystem.h", "pkram/stream.h", "pkram/region.h"}) {
    const std::set<std::string> methods = MethodsOf(header);
    EXPECT_GE(methods.size(), 10u) << header;
    declared.insert(methods.begin(), methods.end());
  }
  for (const std::string& method : declared) {
    EXPECT_EQ(tried.count(method) + otherwise.count(method) + changes_nothing.count(method), 1u)
        << method << ": not tried at every store, and not said to change nothing";
  }
  // Each name in these lists must be that of a method that exists.
  for (const auto& list : {otherwise, changes_nothing}) {
    for (const std::string& method : list) EXPECT_TRUE(declared.contains(method)) << method;
  }
  // And the flags.
  for (const char* header : {"fs/filesystem.h", "fs/types.h"}) {
    const std::string text = TextOfFile(header);
    const std::regex flag("\\b((?:RENAME|XATTR|FALLOC_FL)_[A-Z_]+|kSet[A-Z]\\w+)\\b");
    for (std::sregex_iterator it(text.begin(), text.end(), flag), end; it != end; ++it) {
      EXPECT_THAT(names, testing::HasSubstr((*it)[1].str()));
    }
  }
}

// Every kind of request that the kernel may send: what a successor is given again is tried at every
// store (TakeoverTest), or is said here to need no trial.
TEST(CrashRegistryTest, EveryRequestIsGivenToASuccessor) {
  std::set<std::string> tried;
  for (const Step& step : AllSteps()) {
    if (step.one_request) tried.insert(step.name.substr(0, step.name.find_first_of(" ,")));
  }
  const std::map<std::string, std::string> executed_by = {{"SetAttr", "SetAttr"},
                                                          {"MakeNode", "MakeNode"},
                                                          {"MakeDirectory", "MakeDirectory"},
                                                          {"Unlink", "Unlink"},
                                                          {"RemoveDirectory", "RemoveDirectory"},
                                                          {"Symlink", "MakeSymlink"},
                                                          {"Rename", "Rename"},
                                                          {"Link", "Link"},
                                                          {"Write", "Write"},
                                                          {"SetXattr", "SetXattr"},
                                                          {"RemoveXattr", "RemoveXattr"},
                                                          {"Create", "MakeNode"},
                                                          {"MakeTemporary", "MakeTemporary"},
                                                          {"Fallocate", "Fallocate"},
                                                          {"CopyRange", "CopyRange"}};
  const std::set<std::string> need_none = {
      // They change nothing, or a count of lookups, which may be one too many.
      "Lookup", "GetAttr", "ReadLink", "Open", "Read", "Flush", "Release", "Fsync", "OpenDirectory",
      "ReadDirectory", "ReadDirectoryPlus", "ReleaseDirectory", "StatFs", "GetXattr", "ListXattrs",
      "Seek",
      // A successor is never given one.
      "Forget",
      // The same again is the same: freeze, thaw, resize; and upgrade (takeover_test,
      // upgrade_test).
      "Ioctl"};
  const std::string text = TextOfFile("mount/serve/statistics.h");
  const std::regex kind("\n  k(\\w+),");
  size_t kinds = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), kind), end; it != end; ++it, ++kinds) {
    const std::string name = (*it)[1];
    const auto method = executed_by.find(name);
    EXPECT_EQ((method != executed_by.end()) + need_none.count(name), 1u) << name;
    if (method != executed_by.end()) {
      EXPECT_TRUE(tried.contains(method->second)) << method->second;
    }
  }
  EXPECT_EQ(kinds, executed_by.size() + need_none.size());
}

class Report : public testing::Environment {
 public:
  void TearDown() override {
    std::printf("%llu crash points tried\n",
                static_cast<unsigned long long>(crash_points_tried.load()));
  }
};

[[maybe_unused]] const testing::Environment* const kReport =
    testing::AddGlobalTestEnvironment(new Report);

}  // namespace
}  // namespace pkramfs
