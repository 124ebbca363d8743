#!/usr/bin/env bash
# What README and docs/ tell people to type works: each block that begins with ```sh run
#   docs_test.sh DIRECTORY_OF_PROGRAMS
# Each runs in mounts of its own: an empty /dev/shm and /srv, the programs where they are installed,
# and a directory with the trees that the pages name.  Unless the block begins with a mount,
# cache.pkram is mounted on /srv/cache.
set -euo pipefail
bin=$(cd "$1" && pwd)
top=$(cd "$(dirname "$0")/.." && pwd)
[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "no root or /dev/fuse: not tried"; exit 0; }
work=$(mktemp -d /tmp/pkramfs-docs-XXXXXX)
trap 'rm -rf "$work"' EXIT
blocks=0
# A script for each block: README.md.1, ...
cd "$top"
for page in README.md docs/*.md; do
  awk -v to="$work/$(basename "$page")" '
    /^```sh run$/ { on = 1; file = to "." ++n; next }
    /^```/ { on = 0 }
    on { print >file }' "$page"
done
cd "$work"
cp -a /usr/sbin sbin
for name in pkramfs pkramctl mkfs.pkramfs fsck.pkramfs; do ln -sf "$bin/$name" sbin/; done
ln -sf "$bin/pkramfs" sbin/mount.fuse.pkramfs
cat >run <<'RUN'
set -eu
mount --bind sbin /usr/sbin
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /srv
mount -t tmpfs tmpfs /var/lib
mkdir -p /srv/cache /var/lib/pkramfs trees/v7 trees/v8 trees/image
for tree in trees/*; do echo "$tree" >"$tree/file"; head -c 100000 /dev/zero >"$tree/large"; done
cd trees
PATH=/usr/sbin:$PATH
# Mounts that came along from outside are not seen here.  What is mounted here ends with the block,
# however that goes.
# (Those of other tests may go meanwhile.)
findmnt -n -t fuse.pkramfs -o TARGET | tac | xargs -r umount -l || true
unmount() { findmnt -n -t fuse.pkramfs -o TARGET | tac | xargs -r umount "$@"; }
trap 'unmount -l' EXIT
head -n 1 "$1" | grep -q '^mount ' || mount -t fuse.pkramfs cache.pkram /srv/cache -o size=64m
set -x
. "$1"
set +x
unmount
for region in /dev/shm/*; do flock -w 60 "$region" true; fsck.pkramfs "$region" || exit; done
RUN
failed=0
for script in ./*.md.*; do
  blocks=$((blocks + 1))
  rm -rf trees
  if ! unshare --mount --propagation private bash run "$PWD/$script" >log 2>&1; then
    echo "a block of ${script#./} does not work:"
    tail -n 15 log
    failed=1
  fi
done
echo "$blocks blocks were tried"
[ $blocks -ge 5 ] || failed=1
exit $failed
