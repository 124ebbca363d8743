// What every call says of a path that leads nowhere.
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

class PathRules : public Conformance {
 public:
  struct Call {
    const char* name;
    std::function<int(Subject&, const std::string&)> run;
    bool makes = false;  // what the path leads to
  };
  static std::vector<Call> Calls() {
    return {
        {"open", [](Subject& s, const std::string& p) { return s.Open(p, O_RDONLY); }},
        {"creat",
         [](Subject& s, const std::string& p) { return s.Open(p, O_CREAT | O_WRONLY, 0644); },
         true},
        {"mkdir", [](Subject& s, const std::string& p) { return s.Mkdir(p, 0755); }, true},
        {"mknod", [](Subject& s, const std::string& p) { return s.Mknod(p, S_IFIFO | 0644, 0); },
         true},
        {"symlink", [](Subject& s, const std::string& p) { return s.Symlink("t", p); }, true},
        {"link_from", [](Subject& s, const std::string& p) { return s.Link(p, "other"); }},
        {"link_to", [](Subject& s, const std::string& p) { return s.Link("file", p); }, true},
        {"unlink", [](Subject& s, const std::string& p) { return s.Unlink(p); }},
        {"rmdir", [](Subject& s, const std::string& p) { return s.Rmdir(p); }},
        {"rename_from", [](Subject& s, const std::string& p) { return s.Rename(p, "other"); }},
        {"rename_to", [](Subject& s, const std::string& p) { return s.Rename("file", p); }, true},
        {"stat",
         [](Subject& s, const std::string& p) {
           struct stat t;
           return s.Stat(p, &t);
         }},
        {"lstat",
         [](Subject& s, const std::string& p) {
           struct stat t;
           return s.Lstat(p, &t);
         }},
        {"chmod", [](Subject& s, const std::string& p) { return s.Chmod(p, 0600); }},
        {"chown", [](Subject& s, const std::string& p) { return s.Chown(p, 1, 1); }},
        {"lchown", [](Subject& s, const std::string& p) { return s.Chown(p, 1, 1, false); }},
        {"truncate", [](Subject& s, const std::string& p) { return s.Truncate(p, 1); }},
        {"utimensat", [](Subject& s, const std::string& p) { return s.Utimens(p, nullptr); }},
        {"readlink",
         [](Subject& s, const std::string& p) {
           std::string t;
           return s.Readlink(p, &t);
         }},
        {"readdir",
         [](Subject& s, const std::string& p) {
           Names n;
           return s.List(p, &n);
         }},
        {"setxattr", [](Subject& s, const std::string& p) { return s.SetXattr(p, "user.a", "1"); }},
        {"getxattr",
         [](Subject& s, const std::string& p) {
           std::string t;
           return s.GetXattr(p, "user.a", &t);
         }},
        {"listxattr",
         [](Subject& s, const std::string& p) {
           Names n;
           return s.ListXattrs(p, &n);
         }},
        {"removexattr",
         [](Subject& s, const std::string& p) { return s.RemoveXattr(p, "user.a"); }},
    };
  }
  void Check(const Call& call, const std::string& path, int error) {
    NEEDS_KERNEL();
    MakeFile("file");
    ASSERT_EQ(fs().Symlink("loop", "loop"), 0);
    ASSERT_EQ(fs().Symlink("file", "to-file"), 0);
    ASSERT_EQ(fs().Symlink("gone", "to-nothing"), 0);
    ASSERT_EQ(fs().Mkdir("closed", 0755), 0);
    ASSERT_EQ(fs().Mkdir("closed/d", 0777), 0);
    MakeFile("closed/file");
    ASSERT_EQ(fs().Chmod("closed", 0644), 0);
    Settle();
    const Names before = List(".");
    if (error == EACCES) Become(kOther);
    EXPECT_EQ(call.run(fs(), path), -error) << call.name << " " << path.substr(0, 100);
    Become(kRoot);
    EXPECT_EQ(List("."), before);
  }
};

const bool kPathRulesRegistered = [] {
  const std::string long_name(256, 'n');
  std::string long_path = "file";
  while (long_path.size() < 4096) long_path = "./" + long_path;
  struct Row {
    const char* name;
    std::string path;
    int error;
  };
  const Row rows[] = {
      {"a_missing_directory", "missing/x", ENOENT},
      {"no_name_at_all", "", ENOENT},
      {"a_file_as_directory", "file/x", ENOTDIR},
      {"a_symlink_to_a_file_as_directory", "to-file/x", ENOTDIR},
      {"a_dangling_symlink_as_directory", "to-nothing/x", ENOENT},
      {"a_symlink_loop_as_directory", "loop/x", ELOOP},
      {"a_directory_name_of_256_bytes", long_name + "/x", ENAMETOOLONG},
      {"a_name_of_256_bytes", long_name, ENAMETOOLONG},
      {"a_path_of_4096_bytes", long_path, ENAMETOOLONG},
      {"a_directory_that_may_not_be_searched", "closed/file", EACCES},
      {"a_directory_below_one_that_may_not_be_searched", "closed/d/x", EACCES},
  };
  for (const PathRules::Call& call : PathRules::Calls()) {
    for (const Row& row : rows) {
      Register<PathRules>("PathRules", std::string(call.name) + "_of_" + row.name,
                          [call, row](PathRules& t) { t.Check(call, row.path, row.error); });
    }
    if (!call.makes) {
      Register<PathRules>("PathRules", std::string(call.name) + "_of_a_missing_name",
                          [call](PathRules& t) { t.Check(call, "missing", ENOENT); });
    }
  }
  return true;
}();

}  // namespace
}  // namespace pkramfs
