#!/usr/bin/env bash
# PostgreSQL: initdb, pgbench, a kill of the daemon and an unmount in between.  With KILLS=1 no
# transaction fails, and the totals are right.
SIZE=3g
. "$(dirname "$0")/lib.sh"
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
pg() { setpriv --reuid=postgres --regid=postgres --init-groups env -C / PATH="$bin:$PATH" PGHOST="$TMP" "$@"; }
chown postgres "$TMP"
install -d -o postgres -m 700 data
pg initdb -D "$MNT/data" --data-checksums >"$TMP/initdb.log"
start() { pg pg_ctl -D "$MNT/data" -w -l "$TMP/pg.log" -o "-c listen_addresses='' -c unix_socket_directories=$TMP" start >/dev/null && postmaster=$(head -1 "$MNT/data/postmaster.pid"); }
stop() { pg pg_ctl -D "$MNT/data" -w -m fast stop >/dev/null; }
# Each of the server's processes is a session of its own, and their files may be gone.
finish() {
  pkill -9 -P "$postmaster" || true
  kill -9 "$postmaster"
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
stop
