// Reads and writes that are submitted and completed later: Linux AIO and io_uring, by their system
// calls.
#ifndef TESTS_COHERENCE_ASYNC_IO_H_
#define TESTS_COHERENCE_ASYNC_IO_H_

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace pkramfs {

// libaio's.
class LinuxAio {
 public:
  LinuxAio() { ok_ = syscall(SYS_io_setup, kMost, &context_) == 0; }
  ~LinuxAio() {
    if (ok_) syscall(SYS_io_destroy, context_);
  }
  bool ok() const { return ok_; }
  // What read(2) or write(2) would return, errors as -errno.
  int64_t Run(int fd, bool write, void* bytes, size_t size, uint64_t offset) {
    iocb request{};
    request.aio_fildes = static_cast<uint32_t>(fd);
    request.aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    request.aio_buf = reinterpret_cast<uint64_t>(bytes);
    request.aio_nbytes = size;
    request.aio_offset = static_cast<int64_t>(offset);
    iocb* list[] = {&request};
    if (syscall(SYS_io_submit, context_, 1, list) != 1) return -errno;
    io_event event{};
    while (syscall(SYS_io_getevents, context_, 1, 1, &event, nullptr) != 1) {
      if (errno != EINTR) return -errno;
    }
    return event.res;
  }
  // Writes a buffer in as many pieces at once.  False unless each is written as a whole.
  bool WriteAtOnce(int fd, char* bytes, size_t size, uint64_t offset, size_t pieces) {
    iocb requests[kMost] = {};
    iocb* list[kMost];
    const size_t piece = size / pieces;
    for (size_t i = 0; i < pieces; ++i) {
      requests[i].aio_fildes = static_cast<uint32_t>(fd);
      requests[i].aio_lio_opcode = IOCB_CMD_PWRITE;
      requests[i].aio_buf = reinterpret_cast<uint64_t>(bytes + i * piece);
      requests[i].aio_nbytes = piece;
      requests[i].aio_offset = static_cast<int64_t>(offset + i * piece);
      list[i] = &requests[i];
    }
    const auto count = static_cast<long>(pieces);
    if (syscall(SYS_io_submit, context_, count, list) != count) return false;
    bool is_whole = true;
    for (size_t done = 0; done < pieces;) {
      io_event event{};
      if (syscall(SYS_io_getevents, context_, 1, 1, &event, nullptr) != 1) {
        if (errno != EINTR) return false;
        continue;
      }
      is_whole = is_whole && event.res == static_cast<int64_t>(piece);
      ++done;
    }
    return is_whole;
  }

  static constexpr size_t kMost = 8;  // requests at once

 private:
  aio_context_t context_ = 0;
  bool ok_ = false;
};

// io_uring's: one request at a time.
class IoUring {
 public:
  IoUring() {
    io_uring_params params{};
    fd_ = static_cast<int>(syscall(SYS_io_uring_setup, 4, &params));
    if (fd_ < 0) return;
    const auto map = [&](size_t size, uint64_t offset) {
      return static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_POPULATE, fd_, static_cast<off_t>(offset)));
    };
    char* const sq =
        map(params.sq_off.array + params.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
    char* const cq =
        map(params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
    entries_ = reinterpret_cast<io_uring_sqe*>(
        map(params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    sq_tail_ = reinterpret_cast<uint32_t*>(sq + params.sq_off.tail);
    sq_mask_ = *reinterpret_cast<uint32_t*>(sq + params.sq_off.ring_mask);
    sq_array_ = reinterpret_cast<uint32_t*>(sq + params.sq_off.array);
    cq_head_ = reinterpret_cast<uint32_t*>(cq + params.cq_off.head);
    cq_tail_ = reinterpret_cast<uint32_t*>(cq + params.cq_off.tail);
    cq_mask_ = *reinterpret_cast<uint32_t*>(cq + params.cq_off.ring_mask);
    done_ = reinterpret_cast<io_uring_cqe*>(cq + params.cq_off.cqes);
  }
  ~IoUring() {
    if (fd_ >= 0) close(fd_);
  }
  bool ok() const { return fd_ >= 0; }
  // What read(2) or write(2) would return, errors as -errno.
  int64_t Run(int fd, bool write, void* bytes, size_t size, uint64_t offset) {
    iovec vector{bytes, size};
    const uint32_t at = *sq_tail_ & sq_mask_;
    io_uring_sqe& entry = entries_[at];
    std::memset(&entry, 0, sizeof(entry));
    entry.opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
    entry.fd = fd;
    entry.addr = reinterpret_cast<uint64_t>(&vector);
    entry.len = 1;
    entry.off = offset;
    sq_array_[at] = at;
    std::atomic_ref<uint32_t>(*sq_tail_).fetch_add(1, std::memory_order_release);
    // A call that has submitted says so, and not that it was interrupted before it had waited: the
    // bytes would come later.
    uint32_t submit = 1;
    do {
      const auto n =
          syscall(SYS_io_uring_enter, fd_, submit, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
      if (n < 0 && errno != EINTR) return -errno;
      if (n > 0) submit = 0;
    } while (std::atomic_ref<uint32_t>(*cq_tail_).load(std::memory_order_acquire) == *cq_head_);
    const int64_t result = done_[*cq_head_ & cq_mask_].res;
    std::atomic_ref<uint32_t>(*cq_head_).fetch_add(1, std::memory_order_release);
    return result;
  }

 private:
  int fd_ = -1;
  io_uring_sqe* entries_ = nullptr;
  io_uring_cqe* done_ = nullptr;
  uint32_t *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  uint32_t sq_mask_ = 0, cq_mask_ = 0;
};

}  // namespace pkramfs

#endif  // TESTS_COHERENCE_ASYNC_IO_H_
