// Modes, owners, set-id bits and times.
#include <sys/statvfs.h>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

constexpr timespec kPast{1000000, 123456789};

class AttributeRules : public Conformance {
 public:
  // --- Set-id bits ---
  struct Loss {
    const char* name;
    std::function<int(Conformance&, Subject&)> call;
    bool always;     // also when root does it
    bool of_others;  // by who may write, but does not own it
  };
  void SetIdBits(const Loss& row, mode_t mode, const User& user) {
    MakeFile("f", std::string(5000, 'x'));
    ASSERT_EQ(fs().Chown("f", kOwner.uid, kOwner.gid), 0);
    ASSERT_EQ(fs().Chmod("f", mode), 0);
    Settle();
    Become(user);
    ASSERT_EQ(row.call(*this, fs()), 0);
    Become(kRoot);
    mode_t left = mode;
    if (row.always || user.uid != 0) {
      left &= ~static_cast<mode_t>(S_ISUID);
      const bool outsider = user.uid == kOther.uid;
      if ((mode & S_IXGRP) != 0 || outsider) left &= ~static_cast<mode_t>(S_ISGID);
    }
    EXPECT_EQ(ModeOf("f"), left);
  }

  // --- Times ---
  // Which times of which of f, d and e (the directories that it is in, and goes to) move:
  // "f:amc d:mc".
  struct Timed {
    const char* name;
    std::function<void(AttributeRules&, Subject&)> call;
    const char* moves;
  };
  std::string Moved(const std::string& path, const struct stat& was) {
    struct stat now;
    if (fs().Lstat(path, &now) != 0) return "";
    std::string moved;
    const auto differs = [](const timespec& a, const timespec& b) {
      return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
    };
    if (differs(now.st_atim, was.st_atim)) moved += 'a';
    if (differs(now.st_mtim, was.st_mtim)) moved += 'm';
    if (differs(now.st_ctim, was.st_ctim)) moved += 'c';
    return moved;
  }
  void Times(const Timed& row) {
    ASSERT_EQ(fs().Mkdir("d", 0777), 0);
    ASSERT_EQ(fs().Mkdir("e", 0777), 0);
    ASSERT_EQ(fs().Mkdir("d/sub", 0777), 0);
    MakeFile("d/f", std::string(8192, 'x'));
    MakeFile("e/victim");
    ASSERT_EQ(fs().Symlink("f", "d/s"), 0);
    ASSERT_EQ(fs().SetXattr("d/f", "trusted.a", "1"), 0);
    const timespec past[2] = {kPast, kPast};
    const char* const names[] = {"f", "s", "sub", "d", "e"};
    const auto path = [](const std::string& n) { return n == "d" || n == "e" ? n : "d/" + n; };
    for (const char* n : names) ASSERT_EQ(fs().Utimens(path(n), past, false), 0);
    Settle();
    Tick();
    std::vector<struct stat> was;
    for (const char* n : names) was.push_back(Of(path(n)));
    row.call(*this, fs());
    std::string moved;
    for (size_t i = 0; i < std::size(names); ++i) {
      // What went away is not asked; what moved is asked where it is.
      const std::string m = Moved(path(names[i]), was[i]);
      if (!m.empty()) moved += (moved.empty() ? "" : " ") + std::string(names[i]) + ":" + m;
    }
    EXPECT_EQ(moved, row.moves);
  }
};

int WithFile(Conformance&, Subject& s, const std::function<ssize_t(int)>& fn) {
  const int fd = s.Open("d/f", O_RDWR);
  if (fd < 0) return fd;
  const ssize_t result = fn(fd);
  s.Close(fd);
  return result < 0 ? static_cast<int>(result) : 0;
}

int WithF(Subject& s, int flags, const std::function<ssize_t(int)>& fn) {
  const int fd = s.Open("f", flags);
  if (fd < 0) return fd;
  const ssize_t result = fn(fd);
  s.Close(fd);
  return result < 0 ? static_cast<int>(result) : 0;
}

const bool kAttributeRulesRegistered = [] {
  const AttributeRules::Loss losses[] = {
      {"chown", [](Conformance&, Subject& s) { return s.Chown("f", kOwner.uid, kOwner.gid); }, true,
       false},
      {"chown_of_the_user",
       [](Conformance&, Subject& s) { return s.Chown("f", kOwner.uid, ~gid_t{0}); }, true, false},
      {"chown_of_the_group",
       [](Conformance&, Subject& s) { return s.Chown("f", ~uid_t{0}, kOwner.gid); }, true, false},
      {"write",
       [](Conformance&, Subject& s) {
         return WithF(s, O_RDWR, [&](int fd) { return s.Write(fd, "y", 3); });
       },
       false, true},
      {"append",
       [](Conformance&, Subject& s) {
         return WithF(s, O_WRONLY | O_APPEND, [&](int fd) { return s.Append(fd, "y"); });
       },
       false, true},
      {"truncate", [](Conformance&, Subject& s) { return s.Truncate("f", 10); }, false, true},
      {"truncate_to_more", [](Conformance&, Subject& s) { return s.Truncate("f", 10000); }, false,
       true},
      {"ftruncate",
       [](Conformance&, Subject& s) {
         return WithF(s, O_RDWR, [&](int fd) { return s.Ftruncate(fd, 10); });
       },
       false, true},
      {"open_to_truncate",
       [](Conformance&, Subject& s) {
         return WithF(s, O_WRONLY | O_TRUNC, [&](int) { return 0; });
       },
       false, true},
      {"fallocate",
       [](Conformance&, Subject& s) {
         return WithF(s, O_RDWR, [&](int fd) { return s.Fallocate(fd, 0, 0, 20000); });
       },
       false, true},
      {"punch",
       [](Conformance&, Subject& s) {
         return WithF(s, O_RDWR, [&](int fd) {
           return s.Fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100);
         });
       },
       false, true},
      {"copy",
       [](Conformance&, Subject& s) {
         return WithF(s, O_RDWR, [&](int fd) { return s.CopyRange(fd, 0, fd, 1000, 10); });
       },
       false, true},
  };
  for (const auto& row : losses) {
    for (const mode_t mode :
         {04777u, 02777u, 06777u, 04666u, 02666u, 02767u, 06767u, 01777u, 0777u}) {
      for (const std::string who : {"root", "owner", "member", "other"}) {
        if (!row.of_others && who != "root" && who != "owner") continue;
        char name[100];
        std::snprintf(name, sizeof(name), "%s_of_%04o_by_%s", row.name, mode, who.c_str());
        const User user = who == "root"     ? kRoot
                          : who == "owner"  ? kOwner
                          : who == "member" ? kMember
                                            : kOther;
        Register<AttributeRules>("SetIdBits", name,
                                 [=](AttributeRules& t) { t.SetIdBits(row, mode, user); });
      }
    }
  }
  using T = AttributeRules;
  const T::Timed timed[] = {
      {"create", [](T& t, Subject&) { t.MakeFile("d/new"); }, "d:mc"},
      {"mkdir", [](T&, Subject& s) { EXPECT_EQ(s.Mkdir("d/new", 0755), 0); }, "d:mc"},
      {"mknod", [](T&, Subject& s) { EXPECT_EQ(s.Mknod("d/new", S_IFIFO | 0644, 0), 0); }, "d:mc"},
      {"symlink", [](T&, Subject& s) { EXPECT_EQ(s.Symlink("t", "d/new"), 0); }, "d:mc"},
      {"link_here", [](T&, Subject& s) { EXPECT_EQ(s.Link("d/f", "d/new"), 0); }, "f:c d:mc"},
      {"link_there", [](T&, Subject& s) { EXPECT_EQ(s.Link("d/f", "e/new"), 0); }, "f:c e:mc"},
      {"unlink", [](T&, Subject& s) { EXPECT_EQ(s.Unlink("d/s"), 0); }, "d:mc"},
      {"unlink_of_one_of_two", [](T&, Subject& s) { EXPECT_EQ(s.Unlink("e/victim"), 0); }, "e:mc"},
      {"rmdir", [](T&, Subject& s) { EXPECT_EQ(s.Rmdir("d/sub"), 0); }, "d:mc"},
      {"rename_here", [](T&, Subject& s) { EXPECT_EQ(s.Rename("d/s", "d/new"), 0); }, "d:mc"},
      {"rename_there", [](T&, Subject& s) { EXPECT_EQ(s.Rename("d/s", "e/new"), 0); }, "d:mc e:mc"},
      {"rename_over", [](T&, Subject& s) { EXPECT_EQ(s.Rename("d/s", "e/victim"), 0); }, "d:mc e:mc"},
      {"rename_of_a_directory", [](T&, Subject& s) { EXPECT_EQ(s.Rename("d/sub", "e/new"), 0); }, "d:mc e:mc"},
      {"exchange_here", [](T&, Subject& s) { EXPECT_EQ(s.Rename("d/f", "d/s", 2), 0); }, "f:c s:c d:mc"},
      {"a_failed_rename", [](T&, Subject& s) { EXPECT_LT(s.Rename("d/none", "e/new"), 0); }, ""},
      {"a_failed_unlink", [](T&, Subject& s) { EXPECT_LT(s.Unlink("d/sub"), 0); }, ""},
      {"a_failed_mkdir", [](T&, Subject& s) { EXPECT_LT(s.Mkdir("d/f", 0755), 0); }, ""},
      {"chmod", [](T&, Subject& s) { EXPECT_EQ(s.Chmod("d/f", 0600), 0); }, "f:c"},
      {"chmod_to_the_same", [](T&, Subject& s) { EXPECT_EQ(s.Chmod("d/f", 0644), 0); }, "f:c"},
      {"chmod_of_a_directory", [](T&, Subject& s) { EXPECT_EQ(s.Chmod("d", 0700), 0); }, "d:c"},
      {"chown", [](T&, Subject& s) { EXPECT_EQ(s.Chown("d/f", 1, 1), 0); }, "f:c"},
      {"chown_of_nothing", [](T&, Subject& s) { EXPECT_EQ(s.Chown("d/f", ~0u, ~0u), 0); }, "f:c"},
      {"lchown", [](T&, Subject& s) { EXPECT_EQ(s.Chown("d/s", 1, 1, false), 0); }, "s:c"},
      {"truncate_to_less", [](T&, Subject& s) { EXPECT_EQ(s.Truncate("d/f", 100), 0); }, "f:mc"},
      {"truncate_to_more", [](T&, Subject& s) { EXPECT_EQ(s.Truncate("d/f", 100000), 0); }, "f:mc"},
      {"truncate_to_the_same", [](T&, Subject& s) { EXPECT_EQ(s.Truncate("d/f", 8192), 0); }, "f:mc"},
      {"truncate_to_nothing", [](T&, Subject& s) { EXPECT_EQ(s.Truncate("d/f", 0), 0); }, "f:mc"},
      {"ftruncate_to_the_same", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Ftruncate(fd, 8192); }), 0); }, "f:mc"},
      {"ftruncate_to_less", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Ftruncate(fd, 1); }), 0); }, "f:mc"},
      {"open_to_truncate", [](T&, Subject& s) { s.Close(s.Open("d/f", O_WRONLY | O_TRUNC)); }, "f:mc"},
      {"open_to_write", [](T&, Subject& s) { s.Close(s.Open("d/f", O_WRONLY)); }, ""},
      {"open_to_create_what_is_there", [](T&, Subject& s) { s.Close(s.Open("d/f", O_WRONLY | O_CREAT, 0600)); }, ""},
      {"write", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Write(fd, "y", 0); }), 0); }, "f:mc"},
      {"write_behind_the_end", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Write(fd, "y", 9000); }), 0); }, "f:mc"},
      {"write_of_nothing", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Write(fd, "", 0); }), 0); }, ""},
      {"fallocate", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Fallocate(fd, 0, 0, 100); }), 0); }, "f:mc"},
      {"fallocate_to_more", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Fallocate(fd, 0, 0, 10000); }), 0); }, "f:mc"},
      {"fallocate_keeping_the_size", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 10000); }), 0); }, "f:mc"},
      {"punch", [](T& t, Subject& s) { EXPECT_EQ(WithFile(t, s, [&](int fd) { return s.Fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096); }), 0); }, "f:mc"},
      {"utimens_now", [](T&, Subject& s) { EXPECT_EQ(s.Utimens("d/f", nullptr), 0); }, "f:amc"},
      {"utimens_of_a_symlink", [](T&, Subject& s) { EXPECT_EQ(s.Utimens("d/s", nullptr, false), 0); }, "s:amc"},
      {"setxattr", [](T&, Subject& s) { EXPECT_EQ(s.SetXattr("d/f", "trusted.b", "1"), 0); }, "f:c"},
      {"setxattr_to_the_same", [](T&, Subject& s) { EXPECT_EQ(s.SetXattr("d/f", "trusted.a", "1"), 0); }, "f:c"},
      {"setxattr_of_a_directory", [](T&, Subject& s) { EXPECT_EQ(s.SetXattr("d", "user.b", "1"), 0); }, "d:c"},
      {"removexattr", [](T&, Subject& s) { EXPECT_EQ(s.RemoveXattr("d/f", "trusted.a"), 0); }, "f:c"},
      {"a_failed_removexattr", [](T&, Subject& s) { EXPECT_LT(s.RemoveXattr("d/f", "trusted.none"), 0); }, ""},
      {"stat", [](T&, Subject& s) { struct stat st; EXPECT_EQ(s.Lstat("d/s", &st), 0); }, ""},
  };
  for (const auto& row : timed) {
    Register<AttributeRules>("Times", row.name, [=](AttributeRules& t) { t.Times(row); });
  }
  return true;
}();

// --- utimensat ---------------------------------------------------------------------

class UtimensRules : public Conformance {
 public:
  // 'e' explicit, 'n' now, 'o' omit
  void Set(char a, char m, bool nofollow) {
    MakeFile("f");
    ASSERT_EQ(fs().Symlink("f", "s"), 0);
    const timespec past[2] = {kPast, kPast};
    ASSERT_EQ(fs().Utimens("f", past), 0);
    ASSERT_EQ(fs().Utimens("s", past, false), 0);
    Settle();
    Tick();
    const auto spec = [](char c) {
      return c == 'e'   ? timespec{-77, 5}
             : c == 'n' ? timespec{0, UTIME_NOW}
                        : timespec{0, UTIME_OMIT};
    };
    const timespec times[2] = {spec(a), spec(m)};
    ASSERT_EQ(fs().Utimens("s", times, !nofollow), 0);
    const struct stat st = Of(nofollow ? "s" : "f");
    const auto check = [](char c, const timespec& t) {
      if (c == 'e') {
        EXPECT_EQ(t.tv_sec, -77);
        EXPECT_EQ(t.tv_nsec, 5);
      } else if (c == 'o') {
        EXPECT_EQ(t.tv_sec, kPast.tv_sec);
        EXPECT_EQ(t.tv_nsec, kPast.tv_nsec);
      } else {
        EXPECT_GT(t.tv_sec, 1700000000);
      }
    };
    check(a, st.st_atim);
    check(m, st.st_mtim);
    const struct stat untouched = Of(nofollow ? "f" : "s");
    EXPECT_EQ(untouched.st_mtim.tv_sec, kPast.tv_sec);
  }
};

const bool kUtimensRegistered = [] {
  for (const char a : {'e', 'n', 'o'}) {
    for (const char m : {'e', 'n', 'o'}) {
      for (const bool nofollow : {false, true}) {
        Register<UtimensRules>(
            "UtimensRules",
            std::string("atime_") + a + "_mtime_" + m + (nofollow ? "_of_the_symlink" : ""),
            [=](UtimensRules& t) { t.Set(a, m, nofollow); });
      }
    }
  }
  for (const time_t seconds : {time_t{0}, time_t{-1}, time_t{-1000000000}, time_t{2147483647},
                               time_t{2147483648}, time_t{4294967296}, time_t{253402300800}}) {
    for (const long nanos : {0L, 1L, 999999999L}) {
      Register<UtimensRules>(
          "UtimensRules", "keeps_" + std::to_string(seconds) + "_" + std::to_string(nanos),
          [=](UtimensRules& t) {
            t.MakeFile("f");
            const timespec times[2] = {{seconds, nanos}, {seconds, 999999999 - nanos}};
            ASSERT_EQ(t.fs().Utimens("f", times), 0);
            t.Settle();
            const struct stat st = t.Of("f");
            EXPECT_EQ(st.st_atim.tv_sec, seconds);
            EXPECT_EQ(st.st_atim.tv_nsec, nanos);
            EXPECT_EQ(st.st_mtim.tv_sec, seconds);
            EXPECT_EQ(st.st_mtim.tv_nsec, 999999999 - nanos);
          });
    }
  }
  return true;
}();

TEST_F(UtimensRules, NanosecondsAreLessThanABillion) {
  NEEDS_KERNEL();
  MakeFile("f");
  for (const long nanos : {1000000000L, -1L, 2000000000L}) {
    const timespec times[2] = {{0, nanos}, {0, 0}};
    EXPECT_EQ(fs().Utimens("f", times), -EINVAL);
  }
}

// --- The rest ----------------------------------------------------------------------

TEST_F(AttributeRules, NewThingsHaveTheTimeOfTheirMaking) {
  timespec before;
  clock_gettime(CLOCK_REALTIME, &before);
  Tick();
  for (const std::string& kind : kKinds) Make(kind, "x" + kind);
  Settle();
  for (const std::string& kind : kKinds) {
    const struct stat st = Of("x" + kind);
    EXPECT_GE(st.st_ctim.tv_sec, before.tv_sec) << kind;
    EXPECT_EQ(st.st_atim.tv_sec / 100, st.st_ctim.tv_sec / 100) << kind;
  }
}

TEST_F(AttributeRules, ChangeTimesNeverGoBack) {
  MakeFile("f");
  timespec last{0, 0};
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(fs().Chmod("f", i % 2 == 0 ? 0600 : 0644), 0);
    if (i == 100) Settle();
    const timespec now = Of("f").st_ctim;
    EXPECT_TRUE(now.tv_sec > last.tv_sec ||
                (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec));
    last = now;
  }
}

TEST_F(AttributeRules, EveryPermissionBitIsKept) {
  MakeFile("f");
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  for (mode_t mode = 0; mode <= 07777; mode += 0111) {
    ASSERT_EQ(fs().Chmod("f", mode), 0);
    ASSERT_EQ(fs().Chmod("d", mode), 0);
    EXPECT_EQ(ModeOf("f"), mode);
    EXPECT_EQ(ModeOf("d"), mode);
  }
  ASSERT_EQ(fs().Chmod("f", 05321), 0);
  Settle();
  EXPECT_EQ(ModeOf("f"), 05321u);
}

TEST_F(AttributeRules, ChmodFollowsSymlinks) {
  Make("symlink", "s");
  Settle();
  EXPECT_EQ(fs().Chmod("s", 0600), 0);
  EXPECT_EQ(ModeOf("s-target"), 0600u);
  EXPECT_EQ(ModeOf("s"), 0777u);
}

TEST_F(AttributeRules, LargeIdsAreKept) {
  MakeFile("f");
  ASSERT_EQ(fs().Chown("f", 4294967294u, 4294967293u), 0);
  Settle();
  EXPECT_EQ(Of("f").st_uid, 4294967294u);
  EXPECT_EQ(Of("f").st_gid, 4294967293u);
  EXPECT_EQ(fs().Chown("f", ~0u, 5), 0);
  EXPECT_EQ(Of("f").st_uid, 4294967294u);
  EXPECT_EQ(Of("f").st_gid, 5u);
}

TEST_F(AttributeRules, LchownIsOfTheSymlinkItself) {
  Make("symlink", "s");
  Settle();
  EXPECT_EQ(fs().Chown("s", 5, 6, false), 0);
  EXPECT_EQ(Of("s").st_uid, 5u);
  EXPECT_EQ(Of("s-target").st_uid, 0u);
  EXPECT_EQ(fs().Chown("s", 7, 8), 0);
  EXPECT_EQ(Of("s").st_uid, 5u);
  EXPECT_EQ(Of("s-target").st_uid, 7u);
}

TEST_F(AttributeRules, ChownLeavesTheSetIdBitsOfDirectories) {
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  ASSERT_EQ(fs().Chmod("d", 06755), 0);
  Settle();
  EXPECT_EQ(fs().Chown("d", 5, 6), 0);
  EXPECT_EQ(ModeOf("d"), 06755u);
}

TEST_F(AttributeRules, ChmodByWhoIsNotInTheGroupClearsSetgid) {
  NEEDS_KERNEL();
  MakeFile("f");
  ASSERT_EQ(fs().Chown("f", kOther.uid, 4242), 0);
  Settle();
  Become(kOther);
  EXPECT_EQ(fs().Chmod("f", 02755), 0);
  Become(kRoot);
  EXPECT_EQ(ModeOf("f"), 0755u);
}

TEST_F(AttributeRules, SetgidDirectoriesHandDownGroupAndBit) {
  ASSERT_EQ(fs().Mkdir("d", 0777), 0);
  ASSERT_EQ(fs().Chown("d", ~0u, 77), 0);
  ASSERT_EQ(fs().Chmod("d", 02777), 0);
  Settle();
  ASSERT_EQ(fs().Mkdir("d/sub", 0755), 0);
  MakeFile("d/sub/f");
  ASSERT_EQ(fs().Symlink("t", "d/s"), 0);
  EXPECT_EQ(ModeOf("d/sub"), 02755u);
  EXPECT_EQ(Of("d/sub").st_gid, 77u);
  EXPECT_EQ(Of("d/sub/f").st_gid, 77u);
  EXPECT_EQ(Of("d/s").st_gid, 77u);
}

TEST_F(AttributeRules, CapabilitiesGoWhenContentsOrOwnersChange) {
  // cap_net_raw+ep, version 2
  const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  const std::pair<const char*, std::function<int(Subject&)>> calls[] = {
      {"write",
       [](Subject& s) { return WithF(s, O_RDWR, [&](int fd) { return s.Write(fd, "y", 0); }); }},
      {"truncate", [](Subject& s) { return s.Truncate("f", 1); }},
      {"chown", [](Subject& s) { return s.Chown("f", 3, 3); }},
      {"fallocate",
       [](Subject& s) {
         return WithF(s, O_RDWR, [&](int fd) { return s.Fallocate(fd, 0, 0, 9000); });
       }},
  };
  MakeFile("f", "x", 0755);
  std::string kept;
  for (const auto& [name, call] : calls) {
    ASSERT_EQ(fs().SetXattr("f", "security.capability", capability), 0);
    Settle();
    std::string value;
    ASSERT_EQ(fs().GetXattr("f", "security.capability", &value), 0) << name;
    EXPECT_EQ(value, capability);
    ASSERT_EQ(call(fs()), 0) << name;
    EXPECT_EQ(fs().GetXattr("f", "security.capability", &value), -ENODATA) << name;
  }
  // Bytes that were written before the bits were set do not take them away when the kernel sends
  // them later.
  const int fd = Open("f", O_RDWR);
  ASSERT_EQ(fs().Write(fd, "z", 0), 1);
  ASSERT_EQ(fs().SetXattr("f", "security.capability", capability), 0);
  ASSERT_EQ(fs().Close(fd), 0);
  Settle();
  ASSERT_EQ(fs().GetXattr("f", "security.capability", &kept), 0);
  ASSERT_EQ(fs().SetXattr("f", "security.capability", capability), 0);
  ASSERT_EQ(fs().Chmod("f", 0700), 0);
  std::string value;
  EXPECT_EQ(fs().GetXattr("f", "security.capability", &value), 0);
}

TEST_F(AttributeRules, StatfsCountsPagesAndInodes) {
  struct statvfs before, after;
  MakeFile("first");  // a page of names, perhaps
  Settle();
  ASSERT_EQ(fs().StatFs(&before), 0);
  EXPECT_EQ(before.f_bsize, 4096u);
  EXPECT_EQ(before.f_frsize, 4096u);
  EXPECT_EQ(before.f_namemax, 255u);
  EXPECT_EQ(before.f_bfree, before.f_bavail);
  MakeFile("f", std::string(1 << 20, 'x'));
  ASSERT_EQ(fs().StatFs(&after), 0);
  EXPECT_EQ(after.f_blocks, before.f_blocks);
  EXPECT_GE(before.f_bfree - after.f_bfree, 256u);
  EXPECT_LE(before.f_bfree - after.f_bfree, 256u + 4);
  EXPECT_EQ((after.f_files - after.f_ffree) - (before.f_files - before.f_ffree), 1u);
  ASSERT_EQ(fs().Unlink("f"), 0);
  if (fs().is_core()) return;
  // The kernel may keep the inode for a moment.
  EXPECT_TRUE(Eventually([&] {
    EXPECT_EQ(fs().StatFs(&after), 0);
    return after.f_bfree + 4 >= before.f_bfree;
  }));
}

}  // namespace
}  // namespace pkramfs
