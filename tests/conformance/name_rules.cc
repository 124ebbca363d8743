// Making, linking, removing and renaming: what each call says of each kind of thing, and
// what is there afterwards.
#include <stdio.h>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

class NameRules : public Conformance {
 public:
  // A call on a name that leads to a thing of some kind.
  void OnKind(const std::string& kind, const std::function<int(Subject&)>& call, int error,
              bool stays) {
    Make(kind, "x");
    Settle();
    const Names before = List(".");
    const struct stat was = Of("x");
    EXPECT_EQ(call(fs()), -error);
    EXPECT_EQ(Exists("x"), stays);
    if (!stays) return;
    EXPECT_EQ(List("."), before);
    EXPECT_EQ(Of("x").st_ino, was.st_ino);
    EXPECT_EQ(Of("x").st_nlink, was.st_nlink);
  }

  struct RenameCase {
    std::string source, target;  // kinds; "none", "same"
    unsigned flags;
  };
  // What rename(2) says of it.
  static int ErrorOf(const RenameCase& c) {
    const bool exists = c.target != "none";
    if ((c.flags & RENAME_EXCHANGE) != 0) return exists ? 0 : ENOENT;
    if ((c.flags & RENAME_NOREPLACE) != 0) return exists ? EEXIST : 0;
    if (c.target == "same" || !exists) return 0;
    if (IsDirectory(c.source) && !IsDirectory(c.target)) return ENOTDIR;
    if (!IsDirectory(c.source) && IsDirectory(c.target)) return EISDIR;
    return c.target == "full" ? ENOTEMPTY : 0;
  }
  void CheckRename(const RenameCase& c, bool across) {
    if (across) {
      ASSERT_EQ(fs().Mkdir("to", 0755), 0);
    }
    const std::string to = std::string(across ? "to/" : "") + (c.target == "same" ? "y" : "b");
    Make(c.source, "a");
    const struct stat source = Of("a");
    struct stat target {};
    if (c.target == "same") {
      if (IsDirectory(c.source)) GTEST_SKIP() << "directories have one name";
      ASSERT_EQ(fs().Link("a", to), 0);
    } else if (c.target != "none") {
      Make(c.target, to);
    }
    if (c.target != "none") target = Of(to);
    Settle();
    const int error = ErrorOf(c);
    EXPECT_EQ(fs().Rename("a", to, c.flags), -error);
    if (error != 0) {
      EXPECT_EQ(Of("a").st_ino, source.st_ino);
      EXPECT_EQ(Exists(to), c.target != "none");
      return;
    }
    EXPECT_EQ(Of(to).st_ino, source.st_ino);
    if (c.target == "same") {
      EXPECT_TRUE(Exists("a"));  // two names of one file are nothing to rename
    } else if ((c.flags & RENAME_EXCHANGE) != 0) {
      EXPECT_EQ(Of("a").st_ino, target.st_ino);
    } else if ((c.flags & RENAME_WHITEOUT) != 0) {
      EXPECT_EQ(Of("a").st_mode, S_IFCHR | 0u);
      EXPECT_EQ(Of("a").st_rdev, 0u);
    } else {
      EXPECT_FALSE(Exists("a"));
    }
    if (c.source == "full") {
      EXPECT_EQ(List(to), Names{"in"});
    }
    const nlink_t children = across && IsDirectory(c.source) ? 1 : 0;
    if (across && (c.flags & RENAME_EXCHANGE) == 0) {
      EXPECT_EQ(Of("to").st_nlink, 2 + children);
    }
    ExpectLinkCounts(".");
  }
  // A directory has two links and one for each below it.
  void ExpectLinkCounts(const std::string& path) {
    nlink_t directories = 0;
    for (const std::string& name : List(path)) {
      if (!S_ISDIR(Of(path + "/" + name).st_mode)) continue;
      ++directories;
      ExpectLinkCounts(path + "/" + name);
    }
    EXPECT_EQ(Of(path).st_nlink, 2 + directories) << path;
  }
};

const bool kNameRulesRegistered = [] {
  using Call = std::function<int(Subject&)>;
  struct Row {
    const char* name;
    Call call;
    std::function<int(const std::string&)> error;  // of a kind
    bool removes;
  };
  const auto always = [](int error) { return [error](const std::string&) { return error; }; };
  const auto directory = [](const std::string& kind) { return kind == "dir" || kind == "full"; };
  const Row rows[] = {
      {"mkdir", [](Subject& s) { return s.Mkdir("x", 0755); }, always(EEXIST), false},
      {"mknod_of_a_file", [](Subject& s) { return s.Mknod("x", S_IFREG | 0644, 0); },
       always(EEXIST), false},
      {"mknod_of_a_fifo", [](Subject& s) { return s.Mknod("x", S_IFIFO | 0644, 0); },
       always(EEXIST), false},
      {"symlink", [](Subject& s) { return s.Symlink("t", "x"); }, always(EEXIST), false},
      {"an_exclusive_open",
       [](Subject& s) { return s.Open("x", O_CREAT | O_EXCL | O_WRONLY, 0644); }, always(EEXIST),
       false},
      {"link_to_itself", [](Subject& s) { return s.Link("x", "x"); }, always(EEXIST), false},
      {"unlink", [](Subject& s) { return s.Unlink("x"); },
       [=](const std::string& k) { return directory(k) ? EISDIR : 0; }, true},
      {"rmdir", [](Subject& s) { return s.Rmdir("x"); },
       [=](const std::string& k) { return !directory(k) ? ENOTDIR
                                          : k == "full" ? ENOTEMPTY
                                                        : 0; },
       true},
      {"readlink",
       [](Subject& s) {
         std::string t;
         return s.Readlink("x", &t);
       },
       [](const std::string& k) { return k == "symlink" || k == "dangling" ? 0 : EINVAL; }, false},
      {"rename_to_itself", [](Subject& s) { return s.Rename("x", "x"); }, always(0), false},
      {"an_exchange_with_itself", [](Subject& s) { return s.Rename("x", "x", RENAME_EXCHANGE); },
       always(0), false},
      {"no_replace_of_itself", [](Subject& s) { return s.Rename("x", "x", RENAME_NOREPLACE); },
       always(EEXIST), false},
      {"listing",
       [](Subject& s) {
         Names names;
         return s.List("x", &names);
       },
       [=](const std::string& k) { return directory(k)      ? 0
                                          : k == "dangling" ? ENOENT
                                                            : ENOTDIR; },
       false},
  };
  for (const Row& row : rows) {
    for (const std::string& kind : kKinds) {
      Register<NameRules>("NameRules", std::string(row.name) + "_of_a_" + kind,
                          [row, kind](NameRules& t) {
                            const int error = row.error(kind);
                            t.OnKind(kind, row.call, error, !row.removes || error != 0);
                          });
    }
  }
  const std::vector<std::string> sources = {"file", "dir", "full", "symlink", "fifo"};
  const std::vector<std::string> targets = {"none", "same", "file",    "dir",
                                            "full", "fifo", "dangling"};
  const std::pair<const char*, unsigned> all_flags[] = {{"plain", 0},
                                                        {"noreplace", RENAME_NOREPLACE},
                                                        {"exchange", RENAME_EXCHANGE},
                                                        {"whiteout", RENAME_WHITEOUT}};
  for (const auto& source : sources) {
    for (const auto& target : targets) {
      for (const auto& [flag_name, flags] : all_flags) {
        for (const bool across : {false, true}) {
          const NameRules::RenameCase c{source, target, flags};
          Register<NameRules>(
              "Rename",
              source + "_to_" + target + "_" + flag_name + (across ? "_across_directories" : ""),
              [c, across](NameRules& t) { t.CheckRename(c, across); });
        }
      }
    }
  }
  return true;
}();

TEST_F(NameRules, RenameRefusesFlagsThatExcludeEachOther) {
  MakeFile("a");
  MakeFile("b");
  Settle();
  EXPECT_EQ(fs().Rename("a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
  EXPECT_EQ(fs().Rename("a", "b", RENAME_WHITEOUT | RENAME_EXCHANGE), -EINVAL);
  EXPECT_EQ(fs().Rename("a", "b", 64), -EINVAL);
  EXPECT_EQ(fs().Rename("a", "c", RENAME_NOREPLACE | RENAME_WHITEOUT), 0);
  EXPECT_TRUE(S_ISCHR(Of("a").st_mode));
}

TEST_F(NameRules, ADirectoryCannotMoveBelowItself) {
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(fs().Mkdir("d/e", 0755), 0);
  ASSERT_EQ(fs().Mkdir("d/e/f", 0755), 0);
  Settle();
  EXPECT_EQ(fs().Rename("d", "d/e/f/g"), -EINVAL);
  EXPECT_EQ(fs().Rename("d", "d/x"), -EINVAL);
  EXPECT_EQ(fs().Rename("d/e/f", "d"), -ENOTEMPTY);
  EXPECT_EQ(fs().Rename("d/e/f", "d", RENAME_EXCHANGE), -EINVAL);
  EXPECT_EQ(fs().Rename("d/e/f", "f"), 0);
  EXPECT_EQ(fs().Rename("d", "f/d"), 0);
  ExpectLinkCounts(".");
}

TEST_F(NameRules, DotAndDotDotCannotBeMadeOrTaken) {
  NEEDS_KERNEL();
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(fs().Mkdir("d/e", 0755), 0);
  Settle();
  EXPECT_EQ(fs().Mkdir("d/.", 0755), -EEXIST);
  EXPECT_EQ(fs().Mkdir("d/e/..", 0755), -EEXIST);
  EXPECT_EQ(fs().Rmdir("d/e/."), -EINVAL);
  EXPECT_EQ(fs().Rmdir("d/e/.."), -ENOTEMPTY);
  EXPECT_EQ(fs().Unlink("d/e/."), -EISDIR);
  EXPECT_EQ(fs().Unlink("d/e/.."), -EISDIR);
  EXPECT_EQ(fs().Rename("d/e/.", "x"), -EBUSY);
  EXPECT_EQ(fs().Rename("d/e/..", "x"), -EBUSY);
  EXPECT_EQ(fs().Rename("d/e", "d/."), -EBUSY);
  EXPECT_EQ(fs().Symlink("t", "d/."), -EEXIST);
  EXPECT_EQ(fs().Link("d/.", "x"), -EPERM);
}

TEST_F(NameRules, TrailingSlashesAreForDirectories) {
  NEEDS_KERNEL();
  MakeFile("f");
  Settle();
  EXPECT_EQ(fs().Open("f/", O_RDONLY), -ENOTDIR);
  EXPECT_EQ(fs().Open("new/", O_CREAT | O_WRONLY, 0644), -EISDIR);
  EXPECT_EQ(fs().Mkdir("d/", 0755), 0);
  EXPECT_EQ(fs().Mknod("n/", S_IFREG | 0644, 0), -ENOENT);
  EXPECT_EQ(fs().Symlink("t", "s/"), -ENOENT);
  EXPECT_EQ(fs().Link("f", "l/"), -ENOENT);
  EXPECT_EQ(fs().Unlink("f/"), -ENOTDIR);
  EXPECT_EQ(fs().Rename("f", "g/"), -ENOTDIR);
  EXPECT_EQ(fs().Rename("d/", "e/"), 0);
  EXPECT_EQ(fs().Rmdir("e/"), 0);
}

TEST_F(NameRules, NamesAreAnyBytes) {
  std::vector<std::string> names = {" ",        "...",  "..a", ".a", "\x01\x02",
                                    "\xff\xfe", "a\nb", "\\",  "*?", std::string(255, 'x'),
                                    "ü",        "A",    "a"};
  for (int c = 1; c < 256; ++c) {
    if (c != '/') names.push_back(std::string("c") + static_cast<char>(c));
  }
  for (const std::string& name : names) MakeFile(name, name);
  Settle();
  EXPECT_EQ(List("."), Names(names.begin(), names.end()));
  for (const std::string& name : names) EXPECT_EQ(Text(name), name);
  for (const std::string& name : names) EXPECT_EQ(fs().Unlink(name), 0);
  EXPECT_EQ(List("."), Names());
}

TEST_F(NameRules, SymlinksHoldUpTo4095Bytes) {
  for (const size_t size : {1, 59, 60, 61, 63, 64, 3919, 3920, 3921, 4094, 4095}) {
    const std::string name = "s" + std::to_string(size), target(size, 't');
    ASSERT_EQ(fs().Symlink(target, name), 0);
    if (size == 3920 || size == 4095) Settle();
    std::string read;
    EXPECT_EQ(fs().Readlink(name, &read), 0);
    EXPECT_EQ(read, target);
    EXPECT_EQ(Of(name).st_size, static_cast<off_t>(size));
    EXPECT_EQ(ModeOf(name), 0777u);
  }
  EXPECT_EQ(fs().Symlink(std::string(4096, 't'), "long"), -ENAMETOOLONG);
  EXPECT_EQ(fs().Symlink("", "empty"), -ENOENT);
}

TEST_F(NameRules, EveryKindKeepsItsTypeAndDevice) {
  ASSERT_EQ(fs().Mknod("char", S_IFCHR | 0640, 0x1234), 0);
  ASSERT_EQ(fs().Mknod("block", S_IFBLK | 0600, 0xffff0703), 0);
  ASSERT_EQ(fs().Mknod("white", S_IFCHR, 0), 0);
  ASSERT_EQ(fs().Mknod("fifo", S_IFIFO | 0644, 77), 0);
  ASSERT_EQ(fs().Mknod("socket", S_IFSOCK | 0644, 0), 0);
  ASSERT_EQ(fs().Mknod("file", S_IFREG | 0644, 0), 0);
  ASSERT_EQ(fs().Mknod("also", 0644, 0), 0);
  Settle();
  EXPECT_EQ(Of("char").st_mode, S_IFCHR | 0640u);
  EXPECT_EQ(Of("char").st_rdev, 0x1234u);
  EXPECT_EQ(Of("block").st_mode, S_IFBLK | 0600u);
  EXPECT_EQ(Of("block").st_rdev, 0xffff0703u);
  EXPECT_EQ(Of("white").st_mode, S_IFCHR | 0u);
  EXPECT_EQ(Of("fifo").st_mode, S_IFIFO | 0644u);
  EXPECT_EQ(Of("socket").st_mode, S_IFSOCK | 0644u);
  EXPECT_EQ(Of("file").st_mode, S_IFREG | 0644u);
  EXPECT_EQ(Of("also").st_mode, S_IFREG | 0644u);
}

TEST_F(NameRules, MknodMakesNoDirectoriesAndNoSymlinks) {
  NEEDS_KERNEL();
  EXPECT_EQ(fs().Mknod("d", S_IFDIR | 0755, 0), -EPERM);
  EXPECT_EQ(fs().Mknod("l", S_IFLNK | 0755, 0), -EINVAL);
  Become(kOther);
  EXPECT_EQ(fs().Mknod("c", S_IFCHR | 0644, 0x103), -EPERM);
  EXPECT_EQ(fs().Mknod("b", S_IFBLK | 0644, 0x103), -EPERM);
  EXPECT_EQ(fs().Mknod("w", S_IFCHR, 0), 0);  // a whiteout is for everybody
  EXPECT_EQ(fs().Mknod("f", S_IFIFO | 0644, 0), 0);
}

TEST_F(NameRules, AFileLivesWhileItHasANameOrIsOpen) {
  const int fd = MakeOpen("f");
  ASSERT_EQ(fs().Write(fd, "alive", 0), 5);
  ASSERT_EQ(fs().Link("f", "g"), 0);
  struct stat st;
  ASSERT_EQ(fs().Fstat(fd, &st), 0);
  EXPECT_EQ(st.st_nlink, 2u);
  EXPECT_EQ(fs().Unlink("f"), 0);
  ASSERT_EQ(fs().Fstat(fd, &st), 0);
  EXPECT_EQ(st.st_nlink, 1u);
  EXPECT_EQ(fs().Unlink("g"), 0);
  ASSERT_EQ(fs().Fstat(fd, &st), 0);
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_EQ(fs().Write(fd, "and kicking", 5), 11);
  std::string bytes;
  EXPECT_EQ(fs().Read(fd, &bytes, 100, 0), 16);
  EXPECT_EQ(bytes, "aliveand kicking");
  EXPECT_EQ(fs().Ftruncate(fd, 3), 0);
  EXPECT_EQ(fs().Close(fd), 0);
}

TEST_F(NameRules, HardLinksAreOneFile) {
  MakeFile("f", "one");
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(fs().Link("f", "d/g"), 0);
  Settle();
  const int fd = Open("d/g");
  EXPECT_EQ(fs().Write(fd, "two", 0), 3);
  EXPECT_EQ(fs().Chmod("d/g", 0600), 0);
  EXPECT_EQ(Text("f"), "two");
  EXPECT_EQ(ModeOf("f"), 0600u);
  EXPECT_EQ(Of("f").st_nlink, 2u);
  EXPECT_EQ(Of("f").st_ino, Of("d/g").st_ino);
  EXPECT_EQ(fs().Unlink("f"), 0);
  EXPECT_EQ(Of("d/g").st_nlink, 1u);
}

TEST_F(NameRules, DirectoriesHaveOneName) {
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  Settle();
  EXPECT_EQ(fs().Link("d", "e"), -EPERM);
}

TEST_F(NameRules, ALinkIsToTheSymlinkItself) {
  Make("dangling", "s");
  Settle();
  EXPECT_EQ(fs().Link("s", "t"), 0);
  EXPECT_EQ(Of("s").st_ino, Of("t").st_ino);
  EXPECT_EQ(Of("s").st_nlink, 2u);
}

TEST_F(NameRules, ThousandsOfHardLinks) {
  MakeFile("f");
  for (int i = 0; i < 3000; ++i) ASSERT_EQ(fs().Link("f", "l" + std::to_string(i)), 0);
  Settle();
  EXPECT_EQ(Of("f").st_nlink, 3001u);
  EXPECT_EQ(List(".").size(), 3001u);
}

TEST_F(NameRules, ARemovedDirectoryTakesNothingNew) {
  NEEDS_KERNEL();
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  const int fd = Open("d", O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(fs().Rmdir("d"), 0);
  EXPECT_EQ(openat(fd, "f", O_CREAT | O_WRONLY, 0644), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(mkdirat(fd, "e", 0755), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(symlinkat("t", fd, "s"), -1);
  EXPECT_EQ(errno, ENOENT);
  struct stat st;
  EXPECT_EQ(fs().Fstat(fd, &st), 0);
  EXPECT_EQ(st.st_nlink, 0u);
}

TEST_F(NameRules, DirectoriesAreAsLongAsTmpfsSays) {
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  EXPECT_EQ(Of("d").st_size, 40);
  for (int i = 0; i < 10; ++i) MakeFile("d/" + std::to_string(i));
  ASSERT_EQ(fs().Rename("d/3", "d/4"), 0);
  ASSERT_EQ(fs().Unlink("d/5"), 0);
  ASSERT_EQ(fs().Rename("d/6", "out"), 0);
  Settle();
  EXPECT_EQ(Of("d").st_size, 40 + 7 * 20);
  EXPECT_EQ(Of("d").st_blocks, 0);
}

TEST_F(NameRules, ADirectoryShowsItselfAndItsParent) {
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  Settle();
  Names names;
  EXPECT_EQ(fs().List("d", &names), 0);
  EXPECT_EQ(names, (Names{".", ".."}));
}

TEST_F(NameRules, ALargeDirectoryIsListedWholeWhileItChanges) {
  for (int i = 0; i < 2000; ++i) MakeFile("stays" + std::to_string(i));
  Settle();
  for (int i = 0; i < 1000; ++i)
    ASSERT_EQ(fs().Rename("stays" + std::to_string(i), "new" + std::to_string(i)), 0);
  EXPECT_EQ(List(".").size(), 2000u);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(fs().Unlink("new" + std::to_string(i)), 0);
  EXPECT_EQ(List(".").size(), 1000u);
  EXPECT_TRUE(Exists("stays1999"));
}

// --- Making: mode, owner, umask ---------------------------------------------------

class MakingRules : public Conformance {
 public:
  void ModeIs(const std::string& how, mode_t asked, mode_t mask, bool setgid, const User& user) {
    ASSERT_EQ(fs().Mkdir("d", 0777), 0);
    ASSERT_EQ(fs().Chown("d", 7, 77), 0);
    ASSERT_EQ(fs().Chmod("d", setgid ? 02777 : 0777), 0);
    Settle();
    Become(user);
    fs().Umask(mask);
    mode_t allowed = 07777;
    if (how == "open") {
      const int fd = fs().Open("d/x", O_CREAT | O_WRONLY, asked);
      ASSERT_GE(fd, 0);
      fs().Close(fd);
    } else if (how == "mknod") {
      ASSERT_EQ(fs().Mknod("d/x", S_IFIFO | asked, 0), 0);
    } else {
      ASSERT_EQ(fs().Mkdir("d/x", asked), 0);
      allowed = 01777;
    }
    Become(kRoot);
    mode_t mode = asked & allowed & ~mask;
    const gid_t group = setgid ? 77 : user.gid;
    if (how == "mkdir" && setgid) mode |= S_ISGID;
    // A user who is not in the group cannot make a program that runs as the group.
    if (how != "mkdir" && setgid && user.uid != 0 &&
        (asked & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) {
      mode &= ~static_cast<mode_t>(S_ISGID);
    }
    EXPECT_EQ(ModeOf("d/x"), mode);
    EXPECT_EQ(Of("d/x").st_uid, user.uid);
    EXPECT_EQ(Of("d/x").st_gid, group);
  }
};

const bool kMakingRegistered = [] {
  for (const std::string how : {"open", "mknod", "mkdir"}) {
    for (const mode_t asked : {0u, 0777u, 0644u, 04755u, 02755u, 01777u, 07777u}) {
      for (const mode_t mask : {0u, 022u, 0777u}) {
        for (const bool setgid : {false, true}) {
          for (const bool root : {true, false}) {
            char name[100];
            std::snprintf(name, sizeof(name), "%s_%04o_umask_%03o_%s%s", how.c_str(), asked, mask,
                          setgid ? "setgid_" : "", root ? "root" : "user");
            Register<MakingRules>("MakingRules", name, [=](MakingRules& t) {
              t.ModeIs(how, asked, mask, setgid, root ? kRoot : kOther);
            });
          }
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace pkramfs
