// The functions that answer requests.  Each decodes its request, makes one call into the
// filesystem, and sends one reply.  libfuse calls them, on the thread that received the request.
#ifndef MOUNT_SERVE_HANDLERS_H_
#define MOUNT_SERVE_HANDLERS_H_

#include <fuse_lowlevel.h>

namespace pkramfs::serve {

// names.cc
void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name);
void Forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void ForgetMulti(fuse_req_t req, size_t count, fuse_forget_data* forgets);
void MakeNode(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev);
void MakeDirectory(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode);
void MakeSymlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name);
void Link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name);
void Unlink(fuse_req_t req, fuse_ino_t parent, const char* name);
void RemoveDirectory(fuse_req_t req, fuse_ino_t parent, const char* name);
void Rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags);
void ReadLink(fuse_req_t req, fuse_ino_t ino);
void ReadDirectory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*);
void ReadDirectoryPlus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*);

// attributes.cc
void GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*);
void SetAttr(fuse_req_t req, fuse_ino_t ino, struct stat* st, int what, fuse_file_info*);
// Since libfuse 3.18.
void AddStatx(fuse_lowlevel_ops* ops);
void StatFs(fuse_req_t req, fuse_ino_t);
void GetXattr(fuse_req_t req, fuse_ino_t ino, const char* name, size_t size);
void ListXattrs(fuse_req_t req, fuse_ino_t ino, size_t size);
void SetXattr(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value, size_t size,
              int flags);
void RemoveXattr(fuse_req_t req, fuse_ino_t ino, const char* name);

// contents.cc
void Create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi);
// Since libfuse 3.17.
void MakeTemporary(fuse_req_t req, fuse_ino_t parent, mode_t mode, fuse_file_info* fi);
void Open(fuse_req_t req, fuse_ino_t, fuse_file_info*);
void OpenDirectory(fuse_req_t req, fuse_ino_t, fuse_file_info* fi);
void Flush(fuse_req_t req, fuse_ino_t, fuse_file_info*);
void Fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*);
void FsyncDirectory(fuse_req_t req, fuse_ino_t, int, fuse_file_info*);
void Release(fuse_req_t req, fuse_ino_t, fuse_file_info*);
void ReleaseDirectory(fuse_req_t req, fuse_ino_t, fuse_file_info*);
void Read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*);
void Write(fuse_req_t req, fuse_ino_t ino, const char* bytes, size_t size, off_t offset,
           fuse_file_info* fi);
void Fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
               fuse_file_info*);
void Seek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info*);
void CopyRange(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info*, fuse_ino_t to,
               off_t to_offset, fuse_file_info*, size_t size, int);

// ioctl.cc
void Ioctl(fuse_req_t req, fuse_ino_t, unsigned command, void*, fuse_file_info*, unsigned,
           const void* in, size_t in_size, size_t out_size);

}  // namespace pkramfs::serve

#endif  // MOUNT_SERVE_HANDLERS_H_
