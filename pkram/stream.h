// Streams: the kernel series' API.  A program saves pages and bytes under a name;
// later, it or its successor loads them back, a page or a whole link at a time.
// A saved node is write-once, read-once.
//
//   auto save = *SaveStream::Prepare(region, "model");
//   auto object = *save->PrepareObject();
//   {
//     SaveAccess access(object.get());
//     access.SavePage(index, bytes);       // ... and the same on other threads
//   }
//   save->Finish();                        // one store: all of it can be loaded
//
//   auto load = *LoadStream::Prepare(region, "model");
//   for (auto object = load->NextObject(); object.ok(); object = load->NextObject()) {
//     LoadAccess access(object->get());
//     PageBuffer pages;
//     while (auto batch = access.LoadFilePages(&pages)) Use(pages, *batch);
//   }
//   load->Finish();                        // frees it all
//
// Departures from the series, so that no failure loses data: a save that is not
// finished leaves no trace, and a load that is not finished leaves everything to
// be loaded again.  So pages and links are freed by Finish, not one by one.
//
// Threads: a stream and its objects may be used by several threads; an access
// belongs to one.  Lifetime: region > stream > object > access.
#ifndef PKRAM_STREAM_H_
#define PKRAM_STREAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "pkram/format.h"
#include "pkram/link_builder.h"
#include "pkram/mutex.h"
#include "pkram/region.h"
#include "pkram/types.h"

namespace pkram {

class SaveObject;

class SaveStream {
 public:
  // INVALID_ARGUMENT for a bad name, ALREADY_EXISTS when the region has it or
  // another stream is saving it, RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<SaveStream>> Prepare(Region* region, std::string_view name);

  // A new object, behind those prepared before.  RESOURCE_EXHAUSTED.  It belongs
  // to the stream.
  absl::StatusOr<SaveObject*> PrepareObject();

  // Makes the node loadable, all at once.  INVALID_ARGUMENT when an index of an
  // object was saved twice, RESOURCE_EXHAUSTED; then nothing is saved yet.
  // REQUIRES: no access is left.
  absl::Status Finish();

  // Undoes all; so does destruction without Finish.
  void Discard();
  ~SaveStream();

 private:
  friend class SaveObject;
  SaveStream(Region* region, std::string_view name) : region_(region), name_(name) {}

  Region* const region_;
  const std::string name_;
  Pfn node_;
  Mutex mu_;
  std::vector<std::unique_ptr<SaveObject>> objects_ ABSL_GUARDED_BY(mu_);
};

class SaveObject {
 public:
  ~SaveObject();
  SaveObject(const SaveObject&) = delete;
  SaveObject& operator=(const SaveObject&) = delete;

  // Appends to the object's byte stream, all or nothing.  RESOURCE_EXHAUSTED.
  absl::Status WriteBytes(absl::Span<const std::byte> bytes);

 private:
  friend class SaveStream;
  friend class SaveAccess;
  SaveObject(Region* region, Pfn page) : region_(region), page_(page) {}

  void AddLinks(std::vector<Pfn> links);
  absl::Status Finish();
  absl::Status FillBytes(absl::Span<const std::byte> bytes, uint64_t offset);

  Region* const region_;
  const Pfn page_;
  bool finished_ = false;
  Mutex mu_;
  std::vector<Pfn> page_links_ ABSL_GUARDED_BY(mu_);
  std::vector<Pfn> byte_links_ ABSL_GUARDED_BY(mu_);
  std::vector<PageRun> byte_runs_ ABSL_GUARDED_BY(mu_);
  uint64_t byte_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t bytes_len_ ABSL_GUARDED_BY(mu_) = 0;
};

// One thread's way into a SaveObject: it fills links of its own.
class SaveAccess {
 public:
  explicit SaveAccess(SaveObject* object) : object_(object), links_(object->region_) {}
  ~SaveAccess() { object_->AddLinks(links_.TakeLinks()); }

  // Copies 2^order pages, for page indexes `index` and on.  RESOURCE_EXHAUSTED,
  // INVALID_ARGUMENT for an order above 18 or a size that is not 2^order pages.
  // Where the region has no run as long, the entry becomes several; an error may
  // leave the first of these saved.
  absl::Status SavePage(uint64_t index, absl::Span<const std::byte> bytes, uint64_t order = 0);

 private:
  SaveObject* const object_;
  LinkBuilder links_;
};

// A page of a loaded object, in one word: where its bytes are and its order.
// Valid until the stream is finished or destroyed.
class LoadedPage {
 public:
  LoadedPage() = default;
  LoadedPage(const std::byte* data, uint64_t order)
      : word_(reinterpret_cast<uintptr_t>(data) | order) {}
  const std::byte* data() const {
    return reinterpret_cast<const std::byte*>(word_ & ~uintptr_t{kPageSize - 1});
  }
  uint64_t order() const { return word_ & (kPageSize - 1); }
  size_t size() const { return kPageSize << order(); }

 private:
  uintptr_t word_ = 0;
};

// What LoadFilePages fills: one page of pointers holds any link's entries.
using PageBuffer = std::array<LoadedPage, kPageSize / sizeof(LoadedPage)>;
static_assert(sizeof(PageBuffer) == kPageSize);

class LoadObject;

class LoadStream {
 public:
  // NOT_FOUND; UNAVAILABLE when another stream is loading or saving that name;
  // FAILED_PRECONDITION when the node is not a saved one.
  static absl::StatusOr<std::unique_ptr<LoadStream>> Prepare(Region* region, std::string_view name);

  // The next object; OUT_OF_RANGE when none is left.
  absl::StatusOr<std::unique_ptr<LoadObject>> NextObject();

  // Removes the node and frees all that it held, loaded or not.  Ends the stream.
  void Finish();

  // Without Finish nothing is lost: the node can be loaded again.
  ~LoadStream();

 private:
  LoadStream(Region* region, std::string_view name, Pfn node)
      : region_(region), name_(name), node_(node) {}

  Region* const region_;
  const std::string name_;
  Pfn node_;
  Mutex mu_;
  uint64_t link_ ABSL_GUARDED_BY(mu_) = 0;  // entry of the current link of objects
  uint64_t at_ ABSL_GUARDED_BY(mu_) = 0;    // next entry in it
};

class LoadObject {
 public:
  bool has_pages() const { return header_->pages != 0; }
  uint64_t bytes_len() const { return header_->bytes_len; }

  // The next bytes of the byte stream: may be fewer than asked for, 0 at its end.
  size_t ReadBytes(absl::Span<std::byte> into);

 private:
  friend class LoadStream;
  friend class LoadAccess;
  struct Position {
    const format::Link* link = nullptr;
    uint64_t entry = 0;  // the next
    uint64_t index = 0;  // of it
  };
  LoadObject(Region* region, const format::ObjectHeader* header)
      : region_(region), header_(header), next_(header->pages), byte_link_(header->bytes) {}

  Position NextLink();
  void GiveBack(Position position);

  Region* const region_;
  const format::ObjectHeader* const header_;
  Mutex mu_;
  uint64_t next_ ABSL_GUARDED_BY(mu_);  // entry: the next link no access has
  std::vector<Position> returned_ ABSL_GUARDED_BY(mu_);
  uint64_t byte_link_ ABSL_GUARDED_BY(mu_);
  uint64_t byte_entry_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t byte_offset_ ABSL_GUARDED_BY(mu_) = 0;  // within that entry's pages
  uint64_t bytes_read_ ABSL_GUARDED_BY(mu_) = 0;
};

// One thread's way into a LoadObject: it takes a link at a time from it.
class LoadAccess {
 public:
  explicit LoadAccess(LoadObject* object) : object_(object) {}
  // Pages of its link that it has not loaded are left to another access.
  ~LoadAccess() { object_->GiveBack(position_); }

  struct Page {
    LoadedPage page;
    uint64_t index;
  };
  // The next page; nothing at the end of data.
  std::optional<Page> LoadFilePage();

  struct Batch {
    uint64_t count;  // pages[0, count) are filled
    uint64_t index;  // of the first; each next one starts where the one before ends
  };
  // All pages of one link (or the rest of one that LoadFilePage has begun), in
  // one go; nothing at the end of data.
  std::optional<Batch> LoadFilePages(PageBuffer* pages);

 private:
  bool HaveEntry();

  LoadObject* const object_;
  LoadObject::Position position_;
};

}  // namespace pkram

#endif  // PKRAM_STREAM_H_
