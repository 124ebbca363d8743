#include "pkram/walk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "pkram/link_list.h"
#include "pkram/parallel.h"

namespace pkram {

using format::EntryFlags;
using format::EntryOrder;
using format::EntryPfn;
using format::IsHole;
using format::kLinkEntries;

// How the lists of the format differ.
struct Walk::ListRules {
  bool live = false;            // aligned links, order 0, holes; else contiguous runs
  bool dense = false;           // no gap between links, starting at 0
  bool holes_carry = false;     // a hole has a payload
  bool sharing = false;         // several entries may refer to a page
  bool skip = false;            // what is wrong with one entry is passed over
  bool may_be_short = false;    // the first link may stand in the object's own page
  uint64_t end = ~uint64_t{0};  // indexes at or beyond are garbage, not looked at
  // If a list has more than `now` links, the others are added here, and their entries are not
  // looked at.
  std::vector<Pfn>* later = nullptr;
  uint64_t now = 0;
};

Walk::Walk(const PageView* view, PageMap* map, WalkClient* client, Mode mode, WalkPieces pieces)
    : view_(view), map_(map), client_(client), mode_(mode), pieces_(pieces) {
  if (mode == Mode::kFindAll) pieces_.threads = 1;
  if (pieces_.threads == 0) pieces_.threads = Processors();
}

bool Walk::Fail(Pfn page, std::string what) {
  std::string where = where_;
  if (object_ != kNoObject) where = absl::StrCat("object ", object_, " of ", where_);
  if (!where.empty()) absl::StrAppend(&where, ": ");
  absl::StrAppend(&where, what);
  // The problem is named with the structure that led here.
  if (sealed_by_ && sealed_by_ != page) {
    absl::StrAppend(&where, " (sealed with page ", sealed_by_.value(), ")");
  }
  problems_.push_back({page, std::move(where)});
  return false;
}

void Walk::ToClient(Pfn page, std::string what) {
  if (!what.empty()) Fail(page, std::move(what));
}

// True when the structure fits its seal, or has none.
bool Walk::CheckSeal(uint64_t seal_word, uint64_t word_offset, const SealSum& sum) {
  if (seal_word == 0) {
    if (mode_ == Mode::kSeal) seals_.push_back({word_offset, sum.Word()});
    return true;
  }
  if (seal_word == sum.Word()) return true;
  return Fail(Pfn(word_offset >> kPageShift),
              "was changed since it was sealed (checksum mismatch)");
}

// Claims pages, as PageMap does.  Returns how many, from the first on, nothing else owns.
inline uint64_t Walk::Claim(PageRun run, Purpose purpose, bool shared) {
  if (sharing_ == nullptr) {
    return shared ? map_->ClaimShared(run, &tally_) : map_->Claim(run, purpose, &tally_);
  }
  if (!shared) return map_->ClaimAmongOthers(run, purpose, &tally_) ? run.count : 0;
  MutexLock lock(sharing_);
  return map_->ClaimShared(run, &tally_);
}

inline bool Walk::ClaimRun(Pfn first, uint64_t count, Pfn from, Purpose purpose, bool shared) {
  const uint64_t pages = view_->existing();
  if (first.value() < pages && count <= pages - first.value()) [[likely]] {
    const uint64_t claimed = Claim({first, count}, purpose, shared);
    return claimed == count || Contest({first + claimed, count - claimed}, from);
  }
  const uint64_t beyond = std::max(first.value(), pages);
  return Fail(from, absl::StrCat("points at page ", beyond, ", which is beyond the end (", pages,
                                 " pages)"));
}

// Whether the walk of the list goes on.
bool Walk::Contest(PageRun contested, Pfn from) {
  contested_.push_back(contested);
  if (object_ == kNoObject || !std::exchange(disputed_, true)) {
    Fail(from, absl::StrCat("points at page ", contested.first.value(),
                            ", which something else already owns"));
  }
  // Goes on, because the object's seal may say that the other one is wrong.  But not without a
  // bound: many objects may contest the same pages, in a file that is large and holds little.
  contested_pages_ += contested.count;
  return mode_ == Mode::kFindAll && object_ != kNoObject && sealed_by_ &&
         contested_pages_ <= std::min(view_->existing(), kLinkEntries * links_);
}

bool Walk::ClaimMetadata(uint64_t entry, Pfn from, const char* what) {
  if (EntryFlags(entry) != 0 || EntryOrder(entry) != 0 || !EntryPfn(entry)) {
    return Fail(from, absl::StrCat("its pointer to ", what, " is malformed"));
  }
  return ClaimRun(EntryPfn(entry), 1, from, Purpose::kMetadata);
}

// Looks at the entries of the link that `word` leads to, of which the first has `*index`, and moves
// that behind the last.  on_entries(index, entry, count, link's pfn) sees those that are not
// unused: `count` of them at once, whose pages follow one another; false from it ends the walk of
// this list.
template <typename OnEntries>
bool Walk::WalkEntries(uint64_t word, const ListRules& rules, uint64_t* next_index,
                       OnEntries on_entries) {
  const LinkRef link = LinkAt(*view_, word);
  const Pfn pfn = EntryPfn(word);
  uint64_t index = *next_index;
  bool ended = false;
  for (uint64_t i = 0, count = 1; i < link.size; i += count) {
    const uint64_t entry = link->entry[i];
    count = 1;
    if (rules.live && index >= rules.end) {
      for (uint64_t k = link.size; k > i; --k) {
        if (link->entry[k - 1] == 0) continue;
        const uint64_t at = offsetof(format::Link, entry) + (k - 1) * sizeof(uint64_t);
        repairs_.push_back({format::LinkOffset(word) + at, 0});
      }
      break;
    }
    if (entry == 0) {
      ended = true;
      if (rules.live) ++index;
      continue;
    }
    if (ended) {
      Fail(pfn, absl::StrCat("entry ", i, " stands behind the link's end"));
      if (!rules.skip) return false;
      ended = false;
    }
    const bool page = EntryPfn(entry) && entry == format::MakeEntry(EntryPfn(entry));
    const uint64_t order = page ? 0 : EntryOrder(entry);
    const bool hole = !page && IsHole(entry);
    const uint64_t flags = hole ? format::kHole : rules.sharing ? format::kShared : 0;
    if (!page && ((EntryFlags(entry) & ~flags) != 0 || order > format::kMaxOrder ||
                  (rules.live && order != 0) || (hole && !rules.live) ||
                  (hole && !rules.holes_carry && EntryPfn(entry)) || (!hole && !EntryPfn(entry)))) {
      Fail(pfn, absl::StrCat("entry ", i, " is malformed"));
      if (!rules.skip) return false;
      ++index;
      continue;
    }
    if (order == 0 && !hole) {
      // The next word is this one's successor: its flags and its order are the same.
      const uint64_t most = std::min(link.size - i, rules.end - index);
      while (count < most && link->entry[i + count] == entry + format::MakeEntry(Pfn(count))) {
        ++count;
      }
    }
    if (!on_entries(index, entry, count, pfn)) return false;
    const uint64_t step = count << order;
    if (index > ~uint64_t{0} - step) return Fail(pfn, "its indexes overflow");
    index += step;
  }
  *next_index = index;
  return true;
}

// Walks a list of links, whose head is the word at `head_offset`.
template <typename OnEntries>
bool Walk::WalkList(uint64_t head, uint64_t head_offset, const ListRules& rules, SealSum* seal,
                    OnEntries on_entries) {
  Pfn from(head_offset >> kPageShift);
  uint64_t next_index = 0, links = 0;
  for (uint64_t word = head, word_offset = head_offset; word != 0; ++links) {
    const bool may_be_short = rules.may_be_short && links == 0;
    const bool is_short = may_be_short && word == format::MakeShort(from);
    const Pfn pfn = EntryPfn(word);
    const bool is_to_shorten =
        may_be_short && word == format::MakeToShorten(format::MakeEntry(pfn));
    if (is_to_shorten) word = format::MakeEntry(pfn);
    // Whether a link is garbage is said by its index; to read that, its page
    // has to be in bounds, but it may be owned by another by now.
    if ((is_short || (EntryFlags(word) == 0 && EntryOrder(word) == 0)) && pfn &&
        pfn.value() < view_->existing() && rules.live && rules.end != ~uint64_t{0} &&
        (is_short ? 0 : LinkAt(*view_, word)->index) >= rules.end) {
      repairs_.push_back({word_offset, 0});
      return true;
    }
    if (!is_short && !ClaimMetadata(word, from, "a link")) return false;
    const LinkRef link = LinkAt(*view_, word);
    const uint64_t first_index = link->index;
    const bool aligned =
        is_short ? first_index == 0 : !rules.live || first_index % kLinkEntries == 0;
    if (!aligned || first_index < next_index || (rules.dense && first_index != next_index)) {
      return Fail(pfn, absl::StrCat("link's index ", first_index,
                                    aligned ? " is out of order" : " is not aligned"));
    }
    if (is_to_shorten) {
      if (first_index != 0 || link->entry[format::kShortLinkEntries] != 0) {
        return Fail(pfn, "is to be made short, and holds too much for that");
      }
      to_shorten_.push_back(from);
    }
    if (!is_short) nodes_.back().link_pages++;
    if (!disputed_) ++links_;
    // The object's own page is covered already.
    if (seal != nullptr && !is_short) seal->Add(link.link, kPageSize);
    uint64_t index = first_index;
    if (rules.later != nullptr && !is_short && links >= rules.now && first_index < rules.end &&
        rules.end - first_index >= kLinkEntries) {
      rules.later->push_back(pfn);
      index += kLinkEntries;
    } else if (!WalkEntries(word, rules, &index, on_entries)) {
      return false;
    }
    next_index = rules.live ? first_index + kLinkEntries : index;
    // What something else owns may be this list itself: it must come to an end.
    if (disputed_ && index == first_index) return false;
    if (next_index < first_index) return Fail(pfn, "its indexes overflow");
    from = pfn;
    word_offset = format::LinkOffset(word) + offsetof(format::Link, next);
    word = link->next;
  }
  return true;
}

Walk::ListRules Walk::PageRules(const format::Node& node, const format::Object& object) {
  const bool live = node.state != format::kSaved;
  ListRules rules;
  rules.live = live;
  rules.sharing = live && (object.header.flags & format::kPagesAreMetadata) == 0;
  // Its seal is the object's, if that covers the whole page.
  rules.may_be_short = rules.sharing && object.header.client_bytes == format::kObjectClientBytes;
  if (live) rules.end = object.header.allocated_end;
  return rules;
}

// Claims the pages of `count` entries of an object's list, and adds them to `*pages`.
inline bool Walk::ClaimPages(uint64_t entry, uint64_t count, Pfn link, Pages* pages) {
  const uint64_t claims = count << EntryOrder(entry);
  const bool shared = format::IsShared(entry);
  const uint64_t before = tally_.data;
  const bool ok = ClaimRun(EntryPfn(entry), claims, link, Purpose::kData, shared);
  pages->listed += claims;
  // What a piece claims for itself is tallied later.
  pages->claimed += sharing_ != nullptr && !shared ? claims : tally_.data - before;
  return ok;
}

// The same of all of a link's entries, which are below the object's allocated end.
bool Walk::ClaimPagesOf(const format::Node& node, const format::Object& object, Pfn link,
                        Pages* pages) {
  uint64_t index = view_->At<format::Link>(link)->index;
  return WalkEntries(format::MakeEntry(link), PageRules(node, object), &index,
                     [&](uint64_t, uint64_t entry, uint64_t count, Pfn) {
                       return IsHole(entry) || ClaimPages(entry, count, link, pages);
                     });
}

bool Walk::WalkObject(const format::Node& node, uint64_t index, Pfn pfn) {
  const auto& object = *view_->At<format::Object>(pfn);
  const format::ObjectHeader& header = object.header;
  const bool live = node.state != format::kSaved;
  object_ = index;  // a million times, and said once at most
  disputed_ = false;
  sealed_by_ = header.seal != 0 ? pfn : Pfn();
  if (header.client_bytes > format::kObjectClientBytes) {
    return Fail(pfn, absl::StrCat("claims ", header.client_bytes, " bytes of its own page"));
  }
  if ((header.flags & ~(format::kPagesAreMetadata | format::kBytesAreMetadata)) != 0) {
    return Fail(pfn, "has unknown flags");
  }
  const bool bytes_are_metadata = (header.flags & format::kBytesAreMetadata) != 0;
  if (bytes_are_metadata && header.bytes_len > format::kMaxMetadataBytes) {
    return Fail(pfn, absl::StrCat("claims ", header.bytes_len, " bytes of metadata"));
  }
  SealSum sum;
  SealSum* const seal = Wanted(header.seal) ? &sum : nullptr;
  if (seal != nullptr) seal->AddObject(object);

  NodeCounts& counts = nodes_.back();
  const size_t repairs_before = repairs_.size();
  Pages pages;
  const uint64_t links_before = counts.link_pages;
  std::vector<WalkedPage> metadata;
  const bool pages_are_metadata = (header.flags & format::kPagesAreMetadata) != 0;
  std::vector<Pfn> later;
  ListRules page_rules = PageRules(node, object);
  if (sharing_ != nullptr && live && !pages_are_metadata) {
    page_rules.later = &later;
    page_rules.now = pieces_.links;
  }
  const uint64_t head_offset = pfn.offset() + offsetof(format::ObjectHeader, pages);
  if (!WalkList(header.pages, head_offset, page_rules, seal,
                [&](uint64_t at, uint64_t entry, uint64_t n, Pfn link) {
                  if (IsHole(entry)) return true;
                  if (!ClaimPages(entry, n, link, &pages)) return false;
                  const Pfn first = EntryPfn(entry);
                  for (uint64_t i = 0; pages_are_metadata && i < n; ++i) {
                    metadata.push_back({at + i, view_->At(first + i), first + i});
                    if (seal != nullptr) seal->Add(view_->At(first + i), kPageSize);
                  }
                  return true;
                })) {
    return false;
  }
  counts.data_pages += pages.claimed;
  const uint64_t links = counts.link_pages - links_before;

  std::string bytes;
  uint64_t byte_pages = 0;
  const Purpose purpose = bytes_are_metadata ? Purpose::kMetadata : Purpose::kData;
  const ListRules byte_rules{.dense = true};
  if (!WalkList(header.bytes, pfn.offset() + offsetof(format::ObjectHeader, bytes), byte_rules,
                seal, [&](uint64_t, uint64_t entry, uint64_t n, Pfn link) {
                  const Pfn first = EntryPfn(entry);
                  const uint64_t count = n << EntryOrder(entry);
                  if (bytes_are_metadata && count > PagesFor(header.bytes_len) - byte_pages) {
                    return Fail(link, "holds more pages than the bytes need");
                  }
                  if (bytes_are_metadata && EntryOrder(entry) != 0) {
                    return Fail(link, "has an order in a stream of metadata");
                  }
                  if (!ClaimRun(first, count, link, purpose)) return false;
                  byte_pages += count;
                  for (uint64_t i = 0; bytes_are_metadata && i < count; ++i) {
                    const auto* text = view_->At<char>(first + i);
                    bytes.append(text, kPageSize);
                    if (seal != nullptr) seal->Add(text, kPageSize);
                  }
                  return true;
                })) {
    return false;
  }
  counts.byte_pages += byte_pages;
  if (PagesFor(header.bytes_len) != byte_pages) {
    return Fail(pfn, absl::StrCat("says that it has ", header.bytes_len, " bytes, but has ",
                                  byte_pages, " pages for them"));
  }
  if (bytes_are_metadata) bytes.resize(header.bytes_len);

  // What will be repaired is not sealed; a seal goes before the repairs come.
  const uint64_t seal_offset = pfn.offset() + offsetof(format::ObjectHeader, seal);
  const bool repaired = repairs_.size() > repairs_before;
  const WalkedObject walked{index, pfn, &object, links, pages.listed, metadata, bytes};
  const bool ask = live && client_ != nullptr;
  if ((header.seal != 0 || !repaired) && !CheckSeal(header.seal, seal_offset, sum)) {
    if (ask) client_->Changed(walked);
    return false;
  }
  if (header.seal != 0) ++counts.sealed;
  if (header.seal != 0 && repaired) {
    repairs_.insert(repairs_.begin() + static_cast<ptrdiff_t>(repairs_before), {seal_offset, 0});
  }
  if (!later.empty()) {
    unfinished_.push_back({index, pfn, links, pages, std::move(bytes), std::move(later)});
    return true;
  }
  if (!ask) return true;
  std::string what = client_->Object(walked);
  return what.empty() || Fail(pfn, std::move(what));
}

void Walk::WalkObjects(const format::Node& node, Pfn pfn) {
  const bool live = node.state != format::kSaved;
  SealSum sum;
  SealSum* const seal = Wanted(node.seal) ? &sum : nullptr;
  if (seal != nullptr) seal->AddNode(node);
  sealed_by_ = node.seal != 0 ? pfn : Pfn();
  const ListRules rules{
      .live = live, .dense = true, .holes_carry = true, .skip = mode_ == Mode::kFindAll};
  std::vector<std::pair<uint64_t, Pfn>> objects;
  absl::flat_hash_map<Pfn, uint64_t> doubted;  // which index claimed it, too
  if (!WalkList(node.objects, pfn.offset() + offsetof(format::Node, objects), rules, seal,
                [&](uint64_t index, uint64_t entry, uint64_t n, Pfn link) {
                  if (IsHole(entry)) {
                    if (client_ != nullptr && live) {
                      ToClient(link, client_->Hole(index, EntryPfn(entry).value()));
                    }
                    return !Stopped();
                  }
                  if (EntryOrder(entry) != 0) {
                    return Fail(link, "points at an object with an order") || rules.skip;
                  }
                  // One by one where all problems are to be found: one says nothing of others.
                  const uint64_t step = rules.skip ? 1 : n;
                  for (uint64_t i = 0; i < n; i += step) {
                    if (!ClaimRun(EntryPfn(entry) + i, step, link, Purpose::kMetadata)) {
                      if (!rules.skip) return false;
                      doubted.emplace(EntryPfn(entry) + i, index + i);
                      continue;
                    }
                    for (uint64_t k = i; k < i + step; ++k) {
                      objects.emplace_back(index + k, EntryPfn(entry) + k);
                    }
                  }
                  return true;
                }) &&
      mode_ == Mode::kStopAtFirst) {
    return;
  }
  // Now, as what an object is said to be may be nothing of the kind.
  if (!CheckSeal(node.seal, pfn.offset() + offsetof(format::Node, seal), sum) && Stopped()) return;
  sealed_by_ = Pfn();
  nodes_.back().objects = objects.size();
  if (client_ != nullptr && live) {
    ToClient(pfn, client_->BeginObjects(objects.empty() ? 0 : objects.back().first + 1));
    if (Stopped()) return;
  }
  if (pieces_.threads > 1) {
    WalkInPieces(node, objects);
    return;
  }
  for (const auto& [index, object] : objects) {
    // A seal says that it is an object, not which one.
    if (const auto other = doubted.find(object); other != doubted.end()) {
      object_ = index;
      Fail(object, absl::StrCat("its page is object ", other->second, "'s, too"));
      if (client_ != nullptr && live) client_->Damaged(index, object, problems_.back().what);
      continue;
    }
    if (WalkObject(node, index, object)) continue;
    if (Stopped()) return;
    if (client_ != nullptr && live) client_->Damaged(index, object, problems_.back().what);
  }
  object_ = kNoObject;
  disputed_ = false;
  sealed_by_ = Pfn();
}

void Walk::WalkNode(const format::Node& node, Pfn pfn) {
  where_ = "node";
  if (std::memchr(node.name, 0, sizeof(node.name)) == nullptr || node.name[0] == 0) {
    Fail(pfn, "its name is not a name");
    return;
  }
  where_ = absl::StrCat("node '", node.name, "'");
  NodeCounts counts;
  counts.name = node.name;
  counts.pfn = pfn;
  counts.state = node.state;
  counts.node_sealed = node.seal != 0;
  if (const auto [other, fresh] = names_.emplace(counts.name, pfn); !fresh) {
    Fail(pfn, absl::StrCat("has the same name as the node on page ", other->second.value()));
    return;
  }
  nodes_.push_back(counts);
  if (node.state != format::kSaved && node.state != format::kLive) {
    Fail(pfn, absl::StrCat("has the unknown state ", node.state));
    if (Stopped()) return;  // else as a live one, of which there is more to find
  }
  const bool ask = node.state != format::kSaved && client_ != nullptr;
  if (ask) ToClient(pfn, client_->BeginNode(node));
  if (Stopped()) return;
  WalkObjects(node, pfn);
  if (Stopped()) return;
  if (ask) ToClient(pfn, client_->EndNode(node));
}

void Walk::Run(const format::SuperBlock& super) {
  RunOnce(super);
  if (!problems_.empty() && pieces_.threads > 1) {
    *map_ = PageMap(map_->pages());
    *this = Walk(view_, map_, client_, mode_, {.threads = 1});
    RunOnce(super);
  }
  map_->Add(tally_);
}

void Walk::RunNode(Pfn node) {
  if (ClaimMetadata(format::MakeEntry(node), Pfn(0), "a node")) {
    const format::Node copy = *view_->At<format::Node>(node);  // the client may forget its page
    WalkNode(copy, node);
  }
  map_->Add(tally_);
}

void Walk::RunOnce(const format::SuperBlock& super) {
  map_->Claim({Pfn(0), 1}, Purpose::kMetadata, &tally_);
  map_->Claim({Pfn(super.journal_first), super.journal_slots}, Purpose::kMetadata, &tally_);
  SealSum sum;
  sum.AddSuper(super);
  where_ = "the super block";
  if (super.seal != 0 && !CheckSeal(super.seal, offsetof(format::SuperBlock, seal), sum) &&
      Stopped()) {
    return;
  }
  Pfn from(0);
  for (uint64_t word = super.nodes; word != 0 && !Stopped();) {
    where_.clear();
    sealed_by_ = Pfn();
    if (!ClaimMetadata(word, from, "a node")) return;
    from = EntryPfn(word);
    const auto& node = *view_->At<format::Node>(from);
    WalkNode(node, from);
    word = node.next;
  }
  if (super.seal == 0) CheckSeal(0, offsetof(format::SuperBlock, seal), sum);
}

}  // namespace pkram
