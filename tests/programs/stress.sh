#!/usr/bin/env bash
# stress-ng's filesystem class: every stressor that it has for one, each for some seconds.
SIZE=4g
. "$(dirname "$0")/lib.sh"
: "${STRESS_SECONDS:=5}"
# Not ours to run: what mounts, and what is not about this filesystem.
stress-ng --class filesystem --sequential 2 --timeout "$STRESS_SECONDS" --temp-path "$MNT" --verify \
  --exclude binderfs,bind-mount,procfs,eventfd --metrics-brief >"$TMP/log" 2>&1 ||
  fail "stress-ng: $(grep -E 'fail|error' "$TMP/log" | head -20 || tail -5 "$TMP/log")"
tail -3 "$TMP/log"
cd /
remount
