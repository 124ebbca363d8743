#!/usr/bin/env bash
# stress-ng's filesystem class: every stressor that it has for one, each for some seconds.
SIZE=4g
. "$(dirname "$0")/lib.sh"
: "${STRESS_SECONDS:=5}"
# Not ours to run: those that mount, bind or fill what is not this filesystem, or need hardware.
exclude=binderfs,bind-mount,mount,umount,ramfs,tmpfs,sysfs,procfs,loop,iomix-bytes,chroot
stress-ng --class filesystem --sequential 2 --timeout "$STRESS_SECONDS" --temp-path "$MNT" --verify \
  --exclude "$exclude" --metrics-brief >"$TMP/log" 2>&1 || {
  grep -E 'fail|error' "$TMP/log" | head -20
  fail "stress-ng"
}
tail -3 "$TMP/log"
cd /
remount
