# Sourced by the tests of real programs: a mount of pkramfs of their own.
#   $PKRAMFS, $PKRAMCTL   the programs under test
#   $SOURCE               the project's sources
#   $MOUNT_OPTIONS        more options of the mount (default: none)
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
# With KILLS=1 the server is killed below the program all the time, and now and then the keeper that
# starts another; and nobody may notice.  With OTHER=PROGRAM every third is an upgrade, to that one
# and back.
: "${KILLS:=}" "${OTHER:=}"

mount_it() {
  "$PKRAMFS" "$REGION" "$MNT" -o "size=$SIZE${MOUNT_OPTIONS:+,$MOUNT_OPTIONS}"
  [ -z "$KILLS" ] || start_killer
}
killer=
kills() { wc -l <"$TMP/kills"; }
await_kills() {
  local from
  from=$(kills)
  while [ $(($(kills) - from)) -lt "$1" ]; do sleep 0.05; done
}
start_killer() {
  touch "$TMP/kills"
  (
    trap - EXIT
    victim=pid next=$OTHER after=$PKRAMFS
    for ((n = 1; ; ++n)); do
      sleep 0.3
      if [ -n "$OTHER" ] && [ $((n % 3)) = 0 ]; then
        # (A keeper that was killed a moment ago may not have been replaced yet.)
        until "$PKRAMCTL" upgrade "$REGION" "$next"; do sleep 0.1; done
        read -r next after <<<"$after $next"
        echo upgrade >>"$TMP/kills"
        continue
      fi
      was=$(process $victim)
      kill -9 "$was"
      echo >>"$TMP/kills"
      # Both at once would be the end of it.
      while now=$(process $victim) && { [ "$now" = "$was" ] || [ "$now" = 0 ]; }; do sleep 0.01; done
      if [ $((n % 4)) = 0 ]; then victim=keeper; else victim=pid; fi
    done
  ) 2>/dev/null &
  killer=$!
}
stop_killer() {
  [ -n "$killer" ] || return 0
  kill -9 "$killer" && wait "$killer" 2>/dev/null || true
  killer=
}
# "pid" or "keeper", of who serves this mount and who would go on.
process() { "$PKRAMCTL" info --json "$REGION" | sed -nE "s/^ *\"$1\": ([0-9]+),?\$/\1/p"; }
# Nothing is killed but these two.
kill_both() {
  local server keeper
  server=$(process pid)
  keeper=$(process keeper)
  kill -STOP "$keeper"
  kill -9 "$server" "$keeper"
}
kill_it() {
  kill_both
  umount -l "$MNT"
}
remount() {
  stop_killer
  say "umount, mount"
  umount "$MNT"
  flock -w 300 "$REGION" true
  mount_it
}
remount_after_kill() {
  if [ -n "$KILLS" ]; then
    cd /
    remount
    return
  fi
  say "kill -9, mount"
  kill_it
  mount_it
}
# For sqlite3: transactions of 100 rows in a table t(n, i, x), for ever; one line as each has been
# committed.
transactions() {
  local n=0
  while :; do
    echo "BEGIN;"
    for i in $(seq 100); do echo "INSERT INTO t VALUES($n, $i, hex(randomblob(50)));"; done
    echo "COMMIT;"
    echo "SELECT 'committed $n';"
    n=$((n + 1))
  done
}
cleanup() {
  local status=$?
  trap - EXIT
  cd /
  stop_killer
  if [ -n "$KILLS" ]; then
    say "$(kills) kills, $(grep -c upgrade "$TMP/kills") of them upgrades"
    [ "$(kills)" -gt 0 ] || status=1
    [ -z "$OTHER" ] || grep -q upgrade "$TMP/kills" || status=1
  fi
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
