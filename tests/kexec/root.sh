# A guest's root, of Debian's packages as they are in the host's distribution.  For bash, to source;
# who does has `work` and `root`, directories, and `skip`; and may have `apt_options`, with which apt
# takes another suite than the host has.
say() { echo "== $(date +%T) $*"; }

check_host() {
  command -v qemu-system-x86_64 >/dev/null || skip "no package qemu-system-x86"
  command -v cpio >/dev/null || skip "no package cpio"
  command -v apt-get >/dev/null && [ "$(dpkg --print-architecture)" = amd64 ] || skip "not Debian on amd64"
}

# PACKAGE...: they, and what they depend on, unpacked.  Nothing is installed here: to apt, this is a
# machine that has no package yet.  Its lists are new, so that what they name is still to be had.
make_root() {
  local dir package applet
  mkdir -p "$work"/{debian,lists}/partial "$root"
  : >"$work/status"
  local apt=(apt-get -q -y -o "Dir::State::status=$work/status" -o "Dir::State::Lists=$work/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1
    -o APT::Sandbox::User=root "${apt_options[@]}")
  "${apt[@]}" update >"$work/apt.log" 2>&1 || skip "no lists of packages: $(tail -n 1 "$work/apt.log")"
  "${apt[@]}" --no-install-recommends --download-only -o "Dir::Cache::archives=$work/debian" install \
    "$@" >>"$work/apt.log" 2>&1 || skip "no packages: $(tail -n 1 "$work/apt.log")"
  for dir in bin sbin lib lib64; do mkdir -p "$root/usr/$dir"; ln -s "usr/$dir" "$root/$dir"; done
  for package in "$work"/debian/*.deb; do
    case ${package##*/} in
    linux-image-* | linux-base-[0-9]* | linux-binary-* | linux-modules-*) continue ;;
    perl* | libperl* | dpkg_* | debconf_* | passwd_* | tar_*) continue ;;  # not to run anything
    esac
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
  done
  rm -rf "$root"/usr/share/* "$root"/usr/lib/*/gconv "$root"/usr/lib/{klibc,udev/hwdb.d}
  for applet in $("$root/bin/busybox" --list); do
    [ -e "$root/bin/$applet" ] || [ -e "$root/sbin/$applet" ] || ln -s busybox "$root/bin/$applet"
  done
}

# PACKAGE OPTION...: of a kernel, and what it consists of, as apt with these options knows it.  (From
# 7.2 on Debian has packages for the kernel itself, its modules, and what is known of it.)
kernel_packages() {
  local package=$1 part
  shift
  echo "$package"
  for part in base binary modules; do
    apt-cache "$@" pkgnames "${package/image/$part}" | grep -x -- "${package/image/$part}" || true
  done
}

# Kernels, with the modules that the tests take, of a directory that has the packages: NAME DIRECTORY.
add_kernel() {
  local package version name
  package=$(find "$2" -name 'linux-image-[0-9]*.deb' -o -name 'linux-base-[0-9]*.deb' -o \
    -name 'linux-binary-[0-9]*.deb' -o -name 'linux-modules-[0-9]*.deb')
  [ -n "$package" ] || return 1
  for name in $package; do dpkg-deb -x "$name" "$work/$1"; done
  version=$(ls "$work/$1/lib/modules" 2>/dev/null || ls "$work/$1/usr/lib/modules") || return 1
  local modules=$work/$1/lib/modules/$version
  [ -d "$modules" ] || modules=$work/$1/usr/lib/modules/$version
  mkdir -p "$root/boot" "$root/lib/modules/$version/kernel"
  cp "$work/$1/boot/vmlinuz-$version" "$root/boot/" 2>/dev/null ||
    cp "$modules/vmlinuz" "$root/boot/vmlinuz-$version"
  find "$modules" -maxdepth 1 -name 'modules.*' -exec cp {} "$root/lib/modules/$version/" \;
  # Those that are not built in.
  for name in libnvdimm nd_btt nd_pmem nd_e820 dax_pmem device_dax fuse overlay \
    virtio virtio_ring virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev virtio_blk \
    zram zsmalloc lz4 lz4hc lz4_compress lz4hc_compress lzo lzo-rle lzo_compress lzo_decompress \
    842 842_compress 842_decompress zstd zstd_compress; do
    find "$modules" -name "$name.ko*" -exec cp {} "$root/lib/modules/$version/kernel/" \;
  done
  echo "$version" >"$root/boot/$1"
}

# FILE PATH: a program, with the libraries that the root has not.
add() {
  local library
  install -D -m 755 "$1" "$root/$2"
  strip "$root/$2"
  for library in $(ldd "$1" | grep -o '/[^ ]*'); do
    [ -e "$root$library" ] || install -D "$library" "$root$library"
  done
}
