// Handlers for names: look up, make, link, remove, rename, list; and for what the kernel forgets.
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <vector>

#include "mount/serve/caller.h"
#include "mount/serve/handlers.h"
#include "mount/serve/request.h"

namespace pkramfs::serve {

void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  const Result<Attr> found = Begin(req, Request::kLookup)->Lookup(parent, name);
  if (!found.ok() && found.error() == ENOENT) {
    fuse_entry_param nothing{};
    nothing.entry_timeout = kForever;
    fuse_reply_entry(req, &nothing);
    return;
  }
  ReplyEntry(req, found);
}

void Forget(fuse_req_t req, fuse_ino_t ino, uint64_t count) {
  Begin(req, Request::kForget)->Forget(ino, count);
  fuse_reply_none(req);
}

void ForgetMulti(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  Filesystem* const fs = Begin(req, Request::kForget);
  for (size_t i = 0; i < count; ++i) fs->Forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(req);
}

void MakeNode(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  Filesystem* const fs = Begin(req, Request::kMakeNode);
  ReplyEntry(req, fs->MakeNode(ContextOf(req), parent, name, mode, FromDevice(rdev)));
}

void MakeDirectory(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  Filesystem* const fs = Begin(req, Request::kMakeDirectory);
  ReplyEntry(req, fs->MakeDirectory(ContextOf(req), parent, name, mode));
}

void MakeSymlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kSymlink);
  ReplyEntry(req, fs->MakeSymlink(ContextOf(req), parent, name, target));
}

void Link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kLink);
  ReplyEntry(req, fs->Link(ContextOf(req), ino, parent, name));
}

void Unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kUnlink);
  ReplyStatus(req, fs->Unlink(ContextOf(req), parent, name));
}

void RemoveDirectory(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Filesystem* const fs = Begin(req, Request::kRemoveDirectory);
  ReplyStatus(req, fs->RemoveDirectory(ContextOf(req), parent, name));
}

void Rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags) {
  Filesystem* const fs = Begin(req, Request::kRename);
  ReplyStatus(req, fs->Rename(ContextOf(req), parent, name, new_parent, new_name, flags));
}

void ReadLink(fuse_req_t req, fuse_ino_t ino) {
  const Result<std::string> target = Begin(req, Request::kReadLink)->ReadLink(ino);
  if (!target.ok()) {
    ReplyError(req, target.error());
    return;
  }
  fuse_reply_readlink(req, (*target).c_str());
}

namespace {

struct Listed {
  std::string name;
  Ino ino;
  uint32_t type;
  uint64_t cookie;
};

// The most entries that a buffer of `size` bytes can hold.
Result<std::vector<Listed>> List(Filesystem* fs, Ino ino, uint64_t cookie, size_t size) {
  std::vector<Listed> entries;
  size_t used = 0;
  const Result<void> listed = fs->ReadDirectory(ino, cookie, [&](const DirEntry& e) {
    entries.push_back({std::string(e.name), e.ino, e.type, e.cookie});
    used += 24 + e.name.size();  // the least that an entry takes
    return used < size;
  });
  if (!listed.ok()) return listed.as_errno();
  return entries;
}

}  // namespace

void ReadDirectory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kReadDirectory);
  const auto entries = List(fs, ino, static_cast<uint64_t>(offset), size);
  if (!entries.ok()) {
    ReplyError(req, entries.error());
    return;
  }
  std::vector<char> buffer(size);
  size_t used = 0;
  for (const Listed& e : *entries) {
    struct stat st {};
    st.st_ino = e.ino;
    st.st_mode = e.type << 12;
    const size_t n = fuse_add_direntry(req, buffer.data() + used, size - used, e.name.c_str(), &st,
                                       static_cast<off_t>(e.cookie));
    if (n > size - used) break;
    used += n;
  }
  fuse_reply_buf(req, buffer.data(), used);
}

// Looks each name up after the list was made.  Names that are gone by then are left out.
void ReadDirectoryPlus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  Filesystem* const fs = Begin(req, Request::kReadDirectoryPlus);
  const auto entries = List(fs, ino, static_cast<uint64_t>(offset), size);
  if (!entries.ok()) {
    ReplyError(req, entries.error());
    return;
  }
  std::vector<char> buffer(size);
  std::vector<Ino> looked_up;
  size_t used = 0;
  for (const Listed& e : *entries) {
    fuse_entry_param entry{};
    const bool dots = e.name == "." || e.name == "..";
    if (dots) {
      entry.attr.st_ino = e.ino;
      entry.attr.st_mode = S_IFDIR;
    } else {
      const Result<Attr> found = fs->Lookup(ino, e.name);
      if (!found.ok()) continue;
      entry = ToEntry(*found);
      looked_up.push_back(entry.ino);
    }
    const size_t n = fuse_add_direntry_plus(req, buffer.data() + used, size - used, e.name.c_str(),
                                            &entry, static_cast<off_t>(e.cookie));
    if (n > size - used) {
      if (!dots) {
        fs->Forget(entry.ino, 1);
        looked_up.pop_back();
      }
      break;
    }
    used += n;
  }
  if (fuse_reply_buf(req, buffer.data(), used) == -ENOENT) {
    for (const Ino child : looked_up) fs->Forget(child, 1);
  }
}

}  // namespace pkramfs::serve
