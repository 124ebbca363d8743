// The pages of a region that hold metadata: everything but what files and streams hold.
#ifndef TESTS_METADATA_PAGES_H_
#define TESTS_METADATA_PAGES_H_

#include <map>
#include <string>

#include "pkram/link_list.h"
#include "pkram/region.h"

namespace pkram {

struct MetadataPage {
  enum Kind { kSuper, kSlot, kNode, kObject, kOther };
  Kind kind;
  Pfn owner;                  // the page with the seal that covers it
  uint64_t client_bytes = 0;  // of an object
};

inline std::map<Pfn, MetadataPage> MetadataPagesOf(Region& region) {
  const Mapping& mapping = region.mapping();
  std::map<Pfn, MetadataPage> pages;
  const auto add_list = [&](uint64_t head, Pfn owner, bool pages_too) {
    ForEachLink(mapping, head, [&](const LinkRef& link) {
      if (!link.is_short()) pages[mapping.PfnOf(link.link)] = {MetadataPage::kOther, owner};
      if (!pages_too) return;
      ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        pages[format::EntryPfn(entry)] = {MetadataPage::kOther, owner};
      });
    });
  };
  pages[Pfn(0)] = {MetadataPage::kSuper, Pfn(0)};
  for (uint64_t i = 0; i < region.super().journal_slots; ++i) {
    const Pfn slot(region.super().journal_first + i);
    pages[slot] = {MetadataPage::kSlot, slot};
  }
  for (const std::string& name : region.NodeNames()) {
    const Pfn node = region.FindNode(name);
    const uint64_t objects = mapping.At<format::Node>(node)->objects;
    pages[node] = {MetadataPage::kNode, node};
    add_list(objects, node, false);
    ForEachLink(mapping, objects, [&](const LinkRef& link) {
      ForEachPageEntry(link, [&](uint64_t, uint64_t entry) {
        const Pfn object = format::EntryPfn(entry);
        const format::ObjectHeader& header = mapping.At<format::Object>(object)->header;
        pages[object] = {MetadataPage::kObject, object, header.client_bytes};
        add_list(header.pages, object, (header.flags & format::kPagesAreMetadata) != 0);
        add_list(header.bytes, object, (header.flags & format::kBytesAreMetadata) != 0);
      });
    });
  }
  return pages;
}

}  // namespace pkram

#endif  // TESTS_METADATA_PAGES_H_
