#!/usr/bin/env bash
# What programs hold while servers are killed below them (KILLS=1): 10,000 open files, half of them
# deleted; watches of inotify; an overlayfs whose upper layer is here.
KILLS=1
. "$(dirname "$0")/lib.sh"
: "${FILES:=10000}"
cd "$MNT"
say "a process that holds $FILES open files"
python3 - "$FILES" "$TMP/kills" <<'EOF'
import os, resource, sys, time
count, kills = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
lines = lambda: sum(1 for _ in open(kills))
os.mkdir("held")
fds = []
for i in range(count):
    fds.append(os.open(f"held/{i}", os.O_RDWR | os.O_CREAT, 0o600))
    os.pwrite(fds[i], b"%d" % i, 0)
    if i % 2:
        os.unlink(f"held/{i}")
for turn in range(3):
    first = lines()
    while lines() < first + 3:
        time.sleep(0.01)
    for i, fd in enumerate(fds):
        assert os.pread(fd, 20, 0) == b"%d" % i + b"." * turn, i
        assert os.fstat(fd).st_nlink == (0 if i % 2 else 1), i
        os.pwrite(fd, b".", len(b"%d" % i) + turn)
EOF
say "each change is seen once by who watches"
python3 - "$TMP/kills" <<'EOF'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
lines = lambda: sum(1 for _ in open(sys.argv[1]))
os.mkdir("watched")
fd = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(fd, b"watched", 0x100 | 0x200 | 0x40 | 0x80) >= 0  # create, delete, moves
first, seen, made, i = lines(), [], [], 0
while lines() < first + 8:
    name = f"f{i}"
    os.close(os.open("watched/" + name, os.O_CREAT | os.O_WRONLY))
    os.rename("watched/" + name, "watched/r" + name)
    os.unlink("watched/r" + name)
    made += [(0x100, name), (0x40, name), (0x80, "r" + name), (0x200, "r" + name)]
    i += 1
    data = os.read(fd, 1 << 16)
    while data:
        _, mask, _, size = struct.unpack("iIII", data[:16])
        seen.append((mask, data[16:16 + size].rstrip(b"\0").decode()))
        data = data[16 + size:]
assert seen == made, (len(seen), len(made))
EOF
say "an overlay"
mkdir upper work "$TMP/lower" "$TMP/merged"
cp -r "$SOURCE/fs" "$TMP/lower/fs"
mount -t overlay -o "lowerdir=$TMP/lower,upperdir=$MNT/upper,workdir=$MNT/work" overlay "$TMP/merged"
finish() { umount -l "$TMP/merged"; }
from=$(kills)
for ((n = 0; $(kills) - from < 8; ++n)); do
  for file in "$TMP/merged/fs"/*; do echo "$n" >>"$file"; done
  cp -r "$TMP/merged/fs" "$TMP/merged/copy$n"
  diff -r "$TMP/merged/fs" "$TMP/merged/copy$n" || fail "the overlay's copy differs"
  mv "$TMP/merged/copy$n" "$TMP/merged/moved"
  rm -r "$TMP/merged/moved"
done
[ "$(tail -n 1 "$TMP/merged/fs/acl.h")" = $((n - 1)) ] || fail "the last line is missing"
umount "$TMP/merged"
cd /
