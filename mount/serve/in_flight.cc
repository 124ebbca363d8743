#include "mount/serve/in_flight.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkramfs {
namespace {

using pkram::Descriptor;

constexpr uint64_t kMagic = 0x494e464c49474854;
// The version of this memory's layout, and of what a receipt's answer means.
constexpr uint64_t kVersion = 2;
constexpr size_t kInitBytes = 1024;
constexpr size_t kReasonBytes = 64;
constexpr size_t kSlotSize = InFlight::kPage + InFlight::kRequestBytes;
// The places of slots.  Each begins at the beginning of a page, also of a page of 64 KiB.
constexpr size_t kFirstSlot = 64 << 10;
constexpr size_t kSlotStride = (kSlotSize + kFirstSlot - 1) / kFirstSlot * kFirstSlot;

uint64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

absl::Status MemoryError(const char* what) {
  return absl::ResourceExhaustedError(absl::StrCat(what, ": ", std::strerror(errno)));
}

uint64_t ReadWord(int fd, size_t offset) {
  uint64_t word = 0;
  if (pread(fd, &word, sizeof(word), static_cast<off_t>(offset)) != sizeof(word)) return 0;
  return word;
}

// The page is there: a server has stored to it.
void Write(int fd, const void* bytes, size_t size, size_t offset) {
  std::ignore = pwrite(fd, bytes, size, static_cast<off_t>(offset));
}

template <typename T>
T Load(T& word) {
  return std::atomic_ref<T>(word).load(std::memory_order_acquire);
}
template <typename T>
void Store(T& word, T value) {
  std::atomic_ref<T>(word).store(value, std::memory_order_release);
}

}  // namespace

struct InFlight::Common {
  uint64_t magic, version;
  uint64_t slots;   // how many there are behind this page
  uint64_t frozen;  // the request that froze it; 0 when it is not frozen
  uint64_t ended, writeback;
  uint64_t keeper, upgrade;
  uint64_t inodes;                     // 1 + how many there may be; 0: as the options say
  uint64_t takeovers, died_at, pause;  // microseconds of the clock that never goes back
  char reason[kReasonBytes];           // of the last death
  uint64_t init_size;
  char init[kInitBytes];
  uint64_t thawed;  // the last request that did
  uint64_t locks_memory;
  uint64_t is_tight;
  uint64_t shows_image;
};

// Clears what is left of the slot's last request.  That is done here, and not when the request is
// answered: if the process dies before the slot is free, the successor must see that the request
// was executed.
void InFlight::Slot::Prepare() {
  receipt = {};
  faults = 0;
}

void InFlight::Slot::Clear() {
  Store(header().len, 0u);
  Store(answered, answered + 1);
}

absl::StatusOr<std::unique_ptr<InFlight>> InFlight::Make() {
  Descriptor memory(memfd_create("pkramfs in flight", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.get() < 0) return MemoryError("memfd_create");
  if (ftruncate(memory.get(), kPage) != 0) return MemoryError("ftruncate");
  // Sealed, so that no process that has it can cut it under the others.
  if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) return MemoryError("seal");
  std::unique_ptr<InFlight> made(new InFlight(std::move(memory)));
  if (absl::Status s = made->MapCommon(); !s.ok()) return s;
  made->common_->magic = kMagic;
  made->common_->version = kVersion;
  return made;
}

absl::StatusOr<std::unique_ptr<InFlight>> InFlight::Adopt(Descriptor memory) {
  struct stat st;
  if (fstat(memory.get(), &st) != 0) return MemoryError("fstat");
  std::unique_ptr<InFlight> adopted(new InFlight(std::move(memory)));
  if (st.st_size < static_cast<off_t>(kPage)) {
    return absl::FailedPreconditionError("what was handed over is not a server's memory");
  }
  if (absl::Status s = adopted->MapCommon(); !s.ok()) return s;
  const Common& common = *adopted->common_;
  if (common.magic != kMagic || common.version != kVersion || common.init_size > kInitBytes ||
      common.slots > static_cast<uint64_t>(st.st_size) / kSlotStride) {
    return absl::FailedPreconditionError(absl::StrCat("the server that ran is of another version (",
                                                      common.version, "; this one is of ", kVersion,
                                                      ")"));
  }
  pkram::MutexLock lock(&adopted->mu_);
  for (uint64_t i = 0; i < common.slots; ++i) {
    Slot* const slot = adopted->Map(i);
    if (slot == nullptr) return MemoryError("mmap");
    (slot->is_free() ? adopted->free_ : adopted->left_).push_back(slot);
  }
  return adopted;
}

InFlight::~InFlight() {
  for (Slot* const slot : slots_) munmap(slot, kSlotSize);
  if (common_ != nullptr) munmap(common_, kPage);
}

absl::Status InFlight::MapCommon() {
  void* const at = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (at == MAP_FAILED) return MemoryError("mmap");
  common_ = static_cast<Common*>(at);
  return absl::OkStatus();
}

InFlight::Slot* InFlight::Map(uint64_t index) {
  void* const at = mmap(nullptr, kSlotSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(),
                        static_cast<off_t>(kFirstSlot + index * kSlotStride));
  if (at == MAP_FAILED) return nullptr;
  slots_.push_back(static_cast<Slot*>(at));
  return slots_.back();
}

InFlight::Slot* InFlight::Take() {
  pkram::MutexLock lock(&mu_);
  if (free_.empty()) {
    const uint64_t index = slots_.size();
    const auto size = static_cast<off_t>(kFirstSlot + (index + 1) * kSlotStride);
    if (ftruncate(memory_.get(), size) != 0) return nullptr;
    Slot* const made = Map(index);
    if (made != nullptr) Store(common_->slots, index + 1);
    return made;
  }
  Slot* const slot = free_.back();
  free_.pop_back();
  return slot;
}

void InFlight::MakePresent(Slot* slot) { madvise(slot, kSlotSize, MADV_POPULATE_WRITE); }

void InFlight::Trim(Slot* slot) {
  const size_t taken = (slot->header().len + kPage - 1) / kPage * kPage;
  if (taken < kRequestBytes) madvise(slot->request() + taken, kRequestBytes - taken, MADV_REMOVE);
}

void InFlight::Return(Slot* slot) {
  pkram::MutexLock lock(&mu_);
  madvise(slot->request(), kRequestBytes, MADV_REMOVE);
  free_.push_back(slot);
}

absl::Span<const char> InFlight::init() const { return {common_->init, common_->init_size}; }

void InFlight::KeepInit(absl::Span<const char> request) {
  if (request.size() > kInitBytes) return;
  std::memcpy(common_->init, request.data(), request.size());
  Store(common_->init_size, uint64_t{request.size()});
}

bool InFlight::frozen() const { return Load(common_->frozen) != 0; }
bool InFlight::WasFrozenBy(uint64_t unique) const { return Load(common_->frozen) == unique; }
bool InFlight::WasThawedBy(uint64_t unique) const {
  return !frozen() && Load(common_->thawed) == unique;
}
void InFlight::NoteFrozen(uint64_t unique) { Store(common_->frozen, unique); }
// In this order: if the process dies between the two, the filesystem is still frozen, and the
// request is executed again.
void InFlight::NoteThawed(uint64_t unique) {
  Store(common_->thawed, unique);
  Store(common_->frozen, uint64_t{0});
}
bool InFlight::writeback() const { return Load(common_->writeback) != 0; }
void InFlight::set_writeback(bool writeback) { Store(common_->writeback, uint64_t{writeback}); }
bool InFlight::shows_image() const { return Load(common_->shows_image) != 0; }
void InFlight::set_shows_image(bool shows) { Store(common_->shows_image, uint64_t{shows}); }
bool InFlight::locks_memory() const { return Load(common_->locks_memory) != 0; }
void InFlight::set_locks_memory(bool locks) { Store(common_->locks_memory, uint64_t{locks}); }
void InFlight::set_is_tight(bool is_tight) { Store(common_->is_tight, uint64_t{is_tight}); }
void InFlight::set_ended() { Store(common_->ended, uint64_t{1}); }

std::optional<uint64_t> InFlight::max_inodes() const {
  const uint64_t word = Load(common_->inodes);
  return word == 0 ? std::nullopt : std::optional<uint64_t>(word - 1);
}
void InFlight::set_max_inodes(uint64_t count) { Store(common_->inodes, count + 1); }
InFlight::Upgrade InFlight::upgrade() const { return static_cast<Upgrade>(Load(common_->upgrade)); }
void InFlight::set_upgrade(Upgrade state) { Store(common_->upgrade, static_cast<uint64_t>(state)); }

pid_t InFlight::keeper() const { return static_cast<pid_t>(Load(common_->keeper)); }
void InFlight::set_keeper(pid_t pid) { Store(common_->keeper, static_cast<uint64_t>(pid)); }

InFlight::Takeovers InFlight::takeovers() const {
  const char* const reason = common_->reason;
  return {Load(common_->takeovers), std::string(reason, strnlen(reason, kReasonBytes)),
          Load(common_->pause)};
}

uint64_t InFlight::NoteTakeover() {
  const uint64_t pause = Now() - Load(common_->died_at);
  Store(common_->pause, pause);
  Store(common_->takeovers, Load(common_->takeovers) + 1);
  return pause;
}

void InFlight::NoteDeath(int fd, const std::string& how) {
  char reason[kReasonBytes] = {};
  how.copy(reason, sizeof(reason));
  const uint64_t now = Now();
  Write(fd, reason, sizeof(reason), offsetof(Common, reason));
  Write(fd, &now, sizeof(now), offsetof(Common, died_at));
}

void InFlight::NoteUpgrade(int fd, Upgrade state) {
  Write(fd, &state, sizeof(state), offsetof(Common, upgrade));
}

bool InFlight::IsTight(int fd) { return ReadWord(fd, offsetof(Common, is_tight)) != 0; }

bool InFlight::Ended(int fd) { return ReadWord(fd, offsetof(Common, ended)) != 0; }

uint64_t InFlight::Progress(int fd) {
  const uint64_t slots = ReadWord(fd, offsetof(Common, slots));
  uint64_t answered = 0;
  for (uint64_t i = 0; i < slots; ++i) {
    answered += ReadWord(fd, kFirstSlot + i * kSlotStride + offsetof(Slot, answered));
  }
  return answered;
}

}  // namespace pkramfs
