#!/usr/bin/env bash
# What `cmake --install` puts somewhere works from there: the library for other
# programs (CMake package, pkg-config), the programs, mount(8) and fstab.
#   install_test.sh BUILD_DIR CXX
set -euo pipefail
build=$(cd "$1" && pwd) cxx=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/pkramfs-install-XXXXXX)
region=/dev/shm/${work##*/}
trap 'rm -rf "$work" "$region"' EXIT
fail() { echo "install_test: $*" >&2; exit 1; }

DESTDIR=$work/root cmake --install "$build" --prefix /usr >"$work/log"
root=$work/root/usr
for file in bin/pkramfs bin/pkramctl sbin/mkfs.pkramfs sbin/fsck.pkramfs include/pkram/region.h \
            lib/udev/rules.d/60-pkramfs-dax.rules lib/systemd/system/pkramfs@.service \
            share/bash-completion/completions/pkramctl share/bash-completion/completions/pkramfs \
            share/bash-completion/completions/mkfs.pkramfs share/bash-completion/completions/fsck.pkramfs \
            share/zsh/vendor-completions/_pkramctl \
            share/fish/vendor_completions.d/{pkramctl,pkramfs,mkfs.pkramfs,fsck.pkramfs}.fish; do
  [ -e "$root/$file" ] || fail "$file is not installed"
done
while read -r helper program; do
  [ "$(readlink "$work/root/sbin/$helper")" = "/usr/$program" ] || fail "no $helper"
done <<'LINKS'
mount.fuse.pkramfs bin/pkramfs
mkfs.fuse.pkramfs sbin/mkfs.pkramfs
fsck.fuse.pkramfs sbin/fsck.pkramfs
LINKS
for page in man8/{pkramfs,pkramctl,mkfs.pkramfs,fsck.pkramfs}.8 man3/pkramfs_map.3; do
  page=$root/share/man/$page
  [ -e "$page" ] || fail "$page is not installed"
  ! command -v mandoc >/dev/null || mandoc -Tlint "$page" || fail "mandoc -Tlint $page"
  if command -v man >/dev/null; then
    warnings=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null || true)
    [ -z "$warnings" ] || fail "man --warnings $page: $warnings"
  fi
  version=$(sed -nE 's/^project\(pkramfs VERSION ([0-9.]+).*/\1/p' "$here/../CMakeLists.txt")
  head -n 1 "$page" | grep -qF "\"pkramfs $version\"" || fail "$page is of another version"
done
grep -q '^ExecStart=/.*/bin/pkramfs -f ' "$root/lib/systemd/system/pkramfs@.service" || fail "the unit"

# Each file is in a Debian package, and the packages want none that is not there.  (Libraries are in
# lib or lib/ARCHITECTURE, and the packages have the helpers in /usr/sbin.)
cd "$work/root"
sed 's|usr/lib/\*/|usr/lib*/|' "$here"/../debian/*.install | while read -r pattern; do
  find . ! -type d \( -path "./$pattern" -o -path "./$pattern/*" \) | grep . ||
    fail "debian: nothing is at $pattern"
done | sort -u >"$work/packaged"
find . ! -type d ! -path './sbin/*' | sort >"$work/installed"
cmp "$work/packaged" "$work/installed" || fail "debian: in no package: $(diff "$work/packaged" "$work/installed")"
cd "$work"

# Where /sbin is where the programs are, and again over what is there.
mkdir -p "$work/merged/usr/sbin"
ln -s usr/sbin "$work/merged/sbin"
for _ in 1 2; do DESTDIR=$work/merged cmake --install "$build" --prefix /usr >"$work/log"; done
[ -f "$work/merged/sbin/fsck.pkramfs" ] && [ ! -L "$work/merged/sbin/fsck.pkramfs" ] || fail "fsck.pkramfs"
[ -L "$work/merged/sbin/fsck.fuse.pkramfs" ] || fail "fsck.fuse.pkramfs"

echo "== a consumer, with CMake"
cmake -S "$here/consumer" -B "$work/consumer" -G Ninja -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_PREFIX_PATH="$root" >"$work/log" 2>&1 || { cat "$work/log"; fail "configure"; }
cmake --build "$work/consumer" >"$work/log" 2>&1 || { cat "$work/log"; fail "build"; }
[ "$("$work/consumer/consumer")" = "saved and loaded" ] || fail "the consumer"

echo "== a consumer, with pkg-config"
pc=$(dirname "$(find "$root" -name pkram.pc)")
flags=$(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs pkram)
# shellcheck disable=SC2086
"$cxx" -std=c++20 "$here/consumer/consumer.cc" -o "$work/with-pc" $flags
[ "$("$work/with-pc")" = "saved and loaded" ] || fail "the consumer"

[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "no root or /dev/fuse: mount(8) not tried"; exit 0; }
echo "== mount(8) and fstab"
# In a mount namespace whose /usr/sbin and /usr/bin have what was installed.
mkdir "$work/mnt"
cp -a /usr/sbin "$work/sbin"
ln -sf "$root/bin/pkramfs" "$work/sbin/mount.fuse.pkramfs"
for program in mkfs fsck; do
  ln -sf "$root/sbin/$program.pkramfs" "$work/sbin/$program.pkramfs"
  ln -sf "$root/sbin/$program.pkramfs" "$work/sbin/$program.fuse.pkramfs"
done
cp /etc/fstab "$work/fstab" 2>/dev/null || true
echo "${region##*/} $work/mnt fuse.pkramfs size=16m,nofail,x-systemd.automount 0 0" >>"$work/fstab"
cat >"$work/try" <<SH
set -eu
mount --bind "$work/sbin" /usr/sbin
[ -e /etc/fstab ] || touch /etc/fstab
mount --bind "$work/fstab" /etc/fstab
mount -t fuse.pkramfs ${region##*/} "$work/mnt" -o size=32m
echo through-mount >"$work/mnt/f"
grep -q " $work/mnt fuse.pkramfs " /proc/mounts
umount "$work/mnt"
mount "$work/mnt"
grep -q through-mount "$work/mnt/f"
umount "$work/mnt"
# What goes wrong is mount's status, too.
! mount -t fuse.pkramfs ${region##*/} "$work/mnt" -o nonsense 2>"$work/err"
grep -q "unknown option 'nonsense'" "$work/err"
mount -f -t fuse.pkramfs ${region##*/} "$work/mnt"
! grep -q " $work/mnt " /proc/mounts
mount -t fuse.pkramfs "$work" "$work/mnt" 2>"$work/err" && exit 1 || [ \$? = 32 ]
# mkfs(8) and fsck(8) find their helpers, and end with their statuses.
flock -w 300 $region true
mkfs -t pkramfs $region 2>"$work/err" && exit 1 || [ \$? = 1 ]
mkfs -t pkramfs -f $region -o size=16m
fsck -t pkramfs -a $region
fsck -t fuse.pkramfs $region
dd if=/dev/urandom of=$region bs=1 seek=40 count=4 conv=notrunc status=none
fsck -t pkramfs $region && exit 1 || [ \$? = 4 ]
SH
unshare -m bash "$work/try" || { cat "$work/err" 2>/dev/null; fail "mount(8)"; }
echo passed
