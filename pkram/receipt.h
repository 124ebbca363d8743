// A receipt says how far a request got, so that a successor can answer it when the process that
// executed it has died.
//
// A receipt lives in memory that outlives the process.  It goes with one transaction, or with
// several of which each takes the request a step further.  It need not be stored atomically with
// the transaction: a process that dies has made its stores up to some point, and none after it. The
// journal's slot says whether that point was before or after the commit.
#ifndef PKRAM_RECEIPT_H_
#define PKRAM_RECEIPT_H_

#include <cstdint>

namespace pkram {

struct Receipt {
  uint64_t committing = 0;  // 1 + the slot of the transaction that is being made; 0: none is
  uint64_t next = 0;        // the answer when it has been
  uint64_t done = 0;        // 1 when one has been made
  uint64_t answer = 0;      // of the last that was: the caller's, not the journal's matter
};

}  // namespace pkram

#endif  // PKRAM_RECEIPT_H_
