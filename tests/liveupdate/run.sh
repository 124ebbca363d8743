#!/usr/bin/env bash
# Regions in memory that the kernel itself hands over, across real kexecs in a virtual machine (software
# emulation does): see init.
#   run.sh BUILD_DIR KERNEL      exits with 77 when something that it takes is not to be had
# STAGE: with which one to begin (default: 1); what it takes from those before it is missing.
set -euo pipefail
build=$1 kernel=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$build/liveupdate root=$build/liveupdate/root
skip() { echo "skipped: the live update test: $*"; exit 77; }
# shellcheck source=tests/kexec/root.sh
. "$here/../kexec/root.sh"

check_host
command -v zstd >/dev/null || skip "no package zstd"
rm -rf "$work"
mkdir -p "$work"

say "Debian's packages, unpacked into the guest's root"
# From sid, whose systemd hands over what its services have given it (261 and newer).
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${MIRROR:-http://deb.debian.org/debian} sid main" \
  >"$work/sources.list"
# shellcheck disable=SC2034
apt_options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null)
make_root systemd udev kmod bash coreutils findutils grep sed diffutils cpio util-linux mount \
  busybox-static ndctl kexec-tools

say "What is tested"
for program in pkramfs pkramctl mkfs.pkramfs fsck.pkramfs; do add "$build/mount/$program" "bin/$program"; done
add "$build/tests/guest" bin/guest
ln -s ../bin/pkramfs "$root/sbin/mount.fuse.pkramfs"
install -m 644 "$here/../../mount/60-pkramfs-dax.rules" "$root/usr/lib/udev/rules.d/"
# Where the unit looks for the programs is where they would be installed.
sed "s|@CMAKE_INSTALL_FULL_BINDIR@|/usr/bin|" "$here/../../mount/pkramfs@.service.in" \
  >"$root/usr/lib/systemd/system/pkramfs@.service"
install -m 755 "$here/init" "$root/init"
install -m 644 "$kernel" "$root/kernel"
mkdir -p "$root"/{proc,sys,dev,run,tmp,etc,var,srv/cache,mnt,carry}
echo "${STAGE:-1}" >"$root/carry/stage"
cp -a "$here"/../kexec/etc/{group,machine-id,passwd} "$here"/etc/* "$root/etc/"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../stage.service ../user.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -s /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
ln -s /usr/lib/systemd/system/pkramfs@.service \
  "$root/etc/systemd/system/multi-user.target.wants/pkramfs@cache.service"
du -sh "$root" | cut -f1
# The guest keeps it as it is, and appends what it carries over: at a multiple of four.
(cd "$root" && find . | cpio -o -H newc --quiet) | zstd -q -9 >"$work/initrd"
truncate -s %4096 "$work/initrd"
du -sh "$work/initrd" | cut -f1

say "The virtual machine"
# One processor, and not that instruction: see tests/kexec/run.sh.  The devices that it is measured
# beside are above 4 GiB, below which there are 3 GiB of memory.  The next kernel and its initrd must
# fit into the scratch memory, and what is preserved is never there: by default that is a third of all.
timeout -k 10 "${LIVEUPDATE_TEST_SECONDS:-3000}" nice qemu-system-x86_64 -accel tcg -smp 1 \
  -cpu max,-cx16 -m 6G -nographic -no-reboot -kernel "$kernel" -initrd "$work/initrd" \
  -append "console=ttyS0 quiet panic=-1 retain_initrd memmap=1152M!4G memmap=384M!5248M kho=on liveupdate=on kho_scratch=16M,192M,0 TERM=dumb systemd.getty_auto=no" \
  </dev/null >"$work/log" 2>&1 || true
# (Without the lines of progress, and what terminals take.)
tr '\r' '\n' <"$work/log" | sed -e 's/\x1b\][^\x1b]*\x1b\\//g; s/\x1b[[\]]\?[0-9;?!]*[A-Za-z]\?//g' -e '/^$/d' -e '/ %$/d' | sed -n '/^.*== .*Linux/,$p'
say "done"
# Once in each of the last three stages, and before two kexecs (and one that was called off).
[ "$(grep -c "its user starts after it" "$work/log")" -ge 3 ] || { echo "the order at the start"; exit 1; }
[ "$(grep -c "its user stops before it" "$work/log")" -ge 2 ] || { echo "the order at the stop"; exit 1; }
grep -q "LIVEUPDATE TEST PASSED" "$work/log" && ! grep -q "LIVEUPDATE TEST FAILED" "$work/log"
