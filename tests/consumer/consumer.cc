// Saves a few bytes in a memfd and loads them back, with the installed headers.
#include <pkram/region.h>
#include <pkram/stream.h>
#include <sys/mman.h>

#include <cstdio>
#include <string>

int main() {
  auto backing = pkram::OpenFdBacking(memfd_create("consumer", 0));
  if (!backing.ok() || !pkram::Region::Format(backing->get(), 1024).ok()) return 1;
  auto region = pkram::Region::Open(*std::move(backing), {});
  if (!region.ok()) return 1;
  const std::string text = "saved and loaded";
  {
    auto save = pkram::SaveStream::Prepare(region->get(), "note");
    auto object = (*save)->PrepareObject();
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    if (!(*object)->WriteBytes({bytes, text.size()}).ok() || !(*save)->Finish().ok()) return 1;
  }
  auto load = pkram::LoadStream::Prepare(region->get(), "note");
  auto object = (*load)->NextObject();
  std::string back(100, '\0');
  back.resize(
      (*object)->ReadBytes(absl::MakeSpan(reinterpret_cast<std::byte*>(back.data()), back.size())));
  (*load)->Finish();
  std::printf("%s\n", back.c_str());
  return back == text ? 0 : 1;
}
