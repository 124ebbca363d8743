// Regions in memory that is a device: Linux's devdax.  It can be opened and mapped,
// nothing else; its size is fixed, its pages exist and cannot be given back.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "pkram/backing_kinds.h"

namespace pkram {
namespace {

class DeviceBacking final : public Backing {
 public:
  DeviceBacking(std::string name, int fd, int lock_fd, DeviceShape shape)
      : Backing(std::move(name)), fd_(fd), lock_fd_(lock_fd), shape_(shape) {}
  ~DeviceBacking() override {
    if (!all_.empty()) munmap(all_.data(), all_.size());
    if (lock_fd_ >= 0) close(lock_fd_);
    close(fd_);
  }

  int fd() const override { return fd_; }
  absl::StatusOr<uint64_t> Size() const override { return shape_.bytes; }
  std::optional<uint64_t> device_pages() const override { return shape_.bytes / kPageSize; }

  // flock is about a node's inode, not about the device.
  absl::Status Lock(bool exclusive) override {
    absl::Status locked = LockDescriptor(name(), fd_, exclusive);
    return locked.ok() && lock_fd_ >= 0 ? LockDescriptor(name(), lock_fd_, exclusive) : locked;
  }

  absl::StatusOr<absl::Span<std::byte>> Map(uint64_t pages, bool writable) override {
    const uint64_t units = (pages * kPageSize + shape_.alignment - 1) / shape_.alignment;
    return MapDescriptor(name(), fd_, units * shape_.alignment, writable);
  }

  absl::Status MapAll() {
    absl::StatusOr<absl::Span<std::byte>> all = Map(shape_.bytes / kPageSize, true);
    if (!all.ok()) return all.status();
    all_ = *all;
    return absl::OkStatus();
  }

  absl::Status Reserve(PageRun) override { return absl::OkStatus(); }

  absl::Status Read(uint64_t offset, absl::Span<char> bytes) override {
    if (all_.empty()) return absl::FailedPreconditionError(name() + ": opened for reading only");
    std::memcpy(bytes.data(), all_.data() + offset, bytes.size());
    return absl::OkStatus();
  }

  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    for (const iovec& v : bytes) {
      std::memcpy(all_.data() + offset, v.iov_base, v.iov_len);
      offset += v.iov_len;
    }
    return absl::OkStatus();
  }

  absl::Status FillZeros(PageRun run) override {
    std::memset(all_.data() + run.first.offset(), 0, run.count * kPageSize);
    return absl::OkStatus();
  }

  bool HoldsMoreThan(uint64_t) const override { return false; }
  void GiveBack(PageRun) override {}
  void ShrinkTo(uint64_t) override {}

 private:
  const int fd_, lock_fd_;
  const DeviceShape shape_;
  absl::Span<std::byte> all_;  // what is filled, is filled here
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backing>> MakeDeviceBacking(std::string name, int fd, int lock_fd,
                                                           DeviceShape shape, bool writable) {
  // A rest that is smaller than a unit cannot be mapped.
  if (shape.alignment != 0) shape.bytes -= shape.bytes % shape.alignment;
  auto device = std::make_unique<DeviceBacking>(std::move(name), fd, lock_fd, shape);
  if (shape.bytes == 0 || shape.alignment % kPageSize != 0) {
    return absl::FailedPreconditionError(absl::StrCat(device->name(), ": a device of ", shape.bytes,
                                                      " bytes, aligned to ", shape.alignment,
                                                      ": not enough for a region"));
  }
  if (writable) {
    if (absl::Status s = device->MapAll(); !s.ok()) return s;
  }
  return device;
}

}  // namespace pkram
