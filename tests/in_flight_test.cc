#include "mount/serve/in_flight.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mount/serve/request_name.h"

namespace pkramfs {
namespace {

// How many pages of a slot this process has, so that storing to them does not wait.
size_t PagesPresent(InFlight::Slot* slot) {
  constexpr size_t kPages = InFlight::kRequestBytes / InFlight::kPage;
  constexpr uint64_t kPresent = uint64_t{1} << 63;
  uint64_t words[kPages];
  const int fd = open("/proc/self/pagemap", O_RDONLY);
  const auto first = reinterpret_cast<uintptr_t>(slot->request()) / InFlight::kPage;
  EXPECT_EQ(pread(fd, words, sizeof(words), static_cast<off_t>(first * sizeof(words[0]))),
            static_cast<ssize_t>(sizeof(words)));
  close(fd);
  size_t present = 0;
  for (const uint64_t word : words) present += (word & kPresent) != 0;
  return present;
}

constexpr size_t kAll = InFlight::kRequestBytes / InFlight::kPage;

TEST(InFlightTest, ASlotIsThereBeforeARequestIs) {
  const auto in_flight = InFlight::Make().value();
  InFlight::Slot* const slot = in_flight->Take();
  InFlight::MakePresent(slot);
  std::fill_n(slot->request(), InFlight::kRequestBytes, 'x');
  if (PagesPresent(slot) == 0) GTEST_SKIP() << "an emulator's pagemap is not of this memory";
  InFlight::MakePresent(slot);
  EXPECT_EQ(PagesPresent(slot), kAll);
  // A request of three pages is in it, and the rest is given back.
  slot->header().len = 2 * InFlight::kPage + 1;
  in_flight->Trim(slot);
  EXPECT_EQ(PagesPresent(slot), 3u);
  slot->Clear();
  InFlight::MakePresent(slot);
  EXPECT_EQ(PagesPresent(slot), kAll);
  in_flight->Return(slot);
  EXPECT_EQ(PagesPresent(slot), 0u);
}

TEST(InFlightTest, AHeirFindsTheRequests) {
  const auto in_flight = InFlight::Make().value();
  InFlight::Slot* const slot = in_flight->Take();
  in_flight->Take();
  slot->header().len = 100;
  slot->header().unique = 7;
  slot->receipt.answer = 3;
  in_flight->NoteFrozen(6);
  const auto heir = InFlight::Adopt(pkram::Descriptor(dup(in_flight->fd()))).value();
  ASSERT_EQ(heir->left().size(), 1u);
  EXPECT_EQ(heir->left()[0]->header().unique, 7u);
  EXPECT_EQ(heir->left()[0]->receipt.answer, 3u);
  EXPECT_TRUE(heir->frozen());
  EXPECT_FALSE(heir->writeback());
  // Requests that the successor receives itself go to other slots.
  EXPECT_TRUE(heir->Take()->is_free());
  EXPECT_EQ(InFlight::Progress(heir->fd()), 0u);
  heir->left()[0]->Clear();
  EXPECT_EQ(InFlight::Progress(heir->fd()), 1u);
  EXPECT_FALSE(InFlight::Ended(heir->fd()));
  heir->set_ended();
  EXPECT_TRUE(InFlight::Ended(in_flight->fd()));
}

TEST(InFlightTest, WhoIsGivenARequestAgainKnowsWhatItDid) {
  const auto in_flight = InFlight::Make().value();
  EXPECT_FALSE(in_flight->frozen());
  EXPECT_FALSE(in_flight->WasFrozenBy(2));
  EXPECT_FALSE(in_flight->WasThawedBy(2));
  in_flight->NoteFrozen(2);
  EXPECT_TRUE(in_flight->frozen());
  EXPECT_TRUE(in_flight->WasFrozenBy(2));
  EXPECT_FALSE(in_flight->WasFrozenBy(4));
  EXPECT_FALSE(in_flight->WasThawedBy(2));
  in_flight->NoteThawed(4);
  EXPECT_FALSE(in_flight->frozen());
  EXPECT_TRUE(in_flight->WasThawedBy(4));
  EXPECT_FALSE(in_flight->WasFrozenBy(2));
}

TEST(RequestNameTest, SaysKindInodeAndOffset) {
  struct {
    fuse_in_header header{};
    fuse_write_in body{};
  } request;
  request.header.opcode = FUSE_WRITE;
  request.header.nodeid = 12;
  request.body.offset = 4096;
  EXPECT_EQ(NameOfRequest(request.header), "WRITE, inode 12, offset 4096");
  request.header.opcode = FUSE_RENAME2;
  EXPECT_EQ(NameOfRequest(request.header), "RENAME, inode 12");
  request.header.opcode = 4000;
  EXPECT_EQ(NameOfRequest(request.header), "kind 4000, inode 12");
}

// A memory that is no server's, or another version's.
TEST(InFlightTest, WhatIsOfAnotherVersionIsRefused) {
  EXPECT_FALSE(InFlight::Adopt(pkram::Descriptor(memfd_create("none", MFD_CLOEXEC))).ok());
  const auto in_flight = InFlight::Make().value();
  const uint64_t version = 1000;
  ASSERT_EQ(pwrite(in_flight->fd(), &version, sizeof(version), 8), 8);
  const auto heir = InFlight::Adopt(pkram::Descriptor(dup(in_flight->fd())));
  EXPECT_NE(std::string(heir.status().message()).find("another version (1000"), std::string::npos);
}

}  // namespace
}  // namespace pkramfs
