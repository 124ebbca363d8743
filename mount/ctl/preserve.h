// pkramctl preserve, unpreserve: a region in a memfd is to cross a kexec.
#ifndef MOUNT_CTL_PRESERVE_H_
#define MOUNT_CTL_PRESERVE_H_

#include <optional>
#include <string>

namespace pkramfs {

// The version of the systemd that runs here; and since which one brings sessions over a kexec.
std::optional<int> SystemdVersion();
inline constexpr int kSystemdSince = 261;

// `given`: what the user calls the region.  They return the exit status.

// Preserves it, mounted or not, in a session that a process of its own holds.
int RunPreserve(const std::string& given);
// For the unit: does nothing unless systemd is about to kexec.  The session is systemd's.  If the
// region cannot be preserved, calls the kexec off.
int RunPreserveIfKexec(const std::string& given);
int RunUnpreserve(const std::string& given);

// Says what a kexec takes that hands memory over, one thing a line.  `given` may be empty.
int RunPreserveCheck(const std::string& given);

}  // namespace pkramfs

#endif  // MOUNT_CTL_PRESERVE_H_
