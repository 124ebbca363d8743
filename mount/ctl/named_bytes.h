// pkramctl put, get and rm: bytes that a region keeps under a name.
#ifndef MOUNT_CTL_NAMED_BYTES_H_
#define MOUNT_CTL_NAMED_BYTES_H_

#include <string>

namespace pkramfs {

// Each opens the region for a change, makes it, seals the region again, and returns the exit
// status. Saves standard input.
int RunPut(const std::string& region, const std::string& name);
// Writes what was saved to standard output.  The region keeps it.
int RunGet(const std::string& region, const std::string& name);
// Removes a name and all that it holds.
int RunRemove(const std::string& region, const std::string& name);

}  // namespace pkramfs

#endif  // MOUNT_CTL_NAMED_BYTES_H_
