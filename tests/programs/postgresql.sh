#!/usr/bin/env bash
# PostgreSQL: initdb, pgbench, a kill of the daemon and an unmount in between, and checkpoints from
# which it recovers.  With KILLS=1 no transaction fails, and the totals are right.
SIZE=3g
. "$(dirname "$0")/lib.sh"
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
sockets=$TMP
pg() { setpriv --reuid=postgres --regid=postgres --init-groups env -C / PATH="$bin:$PATH" PGHOST="$sockets" "$@"; }
chown postgres "$TMP"
install -d -o postgres -m 700 data
pg initdb -D "$MNT/data" --data-checksums >"$TMP/initdb.log"
# start [MNT SOCKETS], stop [MNT]
start() {
  local at=${1:-$MNT} sockets=${2:-$sockets}
  pg pg_ctl -D "$at/data" -w -l "$sockets/pg.log" -o "-c listen_addresses='' -c unix_socket_directories=$sockets" start >/dev/null
  [ "$at" != "$MNT" ] || postmaster=$(head -1 "$at/data/postmaster.pid")
}
stop() { pg pg_ctl -D "${1:-$MNT}/data" -w -m fast stop >/dev/null; }
# Each of the server's processes is a session of its own, and their files may be gone.
finish() {
  pkill -9 -P "$postmaster" || true
  kill -9 "$postmaster" || true
  [ -n "${other:-}" ] || return 0
  local copy
  copy=$(head -1 "$other/data/postmaster.pid") && pkill -9 -P "$copy" || true
  [ -z "$copy" ] || kill -9 "$copy" || true
  umount -l "$other" || true
  rm -f "$other_region"
}
# Each dump has a word of its own against injection.
dump() { pg pg_dumpall | grep -v '^.\(un\)\?restrict '; }
cd /
start
say pgbench
pg pgbench -q -i -s 10 postgres 2>/dev/null
pg pgbench -c 4 -j 2 -T "${SECONDS_OF_PGBENCH:-15}" postgres >"$TMP/pgbench.log" 2>&1 || fail "pgbench: $(tail -3 "$TMP/pgbench.log")"
grep -E 'tps|failed' "$TMP/pgbench.log"
grep -q 'failed transactions: 0 ' "$TMP/pgbench.log" || fail "transactions failed"
pg psql -qAtc 'CREATE EXTENSION amcheck' postgres
dump >"$TMP/before.sql"
stop
remount
start
dump >"$TMP/after.sql"
cmp "$TMP/before.sql" "$TMP/after.sql" || fail "the dump is another"
pg pg_amcheck --heapallindexed postgres || fail "pg_amcheck"
# Each transaction adds the same to an account, a teller, a branch and the history.
totals() {
  pg psql -qAtc 'SELECT count(DISTINCT s) FROM (SELECT sum(bbalance) s FROM pgbench_branches UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
    UNION ALL SELECT sum(abalance) FROM pgbench_accounts UNION ALL SELECT sum(delta) FROM pgbench_history) t' postgres
}
[ "$(totals)" = 1 ] || fail "the totals differ"
if [ -n "$KILLS" ]; then
  grep -E 'ERROR|FATAL|PANIC' "$TMP/pg.log" && fail "the server saw errors"
  stop
  exit 0
fi
say "kill -9 of the daemon while pgbench runs"
pg pgbench -n -c 4 -j 2 -T 30 postgres >/dev/null 2>&1 &
sleep 8
kill_both
finish
wait || true
umount -l "$MNT"
sleep 1
mount_it
rm -f "$MNT/data/postmaster.pid"
start
pg pg_amcheck --heapallindexed postgres || fail "pg_amcheck after a kill"
[ "$(totals)" = 1 ] || fail "transactions are there in part"

say "checkpoints while pgbench runs"
other_region=$REGION-restored other=$WORK/restored other_sockets=$TMP/restored
mkdir "$other"
install -d -o postgres "$other_sockets"
transactions() { pg psql -qAtc 'SELECT count(*) FROM pgbench_history' postgres; }
pg pgbench -n -c 4 -j 2 -T 600 postgres >/dev/null 2>&1 &
bench=$!
for round in 1 2 3 4; do
  from=$(transactions)
  until [ "$(transactions)" -gt $((from + 100)) ]; do sleep 0.1; done
  before=$(transactions)
  "$PKRAMCTL" checkpoint "$REGION" "$WORK/image"
  "$PKRAMCTL" restore "$WORK/image" "$other_region"
  "$PKRAMFS" "$other_region" "$other"
  rm "$other/data/postmaster.pid"
  start "$other" "$other_sockets"
  (
    sockets=$other_sockets
    pg pg_amcheck --heapallindexed postgres || fail "pg_amcheck of checkpoint $round"
    [ "$(totals)" = 1 ] || fail "checkpoint $round has transactions in part"
    there=$(transactions)
    [ "$there" -ge "$before" ] || fail "$before transactions were committed before checkpoint $round, and $there are there"
    say "checkpoint $round: $before transactions were committed, $there are there"
  )
  stop "$other"
  umount "$other"
  flock -w 300 "$other_region" true
  rm "$other_region"
done
pkill -INT -P "$bench" || kill -INT "$bench"
wait "$bench" 2>/dev/null || true
stop
