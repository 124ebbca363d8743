# Roots of Debian's distributions, for the scripts beside this one: each is made once, and kept.
# ROOTS: where (default: /var/tmp/pkramfs-roots); delete one to have it anew.
# MIRROR: of Debian (default: http://deb.debian.org/debian).
roots=${ROOTS:-/var/tmp/pkramfs-roots}

# With packages besides what every root has: NAME SUITE PACKAGES [OPTION...], packages with commas
# between them, options of mmdebstrap.
make_root() {
  local root=$roots/$1 suite=$2 packages=$3
  shift 3
  [ -e "$root" ] && return
  mkdir -p "$roots"
  rm -rf "$root.new"
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='Acquire::Check-Valid-Until "false"' "$@" "$suite" "$root.new" \
    "${MIRROR:-http://deb.debian.org/debian}"
  mv "$root.new" "$root"  # one that is there is whole
}

# What is committed, as /root/pkramfs of that root, where what was built stays: NAME.
put_source() {
  local clone=$roots/$1/root/pkramfs
  [ -e "$clone" ] || git clone -q . "$clone"
  git -C "$clone" fetch -q "$PWD" HEAD
  git -C "$clone" checkout -q --force FETCH_HEAD
}

# Runs commands there, on kernel filesystems of its own, as containers have them: NAME COMMANDS.
# (It is the root of its mounts and no chroot, in which there are no user namespaces.)
inside() {
  unshare --mount --pid --fork --propagation private bash -euc '
    root=$1; shift
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o size=75% tmpfs "$root/dev/shm"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    ln -sf /proc/mounts "$root/etc/mtab"  # fusermount3 looks there
    cd "$root"
    mkdir -p .before
    pivot_root . .before
    umount -l /.before
    rmdir /.before
    exec bash -euc "export HOME=/root; cd /root/pkramfs; $*"
  ' inside "$roots/$1" "$2"
}
