// A file descriptor that is closed with its owner.
#ifndef PKRAM_DESCRIPTOR_H_
#define PKRAM_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace pkram {

class Descriptor {
 public:
  // None, when `fd` is negative.
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace pkram

#endif  // PKRAM_DESCRIPTOR_H_
