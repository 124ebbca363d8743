#include "mount/daemon/link.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

// The descriptors of an estate.  The first one is left out if there is none.
using Descriptors = std::array<Descriptor Estate::*, 5>;
constexpr Descriptors kDescriptors = {&Estate::fusermount, &Estate::connection, &Estate::region,
                                      &Estate::in_flight, &Estate::server};

// The text of a message with the program.
constexpr char kProgram[] = "program";

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int) * kDescriptors.size())];
};

}  // namespace

std::string WordsOf(const Estate& estate) {
  // No path has a NUL.
  const std::string nul(1, '\0');
  return absl::StrCat(estate.mount_id, nul, estate.device, nul, estate.mount_point);
}

bool ReadWords(const std::string& text, Estate* estate) {
  const std::vector<std::string> words = absl::StrSplit(text, '\0');
  if (words.size() != 3) return false;
  estate->mount_id = words[0];
  estate->device = words[1];
  estate->mount_point = words[2];
  return true;
}

absl::StatusOr<std::pair<Link, Link>> Link::Make() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat("socketpair: ", std::strerror(errno)));
  }
  return std::pair<Link, Link>(Link(Descriptor(ends[0])), Link(Descriptor(ends[1])));
}

Link::Link(Descriptor socket) : socket_(std::move(socket)) {
  fcntl(socket_.get(), F_SETFD, FD_CLOEXEC);
}

bool Link::Send(const std::string& text, const std::vector<int>& fds) {
  const size_t size = sizeof(int) * fds.size();
  iovec bytes{const_cast<char*>(text.data()), text.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_SPACE(size);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(header), fds.data(), size);
  ssize_t sent;
  do {
    sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(text.size());
}

bool Link::HandOver(const Estate& estate) {
  std::vector<int> fds;
  for (const auto member : kDescriptors) fds.push_back((estate.*member).get());
  if (fds.front() < 0) fds.erase(fds.begin());
  return Send(WordsOf(estate), fds);
}

bool Link::HandOver(const Descriptor& program) { return Send(kProgram, {program.get()}); }

std::optional<Message> Link::Receive() {
  char text[8192];
  iovec bytes{text, sizeof(text)};
  Control control{};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  ssize_t received;
  do {
    received = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (received <= 0 || header == nullptr || header->cmsg_len < CMSG_LEN(0)) return std::nullopt;
  std::vector<Descriptor> fds;
  for (size_t at = CMSG_LEN(0); at < header->cmsg_len; at += sizeof(int)) {
    int fd;
    std::memcpy(&fd, reinterpret_cast<const char*>(header) + at, sizeof(fd));
    fds.emplace_back(fd);
  }
  const std::string words(text, static_cast<size_t>(received));
  Message result;
  if (words == kProgram && fds.size() == 1) {
    result.program = std::move(fds[0]);
    return result;
  }
  Estate& estate = result.estate.emplace();
  if (!ReadWords(words, &estate) || fds.size() + 1 < kDescriptors.size()) return std::nullopt;
  for (size_t i = 0; i < fds.size(); ++i) {
    estate.*kDescriptors[kDescriptors.size() - fds.size() + i] = std::move(fds[i]);
  }
  return result;
}

std::optional<Estate> Link::ReceiveEstate() {
  std::optional<Message> message = Receive();
  return message ? std::move(message->estate) : std::nullopt;
}

}  // namespace pkramfs
