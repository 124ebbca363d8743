#!/usr/bin/env bash
# SQLite, in rollback and in WAL mode, below which checkpoints are made: each, restored elsewhere,
# holds what had been committed when it began, and is sound.
. "$(dirname "$0")/lib.sh"

IMAGE=$WORK/image
OTHER_REGION=$REGION-restored
OTHER_MNT=$WORK/restored
mkdir "$OTHER_MNT"
finish() {
  umount -l "$OTHER_MNT"
  rm -f "$OTHER_REGION"
}

committed() { grep -c '^committed' "$TMP/log" || true; }

for mode in delete wal; do
  db=$MNT/$mode.db
  sqlite3 "$db" "PRAGMA journal_mode=$mode; CREATE TABLE t(n, i, x); CREATE INDEX k ON t(x);" >/dev/null
  : >"$TMP/log"
  transactions 2>/dev/null | sqlite3 -bail "$db" >"$TMP/log" 2>/dev/null &
  job=$!
  for round in 1 2 3 4; do
    from=$(committed)
    for _ in $(seq 1200); do
      [ "$(committed)" -lt $((from + 5)) ] || break
      sleep 0.05
    done
    before=$(committed)
    [ "$before" -gt "$from" ] || fail "$mode: nothing is committed any more"
    "$PKRAMCTL" checkpoint "$REGION" "$IMAGE"
    "$PKRAMCTL" check "$IMAGE" >/dev/null
    "$PKRAMCTL" restore "$IMAGE" "$OTHER_REGION"
    "$PKRAMFS" "$OTHER_REGION" "$OTHER_MNT"
    copy=$OTHER_MNT/$mode.db
    [ "$(sqlite3 "$copy" 'PRAGMA integrity_check')" = ok ] || fail "$mode: the database is damaged"
    rows=$(sqlite3 "$copy" 'SELECT count(*) FROM t')
    torn=$(sqlite3 "$copy" 'SELECT count(*) FROM (SELECT n FROM t GROUP BY n HAVING count(*) != 100)')
    [ "$torn" = 0 ] || fail "$mode: $torn transactions are there in part"
    [ "$rows" -ge $((before * 100)) ] || fail "$mode: $before transactions were committed, and $rows rows are there"
    say "$mode, checkpoint $round: $before transactions were seen committed, $rows rows are there"
    umount "$OTHER_MNT"
    flock -w 300 "$OTHER_REGION" true
    rm "$OTHER_REGION"
  done
  kill -9 "$(pgrep -f "^sqlite3 -bail $db\$")"
  wait "$job" 2>/dev/null || true
done
cd /
