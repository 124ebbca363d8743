/* Reading files of a pkramfs without a copy. */
#ifndef MOUNT_LIBRARY_PKRAMFS_H_
#define MOUNT_LIBRARY_PKRAMFS_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* What a mapping is of. */
enum {
  PKRAMFS_OWN_PAGES = 1, /* the region's own pages: nothing was copied */
  PKRAMFS_ORDINARY = 2   /* mmap's, of the kernel's page cache */
};

/* Maps `length` bytes of an open file from `offset` on, for reading; 0: to its end.  `offset` is a
 * multiple of the page size.  The bytes are those of now, and stay so: whoever writes to the file,
 * or deletes it, leaves these pages alone.  `*how` (which may be NULL) says what it is:
 * PKRAMFS_ORDINARY, where mappings show what is written later, if the file has no pages that this
 * caller may hold: it is on another filesystem, is very small, or is in too many pieces (of one
 * region, 4096 may be mapped at a time), or the caller is neither root nor who has mounted it.
 * pkramfs_why says what it was.
 *
 * MAP_FAILED, and errno as mmap and open set it; EINVAL: nothing is there to map.  It is the
 * caller's, until pkramfs_unmap.  A child has it, too.  Thread-safe. */
void* pkramfs_map(int fd, uint64_t offset, size_t length, int* how);

/* Why the last mapping that this thread made is PKRAMFS_ORDINARY: a sentence, which is never freed;
 * or "". */
const char* pkramfs_why(void);

/* Ends a mapping, all of it.  -1, and errno EINVAL, if it is none. */
int pkramfs_unmap(void* address);

/* How many bytes it has; 0 if it is none. */
size_t pkramfs_length(const void* address);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif  // MOUNT_LIBRARY_PKRAMFS_H_
