#!/usr/bin/env bash
# SQLite, in rollback and in WAL mode: whatever is killed in the middle of a transaction,
# the program or the daemon, the database holds what was committed and is sound.
. "$(dirname "$0")/lib.sh"

check() {
  local committed
  committed=$(grep -c '^committed' "$TMP/log" || true)
  [ "$(sqlite3 "$db" 'PRAGMA integrity_check')" = ok ] || fail "$mode: the database is damaged"
  local rows torn
  rows=$(sqlite3 "$db" 'SELECT count(*) FROM t')
  torn=$(sqlite3 "$db" 'SELECT count(*) FROM (SELECT n FROM t GROUP BY n HAVING count(*) != 100)')
  [ "$torn" = 0 ] || fail "$mode: $torn transactions are there in part"
  [ "$rows" -ge $((committed * 100)) ] || fail "$mode: $committed transactions were committed, and $rows rows are there"
  say "$mode: $committed transactions were seen committed, $rows rows are there"
}
for mode in delete wal; do
  db=$MNT/$mode.db
  sqlite3 "$db" "PRAGMA journal_mode=$mode; CREATE TABLE t(n, i, x); CREATE INDEX k ON t(x);" >/dev/null
  victims="program daemon program daemon"
  [ -z "$KILLS" ] || victims="program program"
  for victim in $victims; do
    sqlite3 "$db" 'DELETE FROM t'
    : >"$TMP/log"
    transactions 2>/dev/null | sqlite3 -bail "$db" >"$TMP/log" 2>/dev/null &
    job=$!
    # Until it is at work.
    for _ in $(seq 200); do
      [ "$(wc -l <"$TMP/log")" -lt 5 ] || break
      sleep 0.05
    done
    [ -s "$TMP/log" ] || fail "$mode: nothing was ever committed"
    if [ -n "$KILLS" ]; then
      await_kills 10
      kill -0 "$job" || fail "$mode: sqlite3 has seen an error: $(tail -n 1 "$TMP/log")"
    fi
    pid=$(pgrep -f "^sqlite3 -bail $db\$")
    if [ $victim = program ]; then
      kill -9 "$pid"
      wait "$job" 2>/dev/null || true
    else
      cd /
      kill_both
      sleep 0.2
      kill -9 "$pid" 2>/dev/null || true
      wait "$job" 2>/dev/null || true
      umount -l "$MNT"
      mount_it
      cd "$MNT"
    fi
    check
  done
  cd /
  remount
  cd "$MNT"
  check
done
cd /
