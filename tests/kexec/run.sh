#!/usr/bin/env bash
# Across real kexecs, in a virtual machine (software emulation does): see init.
#   run.sh BUILD_DIR      exits with 77 when something that it takes is not to be had
set -euo pipefail
build=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$build/kexec root=$build/kexec/root
skip() { echo "skipped: the kexec test: $*"; exit 77; }
# shellcheck source=tests/kexec/root.sh
. "$here/root.sh"

check_host
command -v mkfs.ext4 >/dev/null || skip "no package e2fsprogs"
rm -rf "$work"
mkdir -p "$work"/{backports,backports-lists}/partial

say "Debian's packages, unpacked into the guest's root"
make_root linux-image-cloud-amd64 systemd udev kmod bash coreutils findutils grep sed diffutils cpio \
  util-linux mount busybox-static ndctl kexec-tools
add_kernel old "$work/debian"
# The other version is from backports, of the same archive as the rest.
# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
archive=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
  sed -n "s/^$codename //p" | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $codename-backports main" \
  >"$work/sources.list"
backports=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
           -o "Dir::State::Lists=$work/backports-lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
if ! { apt-get "${backports[@]}" update &&
       package=$(apt-cache "${backports[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p') &&
       mapfile -t packages < <(kernel_packages "$package" "${backports[@]}") &&
       cd "$work/backports" && apt-get "${backports[@]}" download "${packages[@]}" && cd "$here" &&
       add_kernel new "$work/backports"; } >>"$work/apt.log" 2>&1; then
  say "no kernel from backports ($(tail -n 1 "$work/apt.log")): the same version on both sides"
  cp "$root/boot/old" "$root/boot/new"
fi

say "What is tested"
for program in pkramfs pkramctl mkfs.pkramfs fsck.pkramfs; do add "$build/mount/$program" "sbin/$program"; done
add "$build/tests/guest" bin/guest
ln -s pkramfs "$root/sbin/mount.fuse.pkramfs"
install -m 644 "$here/../../mount/60-pkramfs-dax.rules" "$root/usr/lib/udev/rules.d/"
install -m 755 "$here/init" "$root/init"
mkdir -p "$root"/{proc,sys,dev,run,tmp,etc,var,srv/cache,carry}
echo 1 >"$root/carry/stage"
cp -a "$here/etc" "$root/"
du -sh "$root" | cut -f1
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initrd"

say "The virtual machine"
# One processor: qemu may run what another processor of its has patched meanwhile, and Linux, which
# patches itself, then ends with "Oops: int3".  Without cx16: that instruction of qemu 7.2 gives
# Linux 6.12 wrong flags now and then.
# It is what takes longest, so it goes before whatever else there is.
# What the guest has not written to its disk yet is lost with the power.
truncate -s 1G "$work/disk"
mkfs.ext4 -q "$work/disk"
boot() { # INITRD
  timeout -k 10 "${KEXEC_TEST_SECONDS:-1800}" nice -n -10 qemu-system-x86_64 -accel tcg -smp 1 \
    -cpu max,-cx16 -m 3G -nographic -no-reboot \
    -kernel "$root/boot/vmlinuz-$(cat "$root/boot/old")" -initrd "$1" \
    -drive "file=$work/disk,format=raw,if=virtio" \
    -append "console=ttyS0 quiet panic=-1 memmap=512M!1G memmap=64M!1600M" \
    </dev/null >>"$work/log" 2>&1 || true
}
: >"$work/log"
boot "$work/initrd"
# The power was lost: the same once more, for the last stage.
grep -q "and the power goes" "$work/log" && ! grep -q "KEXEC TEST FAILED" "$work/log" || {
  tr -d '\r' <"$work/log" | tail -n 200
  exit 1
}
mkdir "$work/carry" && cd "$work" && echo 8 >carry/stage
(cat initrd && echo carry/stage | cpio -o -H newc --quiet) >initrd.last
boot "$work/initrd.last"
# (Without the lines of progress.)
tr '\r' '\n' <"$work/log" | sed -e '/^$/d' -e '/ %$/d' | sed -n '/^.*== .*Linux/,$p'
say "done"
grep -q "KEXEC TEST PASSED" "$work/log" && ! grep -q "KEXEC TEST FAILED" "$work/log"
