# Sourced by the tests of real programs: a mount of pkramfs of their own.
#   $PKRAMFS, $PKRAMCTL   the programs under test
#   $SOURCE               the project's sources
# Gives $MNT, $TMP (a directory elsewhere, on this host's tmpfs) and the functions below.
set -euo pipefail
export LC_ALL=C GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
: "${SIZE:=1g}"

WORK=$(mktemp -d /tmp/pkramfs-program-XXXXXX)
chmod 755 "$WORK"
MNT=$WORK/mnt
REGION=/dev/shm/$(basename "$WORK")
TMP=$(mktemp -d /dev/shm/pkramfs-program-tmp-XXXXXX)
mkdir "$MNT"

say() { echo "== $*"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
mount_it() { "$PKRAMFS" "$REGION" "$MNT" -o size="$SIZE"; }
daemon() { "$PKRAMCTL" info --json "$REGION" | sed -nE 's/^ *"pid": ([0-9]+),?$/\1/p'; }
# Nothing is killed but the daemon that serves this mount.
kill_it() {
  kill -9 "$(daemon)"
  umount -l "$MNT"
}
remount() {
  say "umount, mount"
  umount "$MNT"
  flock -w 300 "$REGION" true
  mount_it
}
remount_after_kill() {
  say "kill -9, mount"
  kill_it
  mount_it
}
cleanup() {
  local status=$?
  trap - EXIT
  cd /
  # What the script has started, if it says how to end it.
  if declare -F finish >/dev/null; then finish >/dev/null 2>&1 || true; fi
  umount -l "$MNT" 2>/dev/null || true
  # The daemon seals the region before it lets it go.
  [ ! -e "$REGION" ] || flock -w 300 "$REGION" true || status=1
  if [ -e "$REGION" ] && [ $status = 0 ]; then
    "$PKRAMCTL" check "$REGION" || status=1
  fi
  rm -rf "$REGION" "$TMP" "$WORK"
  exit $status
}
trap cleanup EXIT
if [ "$(id -u)" != 0 ] || [ ! -e /dev/fuse ]; then
  echo "skipped: needs root and /dev/fuse"
  exit 0
fi
mount_it
cd "$MNT"
