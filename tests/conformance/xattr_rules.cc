// Extended attributes and POSIX ACLs.
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include "tests/conformance/conformance.h"
#include "tests/conformance/kernel_rules.h"

namespace pkramfs {
namespace {

class XattrRules : public Conformance {
 public:
  std::string Value(const std::string& path, const std::string& name) {
    std::string value;
    EXPECT_EQ(fs().GetXattr(path, name, &value), 0) << path << " " << name;
    return value;
  }
  Names NamesOf(const std::string& path) {
    Names names;
    EXPECT_EQ(fs().ListXattrs(path, &names), 0);
    return names;
  }

  // What the VFS lets whom do with a name of a namespace, on a thing of a kind.
  void InNamespace(const std::string& space, const std::string& kind, bool root) {
    NEEDS_KERNEL();
    Make(kind, "x");
    if (!root) {
      ASSERT_EQ(fs().Chown("x", kOwner.uid, kOwner.gid, false), 0);
    }
    Settle();
    const bool keeps_user =
        kind == "file" || kind == "dir" || (kind == "socket" && SocketsHaveUserAttributes());
    int set = 0, get = 0;
    if (space == "user." && !keeps_user) {
      set = EPERM;
      get = ENODATA;
    } else if (space == "trusted." && !root) {
      set = EPERM;
      get = ENODATA;
    } else if (space == "security." && !root && !AnybodySetsSecurityAttributes()) {
      set = EPERM;
      get = ENODATA;
    } else if (space == "system." || space == "nonsense." || space == "") {
      set = get = EOPNOTSUPP;
    }
    Become(root ? kRoot : kOwner);
    const std::string name = space + "name";
    EXPECT_EQ(fs().SetXattr("x", name, "value"), -set);
    std::string value;
    EXPECT_EQ(fs().GetXattr("x", name, &value), -get);
    if (set == 0) {
      EXPECT_EQ(value, "value");
      EXPECT_EQ(NamesOf("x"), Names{name});
      EXPECT_EQ(fs().RemoveXattr("x", name), 0);
      EXPECT_EQ(fs().RemoveXattr("x", name), -ENODATA);
    } else {
      EXPECT_LT(fs().RemoveXattr("x", name), 0);
    }
    Become(kRoot);
  }
  void Sized(size_t size) {
    MakeFile("f");
    const std::string value(size, 'v');
    ASSERT_EQ(fs().SetXattr("f", "trusted.sized", value), 0);
    ASSERT_EQ(fs().SetXattr("f", "trusted.other", "o"), 0);
    Settle();
    EXPECT_TRUE(Value("f", "trusted.sized") == value);
    EXPECT_EQ(Value("f", "trusted.other"), "o");
  }
};

const bool kXattrRulesRegistered = [] {
  for (const std::string space : {"user.", "trusted.", "security.", "system.", "nonsense.", ""}) {
    for (const std::string kind : {"file", "dir", "symlink", "fifo", "socket", "char"}) {
      for (const bool root : {true, false}) {
        Register<XattrRules>("Namespace",
                             (space.empty() ? "none" : space) + "_of_a_" + kind +
                                 (root ? "_by_root" : "_by_its_owner"),
                             [=](XattrRules& t) { t.InNamespace(space, kind, root); });
      }
    }
  }
  for (const size_t size : {0, 1, 100, 4000, 4072, 4073, 4096, 5000, 32768, 65535, 65536}) {
    Register<XattrRules>("XattrRules", "a_value_of_" + std::to_string(size),
                         [=](XattrRules& t) { t.Sized(size); });
  }
  return true;
}();

TEST_F(XattrRules, CreateAndReplace) {
  MakeFile("f");
  Settle();
  EXPECT_EQ(fs().SetXattr("f", "user.a", "1", XATTR_REPLACE), -ENODATA);
  EXPECT_EQ(fs().SetXattr("f", "user.a", "1", XATTR_CREATE), 0);
  EXPECT_EQ(fs().SetXattr("f", "user.a", "2", XATTR_CREATE), -EEXIST);
  EXPECT_EQ(Value("f", "user.a"), "1");
  EXPECT_EQ(fs().SetXattr("f", "user.a", "3", XATTR_REPLACE), 0);
  EXPECT_EQ(Value("f", "user.a"), "3");
}

TEST_F(XattrRules, BothFlagsAtOnce) {
  NEEDS_KERNEL();
  MakeFile("f");
  ASSERT_EQ(fs().SetXattr("f", "user.a", "1"), 0);
  EXPECT_EQ(fs().SetXattr("f", "user.a", "1", XATTR_CREATE | XATTR_REPLACE), -EEXIST);
  EXPECT_EQ(fs().SetXattr("f", "user.b", "1", XATTR_CREATE | XATTR_REPLACE), -ENODATA);
  EXPECT_EQ(fs().SetXattr("f", "user.a", "1", 77), -EINVAL);
}

TEST_F(XattrRules, LimitsOfNamesAndValues) {
  NEEDS_KERNEL();
  MakeFile("f");
  EXPECT_EQ(fs().SetXattr("f", "user." + std::string(250, 'n'), "1"), 0);
  Settle();
  EXPECT_EQ(Value("f", "user." + std::string(250, 'n')), "1");
  EXPECT_EQ(fs().SetXattr("f", "user." + std::string(251, 'n'), "1"), -ERANGE);
  EXPECT_EQ(fs().SetXattr("f", "user.", "1"), -EINVAL);
  EXPECT_EQ(fs().SetXattr("f", "", "1"), -ERANGE);
  EXPECT_EQ(fs().SetXattr("f", "user.large", std::string(65537, 'v')), -E2BIG);
}

TEST_F(XattrRules, BuffersThatAreTooSmall) {
  NEEDS_KERNEL();
  MakeFile("f");
  ASSERT_EQ(fs().SetXattr("f", "user.a", "12345"), 0);
  Settle();
  const std::string path = Path("f");
  char buffer[100];
  EXPECT_EQ(getxattr(path.c_str(), "user.a", nullptr, 0), 5);
  EXPECT_EQ(getxattr(path.c_str(), "user.a", buffer, 5), 5);
  EXPECT_EQ(getxattr(path.c_str(), "user.a", buffer, 4), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(listxattr(path.c_str(), nullptr, 0), 7);
  EXPECT_EQ(listxattr(path.c_str(), buffer, 7), 7);
  EXPECT_EQ(listxattr(path.c_str(), buffer, 6), -1);
  EXPECT_EQ(errno, ERANGE);
}

TEST_F(XattrRules, ManyAttributes) {
  MakeFile("f");
  Names names;
  for (int i = 0; i < 300; ++i) {
    const std::string name = "user.attribute" + std::to_string(i);
    ASSERT_EQ(fs().SetXattr("f", name, std::string(static_cast<size_t>(i), 'v')), 0);
    names.insert(name);
  }
  Settle();
  EXPECT_EQ(NamesOf("f"), names);
  for (int i = 0; i < 300; i += 2) {
    const std::string name = "user.attribute" + std::to_string(i);
    ASSERT_EQ(fs().RemoveXattr("f", name), 0);
    names.erase(name);
  }
  EXPECT_EQ(NamesOf("f"), names);
  EXPECT_EQ(Value("f", "user.attribute299"), std::string(299, 'v'));
}

TEST_F(XattrRules, ValuesAreAnyBytes) {
  MakeFile("f");
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  ASSERT_EQ(fs().SetXattr("f", "user.bytes", bytes), 0);
  Settle();
  EXPECT_EQ(Value("f", "user.bytes"), bytes);
}

TEST_F(XattrRules, TheyAreOfTheFileNotOfTheName) {
  MakeFile("f");
  ASSERT_EQ(fs().SetXattr("f", "user.a", "1"), 0);
  ASSERT_EQ(fs().Link("f", "g"), 0);
  ASSERT_EQ(fs().Rename("f", "h"), 0);
  Settle();
  EXPECT_EQ(Value("g", "user.a"), "1");
  EXPECT_EQ(fs().RemoveXattr("h", "user.a"), 0);
  EXPECT_EQ(NamesOf("g"), Names());
}

TEST_F(XattrRules, TrustedNamesAreListedForRootOnly) {
  MakeFile("f", "", 0666);
  ASSERT_EQ(fs().SetXattr("f", "trusted.t", "1"), 0);
  ASSERT_EQ(fs().SetXattr("f", "user.u", "1"), 0);
  ASSERT_EQ(fs().SetXattr("f", "security.s", "1"), 0);
  Settle();
  EXPECT_EQ(NamesOf("f"), (Names{"trusted.t", "user.u", "security.s"}));
  Become(kOther);
  EXPECT_EQ(NamesOf("f"), (Names{"user.u", "security.s"}));
}

TEST_F(XattrRules, StickyDirectoriesKeepUserAttributesToTheirOwner) {
  NEEDS_KERNEL();
  ASSERT_EQ(fs().Mkdir("d", 0777), 0);
  ASSERT_EQ(fs().Chmod("d", 01777), 0);
  ASSERT_EQ(fs().Chown("d", kOwner.uid, kOwner.gid), 0);
  Settle();
  Become(kOther);
  EXPECT_EQ(fs().SetXattr("d", "user.a", "1"), -EPERM);
  Become(kOwner);
  EXPECT_EQ(fs().SetXattr("d", "user.a", "1"), 0);
}

// --- ACLs --------------------------------------------------------------------------------

constexpr const char* kAccess = "system.posix_acl_access";
constexpr const char* kDefault = "system.posix_acl_default";

// "u::rwx,u:1002:r,g::rx,m::rwx,o::" as the attribute's bytes.
std::string AclBytes(const std::string& text) {
  std::string bytes("\2\0\0\0", 4);
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string entry = text.substr(at, comma - at);
    const size_t first = entry.find(':'), second = entry.find(':', first + 1);
    const std::string id = entry.substr(first + 1, second - first - 1);
    uint16_t perm = 0;
    for (const char c : entry.substr(second + 1)) perm |= c == 'r' ? 4 : c == 'w' ? 2 : 1;
    uint16_t tag = 0;
    if (entry[0] == 'u') tag = id.empty() ? 0x01 : 0x02;
    if (entry[0] == 'g') tag = id.empty() ? 0x04 : 0x08;
    if (entry[0] == 'm') tag = 0x10;
    if (entry[0] == 'o') tag = 0x20;
    const uint32_t number = id.empty() ? ~uint32_t{0} : static_cast<uint32_t>(std::stoul(id));
    bytes.append(reinterpret_cast<const char*>(&tag), 2);
    bytes.append(reinterpret_cast<const char*>(&perm), 2);
    bytes.append(reinterpret_cast<const char*>(&number), 4);
    at = comma + 1;
  }
  return bytes;
}

class AclRules : public XattrRules {
 public:
  // The list, or "" when there is none.
  std::string AclOf(const std::string& path, const char* name = kAccess) {
    std::string value;
    const int error = fs().GetXattr(path, name, &value);
    if (error == -ENODATA) return "";
    EXPECT_EQ(error, 0);
    std::string text;
    for (size_t at = 4; at + 8 <= value.size(); at += 8) {
      uint16_t tag, perm;
      uint32_t id;
      std::memcpy(&tag, value.data() + at, 2);
      std::memcpy(&perm, value.data() + at + 2, 2);
      std::memcpy(&id, value.data() + at + 4, 4);
      if (!text.empty()) text += ',';
      text += tag == 1 || tag == 2 ? "u:" : tag == 4 || tag == 8 ? "g:" : tag == 0x10 ? "m:" : "o:";
      if (tag == 2 || tag == 8) text += std::to_string(id);
      text += ':';
      if ((perm & 4) != 0) text += 'r';
      if ((perm & 2) != 0) text += 'w';
      if ((perm & 1) != 0) text += 'x';
    }
    return text;
  }
  int SetAcl(const std::string& path, const std::string& text, const char* name = kAccess) {
    return fs().SetXattr(path, name, AclBytes(text));
  }

  void Inherit(const std::string& acl, const std::string& how, mode_t asked, mode_t mode,
               const std::string& access) {
    ASSERT_EQ(fs().Mkdir("d", 0777), 0);
    ASSERT_EQ(SetAcl("d", acl, kDefault), 0);
    Settle();
    fs().Umask(077);  // which counts for nothing here
    if (how == "file") {
      fs().Close(Open("d/x", O_CREAT | O_WRONLY, asked));
    } else if (how == "dir") {
      ASSERT_EQ(fs().Mkdir("d/x", asked), 0);
    } else {
      ASSERT_EQ(fs().Mknod("d/x", S_IFIFO | asked, 0), 0);
    }
    EXPECT_EQ(ModeOf("d/x"), mode);
    EXPECT_EQ(AclOf("d/x"), access);
    EXPECT_EQ(how == "dir" ? AclOf("d/x", kDefault) : acl, acl);
  }

  // Who may what with "u::rw,u:1002:r,g::,g:1001:rw,m::...,o::x"
  void Access(const std::string& acl, const User& user, int flags, bool may) {
    NEEDS_KERNEL();
    MakeFile("f", "x");
    ASSERT_EQ(SetAcl("f", acl), 0);
    Settle();
    Become(user);
    const int fd = fs().Open("f", flags);
    EXPECT_EQ(fd < 0 ? fd : 0, may ? 0 : -EACCES);
    Become(kRoot);
  }
};

const bool kAclRegistered = [] {
  const struct {
    const char* acl;
    const char* how;
    mode_t asked, mode;
    const char* access;
  } inherits[] = {
      {"u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx", "file", 0666, 0666,
       "u::rw,u:7:rwx,g::rwx,m::rw,o::rw"},
      {"u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx", "file", 0640, 0640, "u::rw,u:7:rwx,g::rwx,m::r,o::"},
      {"u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx", "dir", 0777, 0777,
       "u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx"},
      {"u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx", "dir", 0700, 0700, "u::rwx,u:7:rwx,g::rwx,m::,o::"},
      {"u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx", "fifo", 0644, 0644, "u::rw,u:7:rwx,g::rwx,m::r,o::r"},
      {"u::rwx,g::rx,o::", "file", 0666, 0640, ""},
      {"u::rwx,g::rx,o::", "dir", 0777, 0750, ""},
      {"u::r,g::r,o::r", "file", 0777, 0444, ""},
      {"u::rw,g::r,g:9:rw,m::r,o::", "file", 0666, 0640, "u::rw,g::r,g:9:rw,m::r,o::"},
      {"u::rw,g::r,g:9:rw,m::r,o::", "file", 0, 0, "u::,g::r,g:9:rw,m::,o::"},
      {"u::rwx,u:1:r,u:2:w,g::x,g:3:rw,m::rwx,o::x", "dir", 0755, 0751,
       "u::rwx,u:1:r,u:2:w,g::x,g:3:rw,m::rx,o::x"},
  };
  for (const auto& row : inherits) {
    Register<AclRules>(
        "AclInheritance", std::string(row.how) + "_" + row.acl + "_" + std::to_string(row.asked),
        [row](AclRules& t) { t.Inherit(row.acl, row.how, row.asked, row.mode, row.access); });
  }
  const User first{2001, 2001}, second{2002, 2002, {3001}}, third{2003, 3001};
  const struct {
    const char* name;
    const char* acl;
    User user;
    bool reads, writes;
  } accesses[] = {
      {"a_named_user", "u::,u:2001:r,g::,m::rwx,o::", first, true, false},
      {"a_named_user_behind_the_mask", "u::,u:2001:rw,g::,m::r,o::", first, true, false},
      {"a_named_user_is_not_one_of_the_others", "u::,u:2001:,g::,m::rwx,o::rw", first, false,
       false},
      {"a_named_group", "u::,g::,g:3001:rw,m::rwx,o::", third, true, true},
      {"a_named_group_that_is_supplementary", "u::,g::,g:3001:w,m::rwx,o::", second, false, true},
      {"a_named_group_behind_the_mask", "u::,g::,g:3001:rw,m::w,o::", second, false, true},
      {"a_member_is_not_one_of_the_others", "u::,g::,g:3001:,m::rwx,o::rw", second, false, false},
      {"any_of_the_groups_will_do", "u::,g::,g:2002:r,g:3001:w,m::rwx,o::", second, true, true},
      {"the_others", "u::,u:9:rw,g::,m::rwx,o::rw", first, true, true},
      {"the_mask_is_not_for_the_others", "u::,u:9:rw,g::,m::,o::r", first, true, false},
      {"a_user_before_a_group", "u::,u:2002:r,g::,g:3001:rw,m::rwx,o::", second, true, false},
  };
  for (const auto& row : accesses) {
    Register<AclRules>("AclAccess", row.name + std::string("_reads"),
                       [row](AclRules& t) { t.Access(row.acl, row.user, O_RDONLY, row.reads); });
    Register<AclRules>("AclAccess", row.name + std::string("_writes"),
                       [row](AclRules& t) { t.Access(row.acl, row.user, O_WRONLY, row.writes); });
  }
  const std::pair<const char*, const char*> wrong[] = {
      {"no_owner", "g::r,o::r"},
      {"no_group", "u::r,o::r"},
      {"no_others", "u::r,g::r"},
      {"no_mask", "u::r,u:1:r,g::r,o::r"},
      {"two_masks", "u::r,g::r,m::r,m::r,o::r"},
      {"two_owners", "u::r,u::r,g::r,o::r"},
      {"another_order", "o::r,g::r,u::r"},
      {"groups_before_users", "u::r,g::r,g:1:r,u:1:r,m::r,o::r"},
  };
  for (const auto& [name, acl] : wrong) {
    Register<AclRules>("WrongAcl", name, [a = std::string(acl)](AclRules& t) {
      t.MakeFile("f");
      EXPECT_EQ(t.SetAcl("f", a), -EINVAL);
      EXPECT_EQ(t.AclOf("f"), "");
      EXPECT_EQ(t.ModeOf("f"), 0644u);
    });
  }
  return true;
}();

TEST_F(AclRules, AnAccessAclIsInStepWithTheMode) {
  MakeFile("f");
  ASSERT_EQ(SetAcl("f", "u::rwx,u:7:rw,g::r,m::rw,o::x"), 0);
  Settle();
  EXPECT_EQ(ModeOf("f"), 0761u);
  EXPECT_EQ(AclOf("f"), "u::rwx,u:7:rw,g::r,m::rw,o::x");
  ASSERT_EQ(fs().Chmod("f", 0604), 0);
  EXPECT_EQ(AclOf("f"), "u::rw,u:7:rw,g::r,m::,o::r");
  ASSERT_EQ(fs().Chmod("f", 04777), 0);
  EXPECT_EQ(AclOf("f"), "u::rwx,u:7:rw,g::r,m::rwx,o::rwx");
  EXPECT_EQ(ModeOf("f"), 04777u);
  ASSERT_EQ(SetAcl("f", "u::r,g::r,o::"), 0);
  EXPECT_EQ(ModeOf("f"), 04440u);
  EXPECT_EQ(AclOf("f"), "");
}

TEST_F(AclRules, WithoutAMaskChmodSetsTheGroup) {
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(SetAcl("d", "u::rwx,u:7:rx,g::r,m::rwx,o::"), 0);
  ASSERT_EQ(fs().Chmod("d", 0700), 0);
  Settle();
  EXPECT_EQ(AclOf("d"), "u::rwx,u:7:rx,g::r,m::,o::");
  EXPECT_EQ(ModeOf("d"), 0700u);
}

TEST_F(AclRules, AnAclThatIsAModeIsKeptAsOne) {
  MakeFile("f");
  ASSERT_EQ(SetAcl("f", "u::rw,g::r,o::r"), 0);
  EXPECT_EQ(AclOf("f"), "");
  EXPECT_EQ(NamesOf("f"), Names());
  ASSERT_EQ(SetAcl("f", "u::rwx,g::,m::rx,o::"), 0);
  Settle();
  EXPECT_EQ(ModeOf("f"), 0750u);
  EXPECT_EQ(AclOf("f"), "u::rwx,g::,m::rx,o::");
  EXPECT_EQ(NamesOf("f"), Names{kAccess});
}

TEST_F(AclRules, RemovingLeavesTheMode) {
  MakeFile("f");
  ASSERT_EQ(SetAcl("f", "u::rwx,u:7:rw,g::r,m::rw,o::x"), 0);
  Settle();
  EXPECT_EQ(fs().RemoveXattr("f", kAccess), 0);
  EXPECT_EQ(AclOf("f"), "");
  EXPECT_EQ(ModeOf("f"), 0761u);
  EXPECT_EQ(fs().RemoveXattr("f", kAccess), 0);
  EXPECT_EQ(fs().RemoveXattr("f", kDefault), 0);
}

TEST_F(AclRules, DefaultsAreForDirectories) {
  MakeFile("f");
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(fs().Symlink("d", "s"), 0);
  Settle();
  EXPECT_EQ(SetAcl("f", "u::rwx,g::r,o::", kDefault), -EACCES);
  EXPECT_EQ(SetAcl("d", "u::rwx,g::r,o::", kDefault), 0);
  EXPECT_EQ(ModeOf("d"), 0755u);
  EXPECT_EQ(AclOf("d", kDefault), "u::rwx,g::r,o::");
  EXPECT_EQ(NamesOf("d"), Names{kDefault});
  EXPECT_EQ(fs().RemoveXattr("d", kDefault), 0);
  EXPECT_EQ(AclOf("d", kDefault), "");
  EXPECT_EQ(SetAcl("s", "u::rwx,g::r,o::"), -EOPNOTSUPP);
}

TEST_F(AclRules, OnlyTheOwnerSetsThem) {
  NEEDS_KERNEL();
  MakeFile("f", "", 0666);
  ASSERT_EQ(fs().Chown("f", kOwner.uid, kOwner.gid), 0);
  Settle();
  Become(kOther);
  EXPECT_EQ(SetAcl("f", "u::rw,u:7:rw,g::r,m::rw,o::x"), -EPERM);
  EXPECT_EQ(fs().RemoveXattr("f", kAccess), -EPERM);
  Become(kOwner);
  EXPECT_EQ(SetAcl("f", "u::rw,u:7:rw,g::r,m::rw,o::x"), 0);
}

TEST_F(AclRules, WhoIsNotInTheGroupLosesSetgidWithAnAcl) {
  MakeFile("f");
  ASSERT_EQ(fs().Chown("f", kOther.uid, 4242), 0);
  ASSERT_EQ(fs().Chmod("f", 02770), 0);
  Settle();
  Become(kOther);
  EXPECT_EQ(SetAcl("f", "u::rwx,u:7:rw,g::rwx,m::rwx,o::"), 0);
  EXPECT_EQ(ModeOf("f"), 0770u);
  Become({kOther.uid, kOther.gid, {4242}});
  ASSERT_EQ(fs().Chmod("f", 02770), 0);
  EXPECT_EQ(SetAcl("f", "u::rwx,u:8:rw,g::rwx,m::rwx,o::"), 0);
  EXPECT_EQ(ModeOf("f"), 02770u);
}

TEST_F(AclRules, SymlinksInheritNothing) {
  ASSERT_EQ(fs().Mkdir("d", 0777), 0);
  ASSERT_EQ(SetAcl("d", "u::rwx,u:7:rwx,g::r,m::rwx,o::", kDefault), 0);
  Settle();
  ASSERT_EQ(fs().Symlink("t", "d/s"), 0);
  EXPECT_EQ(ModeOf("d/s"), 0777u);
  EXPECT_EQ(NamesOf("d/s"), Names());
}

TEST_F(AclRules, AnAclOfManyEntries) {
  MakeFile("f");
  std::string acl = "u::rw";
  for (int i = 0; i < 500; ++i) acl += ",u:" + std::to_string(5000 + i) + ":r";
  acl += ",g::r,m::rw,o::";
  ASSERT_EQ(SetAcl("f", acl), 0);
  Settle();
  EXPECT_EQ(AclOf("f"), acl);
}

TEST_F(AclRules, AnAclOfMoreThanAPage) {
  DIFFERS_ON_A_MOUNT("the kernel sends a FUSE filesystem ACLs of a page at most: E2BIG");
  MakeFile("f");
  std::string acl = "u::rw";
  for (int i = 0; i < 600; ++i) acl += ",u:" + std::to_string(5000 + i) + ":r";
  acl += ",g::r,m::rw,o::";
  ASSERT_EQ(SetAcl("f", acl), 0);
  EXPECT_EQ(AclOf("f"), acl);
}

TEST_F(AclRules, AttributesBesideAnAclStay) {
  MakeFile("f");
  ASSERT_EQ(fs().SetXattr("f", "user.a", "1"), 0);
  ASSERT_EQ(SetAcl("f", "u::rw,u:7:rw,g::r,m::rw,o::"), 0);
  ASSERT_EQ(fs().SetXattr("f", "security.capability",
                          std::string("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20)),
            0);
  Settle();
  ASSERT_EQ(fs().Chmod("f", 0700), 0);
  ASSERT_EQ(fs().Chown("f", 5, 5), 0);
  EXPECT_EQ(NamesOf("f"), (Names{"user.a", kAccess}));
  EXPECT_EQ(AclOf("f"), "u::rwx,u:7:rw,g::r,m::,o::");
}

}  // namespace
}  // namespace pkramfs
