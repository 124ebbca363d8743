#!/usr/bin/env bash
# dbench: what a file server's clients do, all at once.
SIZE=2g
. "$(dirname "$0")/lib.sh"
loadfile=$(dpkg -L dbench | grep -E 'client\.txt' | head -1)
case $loadfile in *.gz) gunzip -c "$loadfile" >"$TMP/client.txt" && loadfile=$TMP/client.txt ;; esac
dbench -c "$loadfile" -D "$MNT" -t "${DBENCH_SECONDS:-20}" 8 | tail -3
cd /
remount_after_kill
