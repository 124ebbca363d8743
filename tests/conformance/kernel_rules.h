// What a kernel rules for all filesystems, and another kernel otherwise: seen on this host's tmpfs.
#ifndef TESTS_CONFORMANCE_KERNEL_RULES_H_
#define TESTS_CONFORMANCE_KERNEL_RULES_H_

#include <string>

namespace pkramfs {

// Linux 7.3, and not 6.18.
bool SocketsHaveUserAttributes();

// Where a security module asks nobody else, as Debian's Linux 6.1 has one (bpf).
bool AnybodySetsSecurityAttributes();

}  // namespace pkramfs

#endif  // TESTS_CONFORMANCE_KERNEL_RULES_H_
