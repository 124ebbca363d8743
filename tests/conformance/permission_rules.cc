// Who may do what.
#include "tests/conformance/conformance.h"
#include "tests/conformance/kernel_rules.h"

namespace pkramfs {
namespace {

class PermissionRules : public Conformance {
 public:
  static bool Allows(mode_t mode, const std::string& who, unsigned bits) {
    const unsigned shift = who == "owner" ? 6 : who == "member" ? 3 : 0;
    return (mode >> shift & bits) == bits;
  }
  static const User& Named(const std::string& who) {
    return who == "owner" ? kOwner : who == "member" ? kMember : kOther;
  }
  // The permission bits of one class, and the opposite for the others.
  static mode_t ModeFor(const std::string& who, unsigned bits) {
    const unsigned shift = who == "owner" ? 6 : who == "member" ? 3 : 0;
    const mode_t others = (~bits & 7) * 0111;
    return (others & ~static_cast<mode_t>(7u << shift)) | bits << shift;
  }
  void OpenFile(const std::string& who, unsigned bits, int flags, unsigned needs) {
    NEEDS_KERNEL();
    MakeFile("f", "x");
    ASSERT_EQ(fs().Chown("f", kOwner.uid, kOwner.gid), 0);
    ASSERT_EQ(fs().Chmod("f", ModeFor(who, bits)), 0);
    Settle();
    Become(Named(who));
    const int fd = fs().Open("f", flags);
    if ((bits & needs) == needs) {
      EXPECT_GE(fd, 0);
    } else {
      EXPECT_EQ(fd, -EACCES);
    }
    Become(kRoot);
  }
  // Calls on files in a directory of some mode.
  void InDirectory(unsigned bits, const std::function<int(Subject&)>& call, unsigned needs) {
    NEEDS_KERNEL();
    ASSERT_EQ(fs().Mkdir("d", 0777), 0);
    MakeFile("d/f", "x", 0666);
    ASSERT_EQ(fs().Mkdir("d/e", 0777), 0);
    MakeFile("mine", "x", 0666);
    for (const char* name : {"d/f", "d/e", "mine"}) {
      ASSERT_EQ(fs().Chown(name, kOther.uid, kOther.gid), 0);
    }
    ASSERT_EQ(fs().Chmod("d", ModeFor("other", bits)), 0);
    Settle();
    Become(kOther);
    EXPECT_EQ(call(fs()), (bits & needs) == needs ? 0 : -EACCES);
    Become(kRoot);
    EXPECT_EQ(fs().Chmod("d", 0777), 0);
  }
  struct Sticky {
    const char* name;
    std::function<int(Subject&)> call;
  };
  void InSticky(const Sticky& row, bool owns_directory, bool owns_entry) {
    NEEDS_KERNEL();
    ASSERT_EQ(fs().Mkdir("d", 0777), 0);
    MakeFile("d/f");
    ASSERT_EQ(fs().Mkdir("d/e", 0777), 0);
    MakeFile("d/mine");
    ASSERT_EQ(fs().Chown("d/mine", kOther.uid, kOther.gid), 0);
    for (const char* name : {"d/f", "d/e"}) {
      ASSERT_EQ(fs().Chown(name, owns_entry ? kOther.uid : kOwner.uid, 0), 0);
    }
    ASSERT_EQ(fs().Chown("d", owns_directory ? kOther.uid : kOwner.uid, 0), 0);
    ASSERT_EQ(fs().Chmod("d", 01777), 0);
    Settle();
    Become(kOther);
    EXPECT_EQ(row.call(fs()), owns_directory || owns_entry ? 0 : -EPERM);
    Become(kRoot);
  }
  struct Setter {
    const char* name;
    std::function<int(Subject&)> call;
    bool owner, member, other;  // who may
    int error;
  };
  void SetBy(const Setter& row, const std::string& who) {
    NEEDS_KERNEL();
    MakeFile("f", "x", 0664);
    ASSERT_EQ(fs().Chown("f", kOwner.uid, kOwner.gid), 0);
    Settle();
    Become(who == "root" ? kRoot : Named(who));
    const bool may = who == "root" || (who == "owner" && row.owner) ||
                     (who == "member" && row.member) || (who == "other" && row.other);
    EXPECT_EQ(row.call(fs()), may ? 0 : -row.error);
    Become(kRoot);
  }
};

const bool kPermissionRulesRegistered = [] {
  const struct {
    const char* name;
    int flags;
    unsigned needs;
  } opens[] = {{"read", O_RDONLY, 4},
               {"write", O_WRONLY, 2},
               {"read_write", O_RDWR, 6},
               {"truncate", O_WRONLY | O_TRUNC, 2},
               {"path", O_PATH, 0}};
  for (const std::string who : {"owner", "member", "other"}) {
    for (unsigned bits = 0; bits < 8; ++bits) {
      for (const auto& open : opens) {
        Register<PermissionRules>(
            "OpenPermission",
            open.name + std::string("_by_") + who + "_with_" + std::to_string(bits),
            [=](PermissionRules& t) { t.OpenFile(who, bits, open.flags, open.needs); });
      }
    }
  }
  const struct {
    const char* name;
    std::function<int(Subject&)> call;
    unsigned needs;
  } calls[] = {
      {"lookup",
       [](Subject& s) {
         struct stat st;
         return s.Stat("d/f", &st);
       },
       1},
      {"list",
       [](Subject& s) {
         Names n;
         return s.List("d", &n);
       },
       4},
      {"create", [](Subject& s) { return std::min(0, s.Open("d/n", O_CREAT | O_WRONLY, 0644)); },
       3},
      {"mkdir", [](Subject& s) { return s.Mkdir("d/n", 0755); }, 3},
      {"symlink", [](Subject& s) { return s.Symlink("t", "d/n"); }, 3},
      {"mknod", [](Subject& s) { return s.Mknod("d/n", S_IFIFO | 0600, 0); }, 3},
      {"link", [](Subject& s) { return s.Link("mine", "d/n"); }, 3},
      {"unlink", [](Subject& s) { return s.Unlink("d/f"); }, 3},
      {"rmdir", [](Subject& s) { return s.Rmdir("d/e"); }, 3},
      {"rename_out", [](Subject& s) { return s.Rename("d/f", "n"); }, 3},
      {"rename_in", [](Subject& s) { return s.Rename("mine", "d/n"); }, 3},
      {"rename_over", [](Subject& s) { return s.Rename("mine", "d/f"); }, 3},
      {"exchange", [](Subject& s) { return s.Rename("mine", "d/f", 2); }, 3},
      {"chmod_below", [](Subject& s) { return s.Chmod("d/f", 0600); }, 1},
      {"open_below", [](Subject& s) { return std::min(0, s.Open("d/f", O_RDWR)); }, 1},
      {"truncate_below", [](Subject& s) { return s.Truncate("d/f", 0); }, 1},
      {"setxattr_below", [](Subject& s) { return s.SetXattr("d/f", "user.a", "1"); }, 1},
  };
  for (const auto& c : calls) {
    for (unsigned bits = 0; bits < 8; ++bits) {
      Register<PermissionRules>("DirectoryPermission",
                                c.name + std::string("_with_") + std::to_string(bits),
                                [=](PermissionRules& t) { t.InDirectory(bits, c.call, c.needs); });
    }
  }
  const PermissionRules::Sticky sticky[] = {
      {"unlink", [](Subject& s) { return s.Unlink("d/f"); }},
      {"rmdir", [](Subject& s) { return s.Rmdir("d/e"); }},
      {"rename_within", [](Subject& s) { return s.Rename("d/f", "d/g"); }},
      {"rename_out", [](Subject& s) { return s.Rename("d/f", "g"); }},
      {"rename_over", [](Subject& s) { return s.Rename("d/mine", "d/f"); }},
      {"rename_a_directory", [](Subject& s) { return s.Rename("d/e", "d/g"); }},
      {"exchange", [](Subject& s) { return s.Rename("d/mine", "d/f", 2); }},
  };
  for (const auto& row : sticky) {
    for (int i = 0; i < 4; ++i) {
      Register<PermissionRules>(
          "Sticky",
          row.name + std::string(i & 1 ? "_own_directory" : "_others_directory") +
              (i & 2 ? "_own_entry" : "_others_entry"),
          [=](PermissionRules& t) { t.InSticky(row, (i & 1) != 0, (i & 2) != 0); });
    }
  }
  static const timespec kPast[2] = {{1000, 0}, {1000, 0}};
  static const timespec kNowAndOmit[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  static const timespec kBothNow[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  static const timespec kBothOmit[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
  const bool anybody = AnybodySetsSecurityAttributes();
  const PermissionRules::Setter setters[] = {
      {"chmod", [](Subject& s) { return s.Chmod("f", 0600); }, true, false, false, EPERM},
      {"chown_to_itself", [](Subject& s) { return s.Chown("f", kOwner.uid, ~gid_t{0}); }, true,
       false, false, EPERM},
      {"chown_of_nothing", [](Subject& s) { return s.Chown("f", ~uid_t{0}, ~gid_t{0}); }, true,
       true, true, EPERM},
      {"chown_to_another", [](Subject& s) { return s.Chown("f", kOther.uid, ~gid_t{0}); }, false,
       false, false, EPERM},
      {"chgrp_to_a_group_of_the_owner",
       [](Subject& s) { return s.Chown("f", ~uid_t{0}, kOwner.gid); }, true, false, false, EPERM},
      {"chgrp_to_another_group", [](Subject& s) { return s.Chown("f", ~uid_t{0}, 4242); }, false,
       false, false, EPERM},
      {"utimens_explicit", [](Subject& s) { return s.Utimens("f", kPast); }, true, false, false,
       EPERM},
      {"utimens_now_and_omit", [](Subject& s) { return s.Utimens("f", kNowAndOmit); }, true, false,
       false, EPERM},
      {"utimens_both_now", [](Subject& s) { return s.Utimens("f", kBothNow); }, true, true, false,
       EACCES},
      {"utimens_null", [](Subject& s) { return s.Utimens("f", nullptr); }, true, true, false,
       EACCES},
      {"utimens_both_omit", [](Subject& s) { return s.Utimens("f", kBothOmit); }, true, true, true,
       0},
      {"truncate", [](Subject& s) { return s.Truncate("f", 0); }, true, true, false, EACCES},
      {"setxattr_user", [](Subject& s) { return s.SetXattr("f", "user.a", "1"); }, true, true,
       false, EACCES},
      {"setxattr_trusted", [](Subject& s) { return s.SetXattr("f", "trusted.a", "1"); }, false,
       false, false, EPERM},
      {"setxattr_security", [](Subject& s) { return s.SetXattr("f", "security.a", "1"); }, anybody,
       anybody, anybody, EPERM},
  };
  for (const auto& row : setters) {
    for (const std::string who : {"root", "owner", "member", "other"}) {
      Register<PermissionRules>("SetPermission", row.name + std::string("_by_") + who,
                                [=](PermissionRules& t) { t.SetBy(row, who); });
    }
  }
  return true;
}();

}  // namespace
}  // namespace pkramfs
