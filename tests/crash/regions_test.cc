// Regions and streams at every store: what can be loaded is what could be before the
// operation or what can be after it, to the byte, and no page is lost or owned twice.  And
// a region that is being made is none or a whole one.
#include "tests/crash/regions.h"

#include <map>

#include "pkram/stream.h"
#include "tests/crash/points.h"

namespace pkramfs {
namespace {

using pkram::LoadStream;
using pkram::Region;
using pkram::SaveAccess;
using pkram::SaveObject;
using pkram::SaveStream;

constexpr uint64_t kPages = 4096;

// Saves two objects: pages of several orders with a gap, and bytes over several pages.
absl::Status Save(Region* region, const std::string& name, char fill, uint64_t pages) {
  auto save = SaveStream::Prepare(region, name);
  if (!save.ok()) return save.status();
  auto first = (*save)->PrepareObject();
  auto second = (*save)->PrepareObject();
  if (!first.ok() || !second.ok()) return absl::ResourceExhaustedError("no object");
  {
    SaveAccess access(*first);
    for (uint64_t i = 0; i < pages; ++i) {
      const std::string page(kPageSize, static_cast<char>(fill + i % 5));
      if (absl::Status s = access.SavePage(i, BytesOf(page)); !s.ok()) return s;
    }
    const std::string order3(kPageSize << 3, fill);
    if (absl::Status s = access.SavePage(5000, BytesOf(order3), 3); !s.ok()) return s;
  }
  const std::string bytes(10000, fill);
  if (absl::Status s = (*second)->WriteBytes(BytesOf(bytes)); !s.ok()) return s;
  if (absl::Status s = (*second)->WriteBytes(BytesOf(bytes)); !s.ok()) return s;
  return (*save)->Finish();
}

// Node -> all that can be loaded from it.
std::map<std::string, std::string> LoadableOf(Region* region) {
  std::map<std::string, std::string> loadable;
  for (const std::string& name : region->NodeNames()) {
    std::string& text = loadable[name];
    auto load = LoadStream::Prepare(region, name);
    if (!load.ok()) continue;  // a filesystem
    for (auto object = (*load)->NextObject(); object.ok(); object = (*load)->NextObject()) {
      text += "object ";
      std::map<uint64_t, std::string> pages;
      pkram::LoadAccess access(object->get());
      while (const auto page = access.LoadFilePage()) {
        pages[page->index] =
            std::string(reinterpret_cast<const char*>(page->page.data()), page->page.size());
      }
      for (const auto& [index, bytes] : pages) text += std::to_string(index) + ":" + bytes;
      std::string bytes((*object)->bytes_len(), 0);
      auto* const to = reinterpret_cast<std::byte*>(bytes.data());
      for (size_t got = 0; got < bytes.size();) {
        const size_t n = (*object)->ReadBytes(absl::MakeSpan(to + got, bytes.size() - got));
        if (n == 0) break;
        got += n;
      }
      text += " bytes:" + bytes;
    }
  }
  return loadable;
}

struct Loadable {
  std::map<std::string, std::string> nodes;
  int64_t used = 0;
  friend bool operator==(const Loadable& a, const Loadable& b) { return a.nodes == b.nodes; }
};

// As a successor finds it, and with the pages that are in use when it has it open.
Loadable LoadableOfImage(const Image& image) {
  MemoryFile file;
  file.Restore(image);
  Loadable loadable;
  FsCheck check;
  {
    auto region = pkram::OpenRegion(file, 0, &check);
    EXPECT_EQ(region.status(), absl::OkStatus());
    if (!region.ok()) return loadable;
    loadable.nodes = LoadableOf(region->get());
  }
  loadable.used = pkram::UsedPages(file, &check);
  return loadable;
}

// What opening the region alone leaves when it dies at each of its stores.
std::vector<Image> DeathsInOpening(const Image& image) {
  MemoryFile file;
  file.Restore(image);
  Recorder recorder(&file);
  recorder.recording = true;
  FsCheck check;
  Region::OpenOptions options;
  options.client = &check;
  options.store_hook = recorder.hook();
  EXPECT_EQ(Region::Open(file.Reopen(), options).status(), absl::OkStatus());
  return recorder.images;
}

const Image& StartOfStreams() {
  static const Image image = [] {
    MemoryFile file;
    pkram::FormatRegion(&file, kPages);
    Mounted mounted(file);  // a filesystem is there, too
    EXPECT_TRUE(mounted.fs()->MakeDirectory({}, kRootIno, "d", 0755).ok());
    EXPECT_EQ(Save(mounted.region(), "one", 'a', 600), absl::OkStatus());
    EXPECT_EQ(Save(mounted.region(), "two", 'k', 3), absl::OkStatus());
    mounted.Close();
    return file.Save();
  }();
  return image;
}

class CrashInStreamsTest : public testing::TestWithParam<size_t> {};

TEST_P(CrashInStreamsTest, EveryStoreLeavesTheStateBeforeOrAfter) {
  const RegionStep step = AllRegionSteps()[GetParam()];
  SCOPED_TRACE(step.name);
  MemoryFile file;
  file.Restore(StartOfStreams());
  Recorder recorder(&file);
  FsCheck check;
  Region::OpenOptions options;
  options.guarded = true;
  options.resizable = true;
  options.client = &check;
  options.store_hook = recorder.hook();
  auto region = Region::Open(file.Reopen(), options);
  ASSERT_EQ(region.status(), absl::OkStatus());
  recorder.images.push_back(StartOfStreams());
  recorder.recording = true;
  step.run(region->get());
  recorder.images.push_back(file.Save());
  recorder.recording = false;
  region->reset();
  const Loadable before = LoadableOfImage(StartOfStreams());
  const Loadable after = LoadableOfImage(recorder.images.back());
  EXPECT_EQ(before == after, !step.changes);
  bool seen_after = false;
  for (const Image& image : recorder.images) {
    const Loadable found = LoadableOfImage(image);
    ++crash_points_tried;
    ASSERT_TRUE(found == before || found == after);
    ASSERT_FALSE(step.changes && seen_after && found == before);
    seen_after |= found == after;
    ASSERT_EQ(found.used, found == before ? before.used : after.used);
    for (const Image& death : DeathsInOpening(image)) {
      ++crash_points_tried;
      ASSERT_TRUE(LoadableOfImage(death) == found);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, CrashInStreamsTest,
                         testing::Range(size_t{0}, AllRegionSteps().size()));

// A file or a device, as far as a test can have one: nothing is given back, and each page
// that is written is a place to die.
class RecordingBacking : public pkram::ForwardingBacking {
 public:
  RecordingBacking(std::unique_ptr<pkram::Backing> below, std::function<void()> hook, bool device)
      : ForwardingBacking(std::move(below)), hook_(std::move(hook)), device_(device) {}
  absl::Status Write(uint64_t offset, absl::Span<const iovec> bytes) override {
    hook_();
    const absl::Status written = below().Write(offset, bytes);
    hook_();
    return written;
  }
  absl::Status FillZeros(pkram::PageRun run) override {
    for (uint64_t i = 0; i < run.count; ++i) {
      hook_();
      const absl::Status filled = below().FillZeros({run.first + i, 1});
      if (!filled.ok()) return filled;
    }
    return absl::OkStatus();
  }
  void GiveBack(pkram::PageRun) override {}
  void ShrinkTo(uint64_t pages) override {
    hook_();
    if (!device_) below().ShrinkTo(pages);
  }

 private:
  const std::function<void()> hook_;
  const bool device_;
};

// A kill within a format leaves nothing, the old contents, or an empty region; and
// whatever it is, formatting once more makes a region of it.
TEST(CrashInFormatTest, EveryWriteLeavesNoRegionOrAWholeOne) {
  for (const bool device : {false, true}) {
    for (const bool over_contents : {false, true}) {
      SCOPED_TRACE(std::string(device ? "device" : "file") + (over_contents ? " in use" : ""));
      MemoryFile file;
      if (over_contents) {
        file.Restore(StartOfStreams());
      } else if (device) {
        ASSERT_EQ(ftruncate(file.fd(), kPages * kPageSize), 0);
      }
      Recorder recorder(&file);
      recorder.recording = true;
      RecordingBacking backing(file.Reopen(), recorder.hook(), device);
      ASSERT_EQ(Region::Format(&backing, kPages, Region::Contents::kGiveUp), absl::OkStatus());
      recorder.images.push_back(file.Save());
      EXPECT_GE(recorder.images.size(), over_contents ? 3u : 2u);
      const auto before = over_contents ? LoadableOfImage(StartOfStreams()).nodes
                                        : std::map<std::string, std::string>{};
      bool gone = !over_contents;
      for (const Image& image : recorder.images) {
        ++crash_points_tried;
        MemoryFile copy;
        copy.Restore(image);
        const auto opened = pkram::OpenRegion(copy);
        if (opened.ok()) {
          const auto found = LoadableOf(opened->get());
          EXPECT_TRUE(found.empty() || (!gone && found == before));
          gone |= found.empty();
        } else {
          EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
          gone = true;
        }
        MemoryFile again;
        again.Restore(image);
        ASSERT_EQ(Region::Format(again.Reopen().get(), kPages, Region::Contents::kGiveUp),
                  absl::OkStatus());
        EXPECT_EQ(pkram::OpenRegion(again).status(), absl::OkStatus());
      }
      EXPECT_TRUE(gone);
    }
  }
}

// A filesystem in a new region: none, or an empty one.
TEST(CrashInCreationTest, EveryStoreLeavesNoFilesystemOrAnEmptyOne) {
  MemoryFile file;
  pkram::FormatRegion(&file, kPages);
  Recorder recorder(&file);
  recorder.recording = true;
  const Mounted mounted(file, 0, recorder.hook());
  recorder.images.push_back(file.Save());
  EXPECT_GE(recorder.images.size(), 2u);
  for (const Image& image : recorder.images) {
    ++crash_points_tried;
    const Picture picture = PictureOfImage(image, {}, true, nullptr);
    EXPECT_EQ(picture.size(), 1u);
    EXPECT_TRUE(picture.contains("/"));
  }
}

}  // namespace

std::vector<RegionStep> AllRegionSteps() {
  return {
      {"SaveStream::Prepare SaveStream::PrepareObject SaveObject::WriteBytes SaveAccess::SavePage "
       "SaveStream::Finish Region::TakeName Region::PublishNode Region::ReturnName Region::Fill",
       [](Region* region) { EXPECT_EQ(Save(region, "three", 'x', 700), absl::OkStatus()); }},
      {"SaveStream::Discard",
       [](Region* region) {
         auto save = SaveStream::Prepare(region, "four").value();
         SaveObject* const object = save->PrepareObject().value();
         {
           SaveAccess access(object);
           const std::string page(kPageSize, 'p');
           EXPECT_EQ(access.SavePage(3, BytesOf(page)), absl::OkStatus());
         }
         EXPECT_EQ(object->WriteBytes(BytesOf("bytes")), absl::OkStatus());
         save->Discard();
       },
       false},
      {"LoadStream::Prepare LoadStream::NextObject LoadAccess::LoadFilePages LoadStream::Finish",
       [](Region* region) {
         auto load = LoadStream::Prepare(region, "one").value();
         auto object = load->NextObject().value();
         {
           pkram::LoadAccess access(object.get());
           pkram::PageBuffer pages;
           EXPECT_TRUE(access.LoadFilePages(&pages));
         }
         object.reset();
         load->Finish();
       }},
      {"a load that is not finished",
       [](Region* region) {
         auto load = LoadStream::Prepare(region, "one").value();
         EXPECT_TRUE(load->NextObject().ok());
       },
       false},
      {"Region::RemoveNode of what was saved first, behind others on the list",
       [](Region* region) { region->RemoveNode(region->FindNode("one")); }},
      {"Region::RemoveNode of a filesystem",
       [](Region* region) { region->RemoveNode(region->FindNode("pkramfs")); }},
      {"Region::Resize, larger",
       [](Region* region) { EXPECT_EQ(region->Resize(2 * kPages), absl::OkStatus()); }, false},
      {"Region::Resize, smaller",
       [](Region* region) { EXPECT_EQ(region->Resize(1000), absl::OkStatus()); }, false},
      {"Region::Close of what nobody has changed",
       [](Region* region) {
         FsCheck check;
         EXPECT_EQ(region->Close(&check), absl::OkStatus());
       },
       false},
      {"Region::Close of what has been changed",
       [](Region* region) {
         EXPECT_EQ(Save(region, "three", 'x', 700), absl::OkStatus());
         FsCheck check;
         EXPECT_EQ(region->Close(&check), absl::OkStatus());
       }},
  };
}

}  // namespace pkramfs
