// Contents: reading, writing, truncating, allocating, punching, seeking, copying.
#include <linux/falloc.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <random>

#include "tests/conformance/conformance.h"

namespace pkramfs {
namespace {

constexpr off_t kPage = 4096;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr off_t kMaxOffset = 0x7fffffffffffffff;

class ContentRules : public Conformance {
 public:
  int64_t BlocksOf(const std::string& path) { return Of(path).st_blocks; }
  static std::string Pattern(size_t size) {
    std::string s(size, 0);
    for (size_t i = 0; i < size; ++i) s[i] = static_cast<char>('a' + (i * 7 + i / 4096) % 26);
    return s;
  }

  // A file is what a string is to which the same was done.
  struct Step {
    char what;  // w(rite) t(runcate) p(unch) a(llocate) k(eep size) z(ero, if there is)
    off_t offset;
    off_t length;
  };
  void Do(const std::vector<Step>& steps) {
    int fd = MakeOpen("f");
    std::string model;
    const auto at_least = [&](off_t size) {
      if (static_cast<off_t>(model.size()) < size) model.resize(static_cast<size_t>(size));
    };
    char fill = 'A';
    for (size_t i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      const auto offset = static_cast<size_t>(s.offset), length = static_cast<size_t>(s.length);
      switch (s.what) {
        case 'w':
          ASSERT_EQ(fs().Write(fd, std::string(length, fill), s.offset), s.length);
          at_least(s.offset + s.length);
          model.replace(offset, length, length, fill++);
          break;
        case 't':
          ASSERT_EQ(fs().Ftruncate(fd, s.offset), 0);
          model.resize(offset);
          break;
        case 'p':
          ASSERT_EQ(fs().Fallocate(fd, kPunch, s.offset, s.length), 0);
          for (size_t b = offset; b < std::min(model.size(), offset + length); ++b) model[b] = 0;
          break;
        case 'a':
          ASSERT_EQ(fs().Fallocate(fd, 0, s.offset, s.length), 0);
          at_least(s.offset + s.length);
          break;
        case 'k':
          ASSERT_EQ(fs().Fallocate(fd, FALLOC_FL_KEEP_SIZE, s.offset, s.length), 0);
          break;
      }
      if (i == steps.size() / 2 && TheRun().remount) {
        Settle();
        fd = Open("f");
      }
      ASSERT_EQ(Of("f").st_size, static_cast<off_t>(model.size())) << "after step " << i;
      ASSERT_TRUE(Text("f") == model) << "after step " << i;
    }
    fs().Close(fd);
  }

  // --- Sparse files ---
  struct Sparse {
    const char* name;
    std::function<void(Subject&, int)> make;
    int64_t pages;
    // Data and holes, as offsets in bytes: "data hole data hole ..."
    std::vector<std::pair<off_t, off_t>> extents;
  };
  void CheckSparse(const Sparse& row) {
    int fd = MakeOpen("f");
    row.make(fs(), fd);
    if (TheRun().remount) {
      Settle();
      fd = Open("f");
    }
    EXPECT_EQ(BlocksOf("f"), row.pages * 8);
    std::vector<std::pair<off_t, off_t>> found;
    for (off_t at = 0; (at = fs().Seek(fd, at, SEEK_DATA)) >= 0;) {
      const off_t hole = fs().Seek(fd, at, SEEK_HOLE);
      ASSERT_GT(hole, at);
      found.emplace_back(at, hole);
      at = hole;
    }
    EXPECT_EQ(found, row.extents);
    fs().Close(fd);
  }

  // --- Opening ---
  void OpenKind(const std::string& kind, int flags, int error) {
    NEEDS_KERNEL();
    Make(kind, "x");
    Settle();
    const struct stat was = Of("x");
    const int fd = fs().Open("x", flags | O_NONBLOCK, 0644);
    if (error == 0) {
      EXPECT_GE(fd, 0) << std::strerror(-fd);
    } else {
      EXPECT_EQ(fd, -error);
      EXPECT_EQ(Of("x").st_size, was.st_size);
    }
  }
};

int OpenError(const std::string& kind, int flags) {
  const bool symlink = kind == "symlink" || kind == "dangling";
  const bool directory = kind == "dir" || kind == "full";
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if ((flags & O_PATH) != 0) {
    if (kind == "dangling" && (flags & O_NOFOLLOW) == 0) return ENOENT;
    if ((flags & O_DIRECTORY) != 0 && !directory) return ENOTDIR;
    return 0;
  }
  if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) return EEXIST;
  if (symlink && (flags & O_NOFOLLOW) != 0) return (flags & O_DIRECTORY) != 0 ? ENOTDIR : ELOOP;
  if (kind == "dangling") return (flags & O_CREAT) != 0 ? 0 : ENOENT;
  if ((flags & O_DIRECTORY) != 0 && !directory) return ENOTDIR;
  if (directory) return writes || (flags & O_CREAT) != 0 ? EISDIR : 0;
  if (kind == "socket") return ENXIO;
  if (kind == "fifo" && (flags & O_ACCMODE) == O_WRONLY) return ENXIO;
  return 0;
}

const bool kContentRulesRegistered = [] {
  const std::pair<const char*, int> opens[] = {
      {"read", O_RDONLY},
      {"write", O_WRONLY},
      {"read_and_write", O_RDWR},
      {"create", O_CREAT | O_RDONLY},
      {"create_and_write", O_CREAT | O_WRONLY},
      {"exclusive", O_CREAT | O_EXCL | O_RDWR},
      {"truncate", O_TRUNC | O_WRONLY},
      {"append", O_APPEND | O_WRONLY},
      {"directory", O_DIRECTORY | O_RDONLY},
      {"directory_for_writing", O_DIRECTORY | O_RDWR},
      {"nofollow", O_NOFOLLOW | O_RDONLY},
      {"nofollow_directory", O_NOFOLLOW | O_DIRECTORY | O_RDONLY},
      {"sync", O_SYNC | O_RDWR},
      {"path", O_PATH},
      {"path_of_the_link", O_PATH | O_NOFOLLOW},
      {"path_of_a_directory", O_PATH | O_DIRECTORY},
  };
  for (const auto& [name, flags] : opens) {
    for (const std::string& kind : kKinds) {
      if (kind == "char") continue;  // of a driver's making
      Register<ContentRules>(
          "Open", std::string(name) + "_of_a_" + kind,
          [kind, f = flags](ContentRules& t) { t.OpenKind(kind, f, OpenError(kind, f)); });
    }
  }
  // Where contents change their place: inline, the first pages, the first links.
  const off_t edges[] = {0, 1, 3919, 3920, 3921, kPage - 1, kPage, kPage + 1, 3 * kPage, 20000};
  for (const off_t a : edges) {
    for (const off_t b : edges) {
      const auto name = [&](const char* what) {
        return std::string(what) + "_" + std::to_string(a) + "_" + std::to_string(b);
      };
      Register<ContentRules>("Contents", name("write_then_write_at"), [=](ContentRules& t) {
        t.Do({{'w', 0, a + 1}, {'w', b, 10}, {'w', 5, 3}});
      });
      Register<ContentRules>("Contents", name("truncate_and_back"), [=](ContentRules& t) {
        t.Do({{'w', 0, a + 5}, {'t', b, 0}, {'t', 30000, 0}, {'w', 10, 10}});
      });
      Register<ContentRules>("Contents", name("punch"), [=](ContentRules& t) {
        t.Do({{'w', 0, 20000},
              {'p', std::min(a, b), std::max<off_t>(1, std::abs(a - b))},
              {'w', 100, 1},
              {'t', 25000, 0}});
      });
      Register<ContentRules>("Contents", name("allocate"), [=](ContentRules& t) {
        t.Do(
            {{'w', 0, 7}, {'k', a, b + 1}, {'a', b, a + 1}, {'w', b, 3}, {'t', 0, 0}, {'w', a, 2}});
      });
    }
  }
  const ContentRules::Sparse sparse[] = {
      {"an_empty_file", [](Subject&, int) {}, 0, {}},
      {"one_byte", [](Subject& s, int fd) { s.Write(fd, "x", 0); }, 1, {{0, 1}}},
      {"a_page",
       [](Subject& s, int fd) { s.Write(fd, std::string(4096, 'x'), 0); },
       1,
       {{0, kPage}}},
      {"a_page_and_a_byte",
       [](Subject& s, int fd) { s.Write(fd, std::string(4097, 'x'), 0); },
       2,
       {{0, kPage + 1}}},
      {"a_hole_only", [](Subject& s, int fd) { s.Ftruncate(fd, 100); }, 0, {}},
      {"a_large_hole_only", [](Subject& s, int fd) { s.Ftruncate(fd, 1 << 30); }, 0, {}},
      {"a_byte_behind_a_hole",
       [](Subject& s, int fd) { s.Write(fd, "x", 100000); },
       1,
       {{98304, 100001}}},
      {"a_hole_behind_a_byte",
       [](Subject& s, int fd) {
         s.Write(fd, "x", 0);
         s.Ftruncate(fd, 100000);
       },
       1,
       {{0, kPage}}},
      {"a_byte_far_out",
       [](Subject& s, int fd) { s.Write(fd, "x", off_t{1} << 40); },
       1,
       {{off_t{1} << 40, (off_t{1} << 40) + 1}}},
      {"a_punched_page",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(5 * 4096, 'x'), 0);
         s.Fallocate(fd, kPunch, kPage, kPage);
       },
       4,
       {{0, kPage}, {2 * kPage, 5 * kPage}}},
      {"a_punched_file",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(5 * 4096, 'x'), 0);
         s.Fallocate(fd, kPunch, 0, 5 * kPage);
       },
       0,
       {}},
      {"a_punched_small_file",
       [](Subject& s, int fd) {
         s.Write(fd, "abc", 0);
         s.Fallocate(fd, kPunch, 0, kPage);
       },
       0,
       {}},
      {"punched_within_a_page",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(2 * 4096, 'x'), 0);
         s.Fallocate(fd, kPunch, 10, 4096);
       },
       2,
       {{0, 2 * kPage}}},
      {"punched_behind_the_end",
       [](Subject& s, int fd) {
         s.Write(fd, "abc", 0);
         s.Fallocate(fd, kPunch, 100000, 100000);
       },
       1,
       {{0, 3}}},
      {"punched_across_links",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(1100 * 4096, 'x'), 0);
         s.Fallocate(fd, kPunch, 500 * kPage, 540 * kPage);
       },
       560,
       {{0, 500 * kPage}, {1040 * kPage, 1100 * kPage}}},
      {"a_punched_whole_link",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(1100 * 4096, 'x'), 0);
         s.Fallocate(fd, kPunch, 510 * kPage, 510 * kPage);
       },
       590,
       {{0, 510 * kPage}, {1020 * kPage, 1100 * kPage}}},
      {"written_again_after_punching",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(1100 * 4096, 'x'), 0);
         s.Fallocate(fd, kPunch, 0, 1100 * kPage);
         s.Write(fd, "y", 700 * kPage);
       },
       1,
       {
           {700 * kPage, 701 * kPage},
       }},
      {"cut_and_grown",
       [](Subject& s, int fd) {
         s.Write(fd, std::string(5 * 4096, 'x'), 0);
         s.Ftruncate(fd, 4096 + 1);
         s.Ftruncate(fd, 5 * kPage);
       },
       2,
       {{0, 2 * kPage}}},
  };
  for (const auto& row : sparse) {
    Register<ContentRules>("Sparse", row.name, [row](ContentRules& t) { t.CheckSparse(row); });
  }
  return true;
}();

TEST_F(ContentRules, RandomStepsMatchAString) {
  std::mt19937 random(7);
  for (int round = 0; round < 5; ++round) {
    std::vector<Step> steps;
    for (int i = 0; i < 40; ++i) {
      const char what = "wwwtpak"[random() % 7];
      const off_t offset = random() % 3 == 0 ? random() % 300000 : random() % 12000;
      steps.push_back({what, offset, 1 + static_cast<off_t>(random() % 30000)});
    }
    Do(steps);
    ASSERT_EQ(fs().Unlink("f"), 0);
  }
}

// --- fallocate -----------------------------------------------------------------------

TEST_F(ContentRules, AllocatedPagesAreCounted) {
  const int fd = MakeOpen("f");
  EXPECT_EQ(fs().Fallocate(fd, 0, 0, 10 * kPage), 0);
  EXPECT_EQ(Of("f").st_size, 10 * kPage);
  EXPECT_EQ(BlocksOf("f"), 80);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_KEEP_SIZE, 20 * kPage, kPage + 1), 0);
  EXPECT_EQ(Of("f").st_size, 10 * kPage);
  EXPECT_EQ(BlocksOf("f"), 96);
  Settle();
  EXPECT_EQ(BlocksOf("f"), 96);
  EXPECT_EQ(Text("f"), std::string(10 * kPage, '\0'));
  // Cutting the file frees pages that were allocated behind its end.
  EXPECT_EQ(fs().Truncate("f", 10 * kPage), 0);
  EXPECT_EQ(BlocksOf("f"), 80);
}

TEST_F(ContentRules, AllocationLeavesContents) {
  int fd = MakeOpen("f");
  const std::string text = Pattern(700 * kPage + 77);
  ASSERT_EQ(fs().Write(fd, text, 0), static_cast<ssize_t>(text.size()));
  ASSERT_EQ(fs().Fallocate(fd, kPunch, 100 * kPage, 500 * kPage), 0);
  ASSERT_EQ(fs().Fallocate(fd, 0, 50 * kPage, 900 * kPage), 0);
  Settle();
  std::string expected = text;
  expected.replace(100 * kPage, 500 * kPage, 500 * kPage, '\0');
  expected.resize(950 * kPage);
  fd = Open("f");
  std::string bytes;
  EXPECT_EQ(fs().Read(fd, &bytes, 1000 * kPage, 0), 950 * kPage);
  EXPECT_TRUE(bytes == expected);
  EXPECT_EQ(BlocksOf("f"), 950 * 8);
}

TEST_F(ContentRules, WhatFallocateRefuses) {
  MakeFile("f", "x");
  Settle();
  const int fd = Open("f"), reader = Open("f", O_RDONLY);
  EXPECT_EQ(fs().Fallocate(fd, 0, 0, 0), -EINVAL);
  EXPECT_EQ(fs().Fallocate(fd, 0, -1, 10), -EINVAL);
  EXPECT_EQ(fs().Fallocate(fd, 0, 0, -1), -EINVAL);
  EXPECT_EQ(fs().Fallocate(fd, 0, kMaxOffset, 10), -EFBIG);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), -EOPNOTSUPP);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, kPage), -EOPNOTSUPP);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, kPage), -EOPNOTSUPP);
  EXPECT_EQ(fs().Fallocate(reader, 0, 0, 10), -EBADF);
  EXPECT_EQ(fs().Fallocate(fd, 0, 0, off_t{1} << 45), -ENOSPC);
  EXPECT_EQ(Of("f").st_size, 1);
  EXPECT_EQ(BlocksOf("f"), 8);
  EXPECT_EQ(Text("f"), "x");
}

TEST_F(ContentRules, FallocateIsForRegularFiles) {
  NEEDS_KERNEL();
  ASSERT_EQ(fs().Mknod("fifo", S_IFIFO | 0644, 0), 0);
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  EXPECT_EQ(fs().Fallocate(Open("fifo", O_RDWR), 0, 0, 10), -ESPIPE);
  EXPECT_EQ(fs().Fallocate(Open("d", O_RDONLY), 0, 0, 10), -EBADF);
}

// tmpfs has no ZERO_RANGE; here it does what fallocate(2) says.
TEST_F(ContentRules, ZeroRangeZeroesAndAllocates) {
  if (fs().is_tmpfs()) GTEST_SKIP() << "tmpfs has none";
  const int fd = MakeOpen("f");
  const std::string text = Pattern(6 * kPage);
  ASSERT_EQ(fs().Write(fd, text, 0), 6 * kPage);
  ASSERT_EQ(fs().Fallocate(fd, kPunch, 2 * kPage, kPage), 0);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_ZERO_RANGE, kPage + 10, 2 * kPage), 0);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 5 * kPage, 3 * kPage),
            0);
  EXPECT_EQ(Of("f").st_size, 6 * kPage);
  EXPECT_EQ(BlocksOf("f"), 8 * 8);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_ZERO_RANGE, 6 * kPage - 1, 10), 0);
  EXPECT_EQ(Of("f").st_size, 6 * kPage + 9);
  Settle();
  std::string expected = text;
  expected.replace(kPage + 10, 2 * kPage, 2 * kPage, '\0');
  expected.replace(5 * kPage, kPage, kPage, '\0');
  expected.resize(6 * kPage + 9);
  EXPECT_TRUE(Text("f") == expected);
}

TEST_F(ContentRules, ZeroRangeOfASmallFile) {
  if (fs().is_tmpfs()) GTEST_SKIP() << "tmpfs has none";
  const int fd = MakeOpen("f");
  ASSERT_EQ(fs().Write(fd, "0123456789", 0), 10);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_ZERO_RANGE, 3, 4), 0);
  EXPECT_EQ(Text("f"), std::string("012\0\0\0\0"
                                   "789",
                                   10));
  EXPECT_EQ(BlocksOf("f"), 8);
  EXPECT_EQ(fs().Fallocate(fd, FALLOC_FL_ZERO_RANGE, 8, 5000), 0);
  Settle();
  EXPECT_EQ(Of("f").st_size, 5008);
  EXPECT_EQ(Text("f").substr(0, 10), std::string("012\0\0\0\0"
                                                 "7\0\0",
                                                 10));
}

TEST_F(ContentRules, AllocatingBehindASmallFile) {
  const int fd = MakeOpen("f");
  ASSERT_EQ(fs().Write(fd, "0123456789", 0), 10);
  EXPECT_EQ(fs().Fallocate(fd, 0, 4177920, 100), 0);
  EXPECT_EQ(BlocksOf("f"), 16);
  Settle();
  EXPECT_EQ(BlocksOf("f"), 16);
  EXPECT_EQ(Of("f").st_size, 4178020);
}

TEST_F(ContentRules, WhatDoesNotFitIsNotAllocatedAtAll) {
  struct statvfs st;
  ASSERT_EQ(fs().StatFs(&st), 0);
  const int fd = MakeOpen("f");
  ASSERT_EQ(fs().Write(fd, "x", 0), 1);
  const auto free = static_cast<off_t>(st.f_bfree) * kPage;
  EXPECT_EQ(fs().Fallocate(fd, 0, 0, free + (16 << 20)), -ENOSPC);
  EXPECT_EQ(Of("f").st_size, 1);
  EXPECT_EQ(BlocksOf("f"), 8);
}

// --- lseek ---------------------------------------------------------------------------

TEST_F(ContentRules, SeekEndsAtTheEnd) {
  MakeFile("f", Pattern(10000));
  MakeFile("empty");
  Settle();
  const int fd = Open("f");
  EXPECT_EQ(fs().Seek(fd, 0, SEEK_DATA), 0);
  EXPECT_EQ(fs().Seek(fd, 9999, SEEK_DATA), 9999);
  EXPECT_EQ(fs().Seek(fd, 10000, SEEK_DATA), -ENXIO);
  EXPECT_EQ(fs().Seek(fd, 0, SEEK_HOLE), 10000);
  EXPECT_EQ(fs().Seek(fd, 9999, SEEK_HOLE), 10000);
  EXPECT_EQ(fs().Seek(fd, 10000, SEEK_HOLE), -ENXIO);
  EXPECT_EQ(fs().Seek(fd, -1, SEEK_DATA), -ENXIO);
  EXPECT_EQ(fs().Seek(fd, -1, SEEK_HOLE), -ENXIO);
  EXPECT_EQ(fs().Seek(fd, kMaxOffset, SEEK_DATA), -ENXIO);
  const int empty = Open("empty");
  EXPECT_EQ(fs().Seek(empty, 0, SEEK_DATA), -ENXIO);
  EXPECT_EQ(fs().Seek(empty, 0, SEEK_HOLE), -ENXIO);
}

TEST_F(ContentRules, SeekAsEver) {
  NEEDS_KERNEL();
  MakeFile("f", "0123456789");
  Settle();
  const int fd = Open("f");
  EXPECT_EQ(fs().Seek(fd, 3, SEEK_SET), 3);
  EXPECT_EQ(fs().Seek(fd, 3, SEEK_CUR), 6);
  EXPECT_EQ(fs().Seek(fd, -1, SEEK_END), 9);
  EXPECT_EQ(fs().Seek(fd, 100, SEEK_END), 110);
  EXPECT_EQ(fs().Seek(fd, kMaxOffset, SEEK_SET), kMaxOffset);
  EXPECT_EQ(fs().Seek(fd, -1, SEEK_SET), -EINVAL);
  EXPECT_EQ(fs().Seek(fd, -11, SEEK_END), -EINVAL);
  EXPECT_EQ(fs().Seek(fd, 0, 77), -EINVAL);
  EXPECT_EQ(fs().Seek(fd, 1, SEEK_CUR), -EINVAL);  // beyond the largest offset
}

// --- copy_file_range -------------------------------------------------------------------

TEST_F(ContentRules, CopyRangeCopies) {
  const std::string text = Pattern(3 << 20);
  MakeFile("a", text);
  MakeFile("b", "0123456789");
  Settle();
  const int a = Open("a"), b = Open("b");
  EXPECT_EQ(fs().CopyRange(a, 10, b, 5, 100), 100);
  EXPECT_EQ(Text("b"), "01234" + text.substr(10, 100));
  EXPECT_EQ(fs().CopyRange(a, (3 << 20) - 5, b, 0, 100), 5);
  EXPECT_EQ(fs().CopyRange(a, 3 << 20, b, 0, 100), 0);
  EXPECT_EQ(fs().CopyRange(a, 0, b, 0, 0), 0);
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = fs().CopyRange(a, static_cast<off_t>(done), b, static_cast<off_t>(done),
                                     text.size() - done);
    ASSERT_GT(n, 0);
    done += static_cast<size_t>(n);
  }
  EXPECT_EQ(Of("b").st_size, 3 << 20);
  std::string bytes;
  EXPECT_EQ(fs().Read(b, &bytes, 4 << 20, 0), 3 << 20);
  EXPECT_TRUE(bytes == text);
}

TEST_F(ContentRules, CopyRangeWithinAFile) {
  MakeFile("f", Pattern(20000));
  Settle();
  const int fd = Open("f");
  EXPECT_EQ(fs().CopyRange(fd, 0, fd, 10000, 10000), 10000);
  EXPECT_EQ(Text("f"), Pattern(10000) + Pattern(10000));
  EXPECT_EQ(fs().CopyRange(fd, 0, fd, 5000, 10000), -EINVAL);
  EXPECT_EQ(fs().CopyRange(fd, 0, fd, 20000, 10), 10);
  // What the copy adds to the file is not copied.
  EXPECT_EQ(fs().CopyRange(fd, 20000, fd, 30000, 10000), 10);
  EXPECT_EQ(Of("f").st_size, 30010);
}

// Whole pages, and changes of a file that shares them with another.
TEST_F(ContentRules, ACopyAndItsSourceGoTheirOwnWays) {
  const std::string text = Pattern(40000);
  MakeFile("a", text);
  MakeFile("b", "");
  MakeFile("c", std::string(50000, 'c'));
  Settle();
  const int a = Open("a"), b = Open("b"), c = Open("c");
  EXPECT_EQ(fs().CopyRange(a, 0, b, 0, 50000), 40000);
  EXPECT_EQ(fs().CopyRange(a, 0, c, 0, 50000), 40000);
  EXPECT_EQ(Of("b").st_size, 40000);
  EXPECT_GE(Of("b").st_blocks, 40000 / 512);
  EXPECT_EQ(fs().Write(a, "A", 10), 1);
  EXPECT_EQ(fs().Write(b, "B", 20000), 1);
  EXPECT_EQ(fs().Ftruncate(c, 39000), 0);
  Settle();
  std::string expected = text;
  expected[10] = 'A';
  EXPECT_TRUE(Text("a") == expected);
  expected = text;
  expected[20000] = 'B';
  EXPECT_TRUE(Text("b") == expected);
  EXPECT_TRUE(Text("c") == text.substr(0, 39000));
}

TEST_F(ContentRules, WhatCopyRangeRefuses) {
  MakeFile("f", "x");
  MakeFile("g", "y");
  Settle();
  const int reader = Open("f", O_RDONLY), writer = Open("g", O_WRONLY),
            appender = Open("g", O_WRONLY | O_APPEND);
  EXPECT_EQ(fs().CopyRange(reader, 0, reader, 10, 1), -EBADF);
  EXPECT_EQ(fs().CopyRange(writer, 0, writer, 10, 1), -EBADF);
  EXPECT_EQ(fs().CopyRange(reader, 0, appender, 0, 1), -EBADF);
}

// --- Reading and writing ---------------------------------------------------------------

TEST_F(ContentRules, AccessModesAreKept) {
  MakeFile("f", "x");
  Settle();
  std::string bytes;
  EXPECT_EQ(fs().Read(Open("f", O_WRONLY), &bytes, 1, 0), -EBADF);
  EXPECT_EQ(fs().Write(Open("f", O_RDONLY), "y", 0), -EBADF);
  EXPECT_EQ(fs().Ftruncate(Open("f", O_RDONLY), 0), -EINVAL);
  EXPECT_EQ(fs().Ftruncate(Open("f"), -1), -EINVAL);
  EXPECT_EQ(fs().Truncate("f", -1), -EINVAL);
  EXPECT_EQ(fs().Write(Open("f"), "y", -1), -EINVAL);
  EXPECT_EQ(fs().Read(Open("f"), &bytes, 1, -1), -EINVAL);
}

TEST_F(ContentRules, TruncateOfOtherKinds) {
  for (const std::string& kind : kKinds) Make(kind, kind + "-x");
  Settle();
  EXPECT_EQ(fs().Truncate("dir-x", 0), -EISDIR);
  EXPECT_EQ(fs().Truncate("fifo-x", 0), -EINVAL);
  EXPECT_EQ(fs().Truncate("socket-x", 0), -EINVAL);
  EXPECT_EQ(fs().Truncate("char-x", 0), -EINVAL);
  EXPECT_EQ(fs().Truncate("dangling-x", 0), -ENOENT);
  EXPECT_EQ(fs().Truncate("symlink-x", 3), 0);
  EXPECT_EQ(Text("symlink-x"), "con");
}

TEST_F(ContentRules, FilesUpToTheLargestOffset) {
  int fd = MakeOpen("f");
  EXPECT_EQ(fs().Ftruncate(fd, kMaxOffset), 0);
  EXPECT_EQ(fs().Write(fd, "end", kMaxOffset - 3), 3);
  Settle();
  fd = Open("f");
  EXPECT_EQ(Of("f").st_size, kMaxOffset);
  std::string bytes;
  EXPECT_EQ(fs().Read(fd, &bytes, 3, kMaxOffset - 3), 3);
  EXPECT_EQ(bytes, "end");
  EXPECT_EQ(BlocksOf("f"), 8);
  EXPECT_EQ(fs().Ftruncate(fd, 0), 0);
}

TEST_F(ContentRules, AWriteBeyondTheLargestOffsetIsRefused) {
  NEEDS_KERNEL();
  const int fd = MakeOpen("f");
  EXPECT_EQ(fs().Write(fd, "x", kMaxOffset), -EINVAL);
  EXPECT_EQ(fs().Write(fd, "xyz", kMaxOffset - 1), -EINVAL);
  EXPECT_EQ(fs().Write(fd, "x", kMaxOffset - 1), 1);
}

TEST_F(ContentRules, AppendsGoToTheEnd) {
  MakeFile("f", "start");
  Settle();
  const int a = Open("f", O_WRONLY | O_APPEND), b = Open("f", O_RDWR | O_APPEND);
  EXPECT_EQ(fs().Append(a, "-a"), 2);
  EXPECT_EQ(fs().Append(b, "-b"), 2);
  EXPECT_EQ(fs().Append(a, "-c"), 2);
  EXPECT_EQ(fs().Ftruncate(b, 5), 0);
  EXPECT_EQ(fs().Append(a, "!"), 1);
  EXPECT_EQ(Text("f"), "start!");
}

TEST_F(ContentRules, ExclusiveCreationIsOfOne) {
  Settle();
  EXPECT_GE(fs().Open("f", O_CREAT | O_EXCL | O_WRONLY, 0644), 0);
  EXPECT_EQ(fs().Open("f", O_CREAT | O_EXCL | O_WRONLY, 0644), -EEXIST);
  EXPECT_GE(fs().Open("f", O_CREAT | O_WRONLY, 0600), 0);
  EXPECT_EQ(ModeOf("f"), 0644u);
}

TEST_F(ContentRules, AFileOpenedToWriteOnlyMayHaveAnyMode) {
  Settle();
  const int fd = fs().Open("f", O_CREAT | O_EXCL | O_RDWR, 0);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(fs().Write(fd, "x", 0), 1);
  EXPECT_EQ(ModeOf("f"), 0u);
}

TEST_F(ContentRules, ADescriptorKeepsItsRights) {
  NEEDS_KERNEL();
  MakeFile("f", "x", 0666);
  Become(kOther);
  const int fd = Open("f");
  Become(kRoot);
  ASSERT_EQ(fs().Chmod("f", 0), 0);
  Become(kOther);
  EXPECT_EQ(fs().Write(fd, "y", 0), 1);
  EXPECT_EQ(fs().Ftruncate(fd, 0), 0);
  EXPECT_EQ(fs().Open("f", O_RDONLY), -EACCES);
}

// --- What kernels make of contents --------------------------------------------------------

TEST_F(ContentRules, SharedMappingsAreTheFile) {
  NEEDS_KERNEL();
  MakeFile("f", Pattern(3 * kPage));
  Settle();
  int fd = Open("f");
  auto* const map =
      static_cast<char*>(mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(std::string(map, 3 * kPage), Pattern(3 * kPage));
  std::memcpy(map + kPage, "mapped", 6);
  std::string bytes;
  EXPECT_EQ(fs().Read(fd, &bytes, 6, kPage), 6);
  EXPECT_EQ(bytes, "mapped");
  EXPECT_EQ(fs().Write(fd, "written", 10), 7);
  EXPECT_EQ(std::string(map + 10, 7), "written");
  EXPECT_EQ(msync(map, 3 * kPage, MS_SYNC), 0);
  munmap(map, 3 * kPage);
  Settle();
  fd = Open("f");
  EXPECT_EQ(fs().Read(fd, &bytes, 6, kPage), 6);
  EXPECT_EQ(bytes, "mapped");
}

TEST_F(ContentRules, PrivateMappingsStayPrivate) {
  NEEDS_KERNEL();
  MakeFile("f", Pattern(kPage));
  Settle();
  const int fd = Open("f", O_RDONLY);
  auto* const map =
      static_cast<char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  std::memcpy(map, "private", 7);
  EXPECT_EQ(Text("f"), Pattern(kPage));
  munmap(map, kPage);
}

TEST_F(ContentRules, AMappingOutlivesItsDescriptorAndItsName) {
  NEEDS_KERNEL();
  MakeFile("f", Pattern(kPage));
  const int fd = Open("f");
  auto* const map =
      static_cast<char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  fs().Close(fd);
  ASSERT_EQ(fs().Unlink("f"), 0);
  map[0] = 'Z';
  EXPECT_EQ(std::string(map + 1, 10), Pattern(kPage).substr(1, 10));
  EXPECT_EQ(map[0], 'Z');
  munmap(map, kPage);
}

TEST_F(ContentRules, DirectIoNeedsNoAlignment) {
  NEEDS_KERNEL();
  const std::string text = Pattern(100000);
  MakeFile("f", text);
  Settle();
  const int fd = Open("f", O_RDWR | O_DIRECT);
  std::string bytes;
  EXPECT_EQ(fs().Read(fd, &bytes, 5000, 333), 5000);
  EXPECT_EQ(bytes, text.substr(333, 5000));
  EXPECT_EQ(fs().Write(fd, "direct", 777), 6);
  EXPECT_EQ(Text("f").substr(770, 20), text.substr(770, 7) + "direct" + text.substr(783, 7));
  EXPECT_EQ(fs().Write(fd, "end", 100000), 3);
  EXPECT_EQ(Of("f").st_size, 100003);
}

TEST_F(ContentRules, VectorsSpliceAndSendfile) {
  NEEDS_KERNEL();
  const std::string text = Pattern(50000);
  MakeFile("f", text);
  Settle();
  const int from = Open("f"), to = MakeOpen("g");
  off_t offset = 100;
  EXPECT_EQ(sendfile(to, from, &offset, 40000), 40000);
  EXPECT_EQ(Text("g"), text.substr(100, 40000));
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  off_t in = 5, out = 0;
  EXPECT_EQ(splice(from, &in, pipe_fds[1], nullptr, 10000, 0), 10000);
  EXPECT_EQ(splice(pipe_fds[0], nullptr, to, &out, 10000, 0), 10000);
  EXPECT_EQ(Text("g").substr(0, 10000), text.substr(5, 10000));
  close(pipe_fds[0]);
  close(pipe_fds[1]);
  char a[10], b[20];
  const iovec v[2] = {{a, 10}, {b, 20}};
  EXPECT_EQ(preadv(from, v, 2, 1000), 30);
  EXPECT_EQ(std::string(a, 10) + std::string(b, 20), text.substr(1000, 30));
  EXPECT_EQ(pwritev2(to, v, 2, 3, RWF_DSYNC), 30);
  EXPECT_EQ(Text("g").substr(3, 30), text.substr(1000, 30));
}

TEST_F(ContentRules, ProgramsRunFromIt) {
  NEEDS_KERNEL();
  MakeFile("script", "#!/bin/sh\nexit 7\n", 0755);
  ASSERT_EQ(std::system(("cp /bin/true " + Path("true")).c_str()), 0);
  Settle();
  const int status = std::system(Path("script").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(std::system(Path("true").c_str()), 0);
  const int fd = fs().Open("true", O_WRONLY);
  EXPECT_GE(fd, 0);
  // A program that is open for writing does not run.
  const int busy = std::system((Path("true") + " 2>/dev/null").c_str());
  EXPECT_NE(WEXITSTATUS(busy), 0);
  fs().Close(fd);
  ASSERT_EQ(fs().Chmod("true", 0644), 0);
  const int denied = std::system((Path("true") + " 2>/dev/null").c_str());
  EXPECT_EQ(WEXITSTATUS(denied), 126);
}

TEST_F(ContentRules, SyncingIsAccepted) {
  NEEDS_KERNEL();
  MakeFile("f", "x");
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  const int fd = Open("f"), directory = Open("d", O_RDONLY);
  EXPECT_EQ(fsync(fd), 0);
  EXPECT_EQ(fdatasync(fd), 0);
  EXPECT_EQ(fsync(directory), 0);
  EXPECT_EQ(syncfs(fd), 0);
  EXPECT_EQ(sync_file_range(fd, 0, 1, SYNC_FILE_RANGE_WRITE), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(readahead(fd, 0, 4096), 0);
}

TEST_F(ContentRules, DirectoriesAreNotReadAsFiles) {
  NEEDS_KERNEL();
  ASSERT_EQ(fs().Mkdir("d", 0755), 0);
  std::string bytes;
  EXPECT_EQ(fs().Read(Open("d", O_RDONLY), &bytes, 10, 0), -EISDIR);
}

}  // namespace
}  // namespace pkramfs
