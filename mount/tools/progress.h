// Long work that says how far it has come, at a terminal (mount/region/progress_line.h).
#ifndef MOUNT_TOOLS_PROGRESS_H_
#define MOUNT_TOOLS_PROGRESS_H_

#include <atomic>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "mount/tools/import.h"
#include "pkram/region.h"

namespace pkramfs {

// Calls `fn` ten times a second until `stop`.
void RepeatUntil(const std::stop_token& stop, const std::function<void()>& fn);

// InspectRegion, with a line that shows how many of its inodes have been looked at.
absl::StatusOr<pkram::Region::Report> CheckShowingProgress(const std::string& region);

// Passes all on to `client`, which outlives it, and shows how many objects have been looked at.
class CountingClient final : public pkram::WalkClient {
 public:
  CountingClient(const std::string& what, pkram::WalkClient* client);
  ~CountingClient() override;

  std::string BeginNode(const pkram::format::Node& node) override;
  std::string BeginObjects(uint64_t end) override;
  std::string Object(const pkram::WalkedObject& object) override;
  void Changed(const pkram::WalkedObject& object) override;
  void Damaged(uint64_t index, pkram::Pfn pfn, const std::string& what) override;
  std::string Hole(uint64_t index, uint64_t payload) override;
  std::string EndNode(const pkram::format::Node& node) override;

  // The walk is over: its line is gone when this returns.
  void End();

 private:
  pkram::WalkClient* const client_;
  std::atomic<uint64_t> done_{0}, of_{0};
  std::jthread shows_;  // the last: it reads the others
};

// Runs `work`, which counts what it does, and shows under the name `what` how far that is, of
// `sources` in all.  Without sources, and of standard input ("-"), nobody knows the whole.
absl::Status ShowingBytes(const std::string& what, const std::vector<std::string>& sources,
                          const std::function<absl::Status(ImportProgress*)>& work,
                          ImportProgress* progress);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_PROGRESS_H_
