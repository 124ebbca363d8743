// A value or an errno.  Errors here are the ones a program sees from its system
// call, so they are errno values and carry no message.
#ifndef FS_RESULT_H_
#define FS_RESULT_H_

#include <cerrno>
#include <optional>
#include <utility>

#include "absl/status/status.h"

namespace pkramfs {

struct Errno {
  int value;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit, as for StatusOr
  Result(Errno error) : error_(error.value) {}   // NOLINT

  bool ok() const { return error_ == 0; }
  int error() const { return error_; }
  Errno as_errno() const { return {error_}; }

  // REQUIRES: ok().
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  int error_ = 0;
  std::optional<T> value_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Errno error) : error_(error.value) {}  // NOLINT
  bool ok() const { return error_ == 0; }
  int error() const { return error_; }
  Errno as_errno() const { return {error_}; }

 private:
  int error_ = 0;
};

// The one place where the library's errors become errnos.
inline Errno ToErrno(const absl::Status& status) {
  return {absl::IsResourceExhausted(status) ? ENOSPC : EIO};
}

}  // namespace pkramfs

#endif  // FS_RESULT_H_
