// The first request and its answer, with this test in the kernel's place: what each side may
// refuse.
#include "mount/serve/handshake.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "mount/serve/server.h"
#include "pkram/descriptor.h"

namespace pkramfs {
namespace {

using ::testing::HasSubstr;

// As <linux/fuse.h> has them; older ones do not.
constexpr uint32_t kMaxPages = 1u << 22;  // requests may be of more than 32 pages
constexpr uint32_t kKillPriv = 1u << 28;
constexpr uint32_t kInitExt = 1u << 30;
constexpr uint32_t kAllowIdmap = 1u << (40 - 32);

struct Init {
  fuse_in_header header{};
  uint32_t major = 7, minor = 38, max_readahead = 1 << 17, flags = 0, flags2 = 0, unused[11] = {};
};
struct Answer {
  fuse_out_header header;
  uint32_t major, minor, max_readahead, flags;
  uint16_t max_background, congestion_threshold;
  uint32_t max_write, time_gran;
  uint16_t max_pages, map_alignment;
  uint32_t flags2;
};

class HandshakeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    fuse_set_log_func([](fuse_log_level, const char*, va_list) {});
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    kernel_ = pkram::Descriptor(ends[0]);
    session_ = MakeSession(ends[1]);
    in_flight_ = InFlight::Make().value();
  }
  fuse_session* MakeSession(int connection) {
    const char* argv[] = {"test", nullptr};
    fuse_args args = FUSE_ARGS_INIT(1, const_cast<char**>(argv));
    fuse_session* const session =
        fuse_session_new(&args, &Operations(), sizeof(Operations()), &server_);
    fuse_opt_free_args(&args);
    EXPECT_EQ(fuse_session_mount(session, absl::StrCat("/dev/fd/", connection).c_str()), 0);
    return session;
  }
  void TearDown() override { fuse_session_destroy(session_); }

  void Send(Init init, uint32_t opcode = FUSE_INIT) {
    init.header.len = sizeof(init);
    init.header.opcode = opcode;
    init.header.unique = 2;
    ASSERT_EQ(write(kernel_.get(), &init, sizeof(init)), static_cast<ssize_t>(sizeof(init)));
  }
  absl::Status Begin() { return BeginSession(session_, in_flight_.get()); }
  // What came back; nothing if nothing did.
  std::optional<Answer> Received() {
    Answer answer{};
    const ssize_t size = recv(kernel_.get(), &answer, sizeof(answer), MSG_DONTWAIT);
    if (size < static_cast<ssize_t>(sizeof(fuse_out_header))) return std::nullopt;
    return answer;
  }

  Server server_;
  pkram::Descriptor kernel_{-1};
  fuse_session* session_ = nullptr;
  std::unique_ptr<InFlight> in_flight_;
};

TEST_F(HandshakeTest, WhatTheKernelOffersAndLibfuseHasNoWordsForIsTaken) {
  Init init;
  init.flags = kMaxPages | kKillPriv | kInitExt;
  init.flags2 = kAllowIdmap;
  Send(init);
  ASSERT_TRUE(Begin().ok());
  const std::optional<Answer> answer = Received();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->header.unique, 2u);
  EXPECT_EQ(answer->header.error, 0);
  EXPECT_TRUE(answer->flags & kKillPriv);
  EXPECT_TRUE(answer->flags & kInitExt);
  EXPECT_TRUE(answer->flags2 & kAllowIdmap);
  EXPECT_EQ(answer->max_write, 1u << 20);
  // A successor learns it from the kept INIT, and the kernel is told nothing again.
  EXPECT_EQ(in_flight_->init().size(), sizeof(init));
  fuse_session* const successor = MakeSession(dup(fuse_session_fd(session_)));
  EXPECT_TRUE(ResumeSession(successor, *in_flight_).ok());
  EXPECT_FALSE(Received());
  fuse_session_destroy(successor);
}

TEST_F(HandshakeTest, WhatItDoesNotOfferIsNotTaken) {
  Init init;
  init.flags2 = kAllowIdmap;  // means nothing without the flag that says that there are more
  Send(init);
  ASSERT_TRUE(Begin().ok());
  const std::optional<Answer> answer = Received();
  ASSERT_TRUE(answer);
  EXPECT_FALSE(answer->flags & (kKillPriv | kInitExt));
  EXPECT_EQ(answer->flags2, 0u);
}

TEST_F(HandshakeTest, AKernelThatLibfuseDoesNotServe) {
  Init init;
  init.major = 6;
  Send(init);
  const absl::Status status = Begin();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("libfuse cannot serve this kernel: Protocol error"));
}

TEST_F(HandshakeTest, AnotherRequestComesFirst) {
  Send(Init(), FUSE_GETATTR);
  const absl::Status status = Begin();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
}

TEST_F(HandshakeTest, ARequestThatIsCutShort) {
  Init init;
  ASSERT_EQ(write(kernel_.get(), &init, 8), 8);
  const absl::Status status = Begin();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("cannot read from /dev/fuse"));
}

TEST_F(HandshakeTest, TheKernelDoesNotTakeTheAnswer) {
  Send(Init());
  ASSERT_EQ(shutdown(kernel_.get(), SHUT_RD), 0);
  const absl::Status status = Begin();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("the kernel does not take our answer"));
}

TEST_F(HandshakeTest, ASuccessorOfASessionThatHadNotBegun) {
  EXPECT_EQ(ResumeSession(session_, *in_flight_).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace pkramfs
