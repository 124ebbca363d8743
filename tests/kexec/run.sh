#!/usr/bin/env bash
# Across real kexecs, in a virtual machine (software emulation does): see init.
#   run.sh BUILD_DIR      exits with 77 when something that it takes is not to be had
set -euo pipefail
build=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$build/kexec root=$build/kexec/root
skip() { echo "skipped: the kexec test: $*"; exit 77; }
say() { echo "== $(date +%T) $*"; }

command -v qemu-system-x86_64 >/dev/null || skip "no package qemu-system-x86"
command -v cpio >/dev/null || skip "no package cpio"
command -v apt-get >/dev/null && [ "$(dpkg --print-architecture)" = amd64 ] || skip "not Debian on amd64"
rm -rf "$work"
mkdir -p "$work"/{debian,backports,lists,backports-lists}/partial "$root"

say "Debian's packages, unpacked into the guest's root"
# Nothing is installed here: to apt, this is a machine that has no package yet.  Its lists are new,
# so that what they name is still to be had.
: >"$work/status"
apt=(apt-get -q -y -o "Dir::State::status=$work/status" -o "Dir::State::Lists=$work/lists"
     -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1
     -o APT::Sandbox::User=root)
"${apt[@]}" update >"$work/apt.log" 2>&1 || skip "no lists of packages: $(tail -n 1 "$work/apt.log")"
"${apt[@]}" --no-install-recommends --download-only -o "Dir::Cache::archives=$work/debian" install \
  linux-image-cloud-amd64 systemd udev kmod bash coreutils findutils grep sed diffutils cpio util-linux \
  mount busybox-static ndctl kexec-tools >>"$work/apt.log" 2>&1 || skip "no packages: $(tail -n 1 "$work/apt.log")"
for dir in bin sbin lib lib64; do mkdir -p "$root/usr/$dir"; ln -s "usr/$dir" "$root/$dir"; done
for package in "$work"/debian/*.deb; do
  case ${package##*/} in
  linux-image-*) continue ;;
  perl* | libperl* | dpkg_* | debconf_* | passwd_* | tar_*) continue ;;  # not to run anything
  esac
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
done
rm -rf "$root"/usr/share/* "$root"/usr/lib/*/gconv "$root"/usr/lib/{klibc,udev/hwdb.d}
for applet in $("$root/bin/busybox" --list); do
  [ -e "$root/bin/$applet" ] || [ -e "$root/sbin/$applet" ] || ln -s busybox "$root/bin/$applet"
done

# Kernels, with the modules that the test takes.  NAME DIRECTORY
add_kernel() {
  local package version name
  package=$(find "$2" -name 'linux-image-[0-9]*.deb')
  [ -n "$package" ] || return 1
  dpkg-deb -x "$package" "$work/$1"
  version=$(ls "$work/$1/lib/modules")
  mkdir -p "$root/boot" "$root/lib/modules/$version/kernel"
  cp "$work/$1/boot/vmlinuz-$version" "$root/boot/"
  cp "$work/$1/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
  for name in libnvdimm nd_btt nd_pmem nd_e820 dax_pmem device_dax fuse; do  # those that are not built in
    find "$work/$1/lib/modules" -name "$name.ko*" -exec cp {} "$root/lib/modules/$version/kernel/" \;
  done
  echo "$version" >"$root/boot/$1"
}
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
       package=$(apt-cache "${backports[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p') &&
       cd "$work/backports" && apt-get "${backports[@]}" download "$package" && cd "$here" &&
       add_kernel new "$work/backports"; } >>"$work/apt.log" 2>&1; then
  say "no kernel from backports ($(tail -n 1 "$work/apt.log")): the same version on both sides"
  cp "$root/boot/old" "$root/boot/new"
fi

say "What is tested"
add() {  # FILE NAME: with the libraries that the root has not
  local library
  install -m 755 "$1" "$root/$2"
  strip "$root/$2"
  for library in $(ldd "$1" | grep -o '/[^ ]*'); do
    [ -e "$root$library" ] || install -D "$library" "$root$library"
  done
}
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
timeout -k 10 "${KEXEC_TEST_SECONDS:-1500}" qemu-system-x86_64 -accel tcg -smp 1 \
  -cpu max,-cx16 -m 3G -nographic -no-reboot \
  -kernel "$root/boot/vmlinuz-$(cat "$root/boot/old")" -initrd "$work/initrd" \
  -append "console=ttyS0 quiet panic=-1 memmap=512M!1G memmap=64M!1600M" \
  </dev/null >"$work/log" 2>&1 || true
tr -d '\r' <"$work/log" | sed -n '/^.*== .*Linux/,$p'
say "done"
grep -q "KEXEC TEST PASSED" "$work/log"
