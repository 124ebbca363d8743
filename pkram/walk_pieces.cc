// A walk that is cut into pieces, for several threads.  Each piece is a walk of its own, which has
// the map of pages and the client in common with the others; what it finds is added to the whole
// walk in the order of the objects, so that nothing shows who was first.
#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>

#include "pkram/parallel.h"
#include "pkram/walk.h"

namespace pkram {

namespace {

template <typename T>
void Append(std::vector<T>* to, std::vector<T>* from) {
  to->insert(to->end(), std::make_move_iterator(from->begin()),
             std::make_move_iterator(from->end()));
}

uint64_t PiecesOf(uint64_t all, uint64_t each) { return (all + each - 1) / each; }

}  // namespace

Walk Walk::Piece() const {
  Walk piece(view_, map_, client_, mode_, pieces_);
  piece.sharing_ = sharing_;
  piece.nodes_.emplace_back();
  return piece;
}

// Marks what is claimed and is not marked yet.  False, and a problem, if something else owns it.
bool Walk::Settle() {
  return map_->Settle(&tally_) || Fail(Pfn(0), "something else owns a page of it");
}

void Walk::Absorb(Walk* piece) {
  Append(&problems_, &piece->problems_);
  Append(&repairs_, &piece->repairs_);
  Append(&to_shorten_, &piece->to_shorten_);
  Append(&seals_, &piece->seals_);
  Append(&unfinished_, &piece->unfinished_);
  NodeCounts& sum = nodes_.back();
  const NodeCounts& counts = piece->nodes_.back();
  sum.sealed += counts.sealed;
  sum.link_pages += counts.link_pages;
  sum.data_pages += counts.data_pages;
  sum.byte_pages += counts.byte_pages;
  tally_.pages += piece->tally_.pages;
  tally_.data += piece->tally_.data;
  tally_.bound = std::max(tally_.bound, piece->tally_.bound);
}

void Walk::WalkInPieces(const format::Node& node,
                        const std::vector<std::pair<uint64_t, Pfn>>& objects) {
  Mutex sharing;
  sharing_ = &sharing;
  std::atomic<bool> stop = false;
  std::vector<Walk> pieces(PiecesOf(objects.size(), pieces_.objects), Piece());
  InParallel(pieces_.threads, pieces.size(), [&](uint64_t i) {
    const uint64_t from = i * pieces_.objects;
    const uint64_t to = std::min<uint64_t>(from + pieces_.objects, objects.size());
    for (uint64_t k = from; k < to && !stop; ++k) {
      if (!pieces[i].WalkObject(node, objects[k].first, objects[k].second)) stop = true;
    }
    if (!pieces[i].Settle()) stop = true;
  });
  for (Walk& piece : pieces) Absorb(&piece);
  std::vector<Unfinished> unfinished = std::exchange(unfinished_, {});
  if (!stop && WalkLater(node, &unfinished) && node.state != format::kSaved && client_ != nullptr) {
    for (const Unfinished& it : unfinished) {
      ToClient(it.pfn, client_->Object({it.index,
                                        it.pfn,
                                        view_->At<format::Object>(it.pfn),
                                        it.links,
                                        it.pages.listed,
                                        {},
                                        it.bytes}));
    }
  }
  sharing_ = nullptr;
}

// The links that were left for later; false if something is wrong with one.
bool Walk::WalkLater(const format::Node& node, std::vector<Unfinished>* objects) {
  struct Links {
    Unfinished* of;
    uint64_t from;
    Pages pages;
  };
  std::vector<Links> links;
  for (Unfinished& object : *objects) {
    for (uint64_t from = 0; from < object.later.size(); from += pieces_.links) {
      links.push_back({&object, from, {}});
    }
  }
  std::atomic<bool> stop = false;
  std::vector<Walk> pieces(links.size(), Piece());
  InParallel(pieces_.threads, links.size(), [&](uint64_t i) {
    const Unfinished& object = *links[i].of;
    const uint64_t to = std::min<uint64_t>(links[i].from + pieces_.links, object.later.size());
    for (uint64_t k = links[i].from; k < to && !stop; ++k) {
      if (!pieces[i].ClaimPagesOf(node, *view_->At<format::Object>(object.pfn), object.later[k],
                                  &links[i].pages)) {
        stop = true;
      }
    }
    if (!pieces[i].Settle()) stop = true;
  });
  for (uint64_t i = 0; i < links.size(); ++i) {
    Absorb(&pieces[i]);
    links[i].of->pages.listed += links[i].pages.listed;
    nodes_.back().data_pages += links[i].pages.claimed;
  }
  return !stop;
}

}  // namespace pkram
