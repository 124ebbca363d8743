#include "mount/tools/progress.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "fs/check.h"
#include "mount/region/progress_line.h"
#include "mount/region/region_file.h"

namespace pkramfs {

void RepeatUntil(const std::stop_token& stop, const std::function<void()>& fn) {
  std::mutex mu;
  std::condition_variable_any ended;
  std::unique_lock lock(mu);
  while (!ended.wait_for(lock, stop, std::chrono::milliseconds(100), [] { return false; }) &&
         !stop.stop_requested()) {
    fn();
  }
}

CountingClient::CountingClient(const std::string& what, pkram::WalkClient* client)
    : client_(client) {
  if (!ProgressLine::IsSeen()) return;
  shows_ = std::jthread([this, what](const std::stop_token& stop) {
    ProgressLine line(what, ProgressLine::Unit::kPlain);
    RepeatUntil(stop, [&] { line.Show(done_, of_); });
  });
}

CountingClient::~CountingClient() = default;

void CountingClient::End() { shows_ = std::jthread(); }

std::string CountingClient::BeginNode(const pkram::format::Node& node) {
  return client_->BeginNode(node);
}

std::string CountingClient::BeginObjects(uint64_t end) {
  of_ = end;
  done_ = 0;
  return client_->BeginObjects(end);
}

std::string CountingClient::Object(const pkram::WalkedObject& object) {
  done_.fetch_add(1, std::memory_order_relaxed);
  return client_->Object(object);
}

void CountingClient::Changed(const pkram::WalkedObject& object) { client_->Changed(object); }

void CountingClient::Damaged(uint64_t index, pkram::Pfn pfn, const std::string& what) {
  client_->Damaged(index, pfn, what);
}

std::string CountingClient::Hole(uint64_t index, uint64_t payload) {
  done_.fetch_add(1, std::memory_order_relaxed);
  return client_->Hole(index, payload);
}

std::string CountingClient::EndNode(const pkram::format::Node& node) {
  return client_->EndNode(node);
}

absl::StatusOr<pkram::Region::Report> CheckShowingProgress(const std::string& region) {
  const auto backing = OpenRegionBacking(region, pkram::OpenFor::kReading);
  if (!backing.ok()) return backing.status();
  FsCheck check;
  CountingClient client("check", &check);
  return pkram::Region::Check(backing->get(), &client);
}

absl::Status ShowingBytes(const std::string& what, const std::vector<std::string>& sources,
                          const std::function<absl::Status(ImportProgress*)>& work,
                          ImportProgress* progress) {
  std::jthread shows;
  if (ProgressLine::IsSeen()) {
    shows = std::jthread([&](const std::stop_token& stop) {
      ImportProgress whole;
      const std::stop_callback stops(stop, [&] { whole.stop = true; });
      const bool is_known = !sources.empty() && sources != std::vector<std::string>{"-"};
      if (is_known && !CountTree(sources, &whole).ok()) return;
      ProgressLine line(what, ProgressLine::Unit::kBytes);
      RepeatUntil(stop, [&] { line.Show(progress->bytes, whole.bytes); });
    });
  }
  return work(progress);
}

}  // namespace pkramfs
