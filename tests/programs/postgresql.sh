#!/usr/bin/env bash
# PostgreSQL: initdb, pgbench, a kill of the daemon and an unmount in between.
SIZE=3g
. "$(dirname "$0")/lib.sh"
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
pg() { setpriv --reuid=postgres --regid=postgres --init-groups env -C / PATH="$bin:$PATH" PGHOST="$TMP" "$@"; }
chown postgres "$TMP"
install -d -o postgres -m 700 data
pg initdb -D "$MNT/data" --data-checksums >"$TMP/initdb.log"
start() { pg pg_ctl -D "$MNT/data" -w -l "$TMP/pg.log" -o "-c listen_addresses='' -c unix_socket_directories=$TMP" start >/dev/null; }
stop() { pg pg_ctl -D "$MNT/data" -w -m fast stop >/dev/null; }
cd /
start
say pgbench
pg pgbench -q -i -s 10 postgres 2>/dev/null
pg pgbench -c 4 -j 2 -T 15 postgres | grep -E 'tps|failed'
pg psql -qAtc 'CREATE EXTENSION amcheck' postgres
pg pg_dumpall >"$TMP/before.sql"
stop
remount
start
pg pg_dumpall >"$TMP/after.sql"
cmp "$TMP/before.sql" "$TMP/after.sql" || fail "the dump is another"
pg pg_amcheck --heapallindexed postgres || fail "pg_amcheck"
say "kill -9 of the daemon while pgbench runs"
pg pgbench -c 4 -j 2 -T 30 postgres >/dev/null 2>&1 &
sleep 8
kill -9 "$(daemon)"
# Its files are gone, so the server ends itself, or is ended.
pg pg_ctl -D "$MNT/data" -m immediate stop >/dev/null 2>&1 || pkill -9 -u postgres -f "$MNT/data" || true
wait || true
umount -l "$MNT"
sleep 1
mount_it
rm -f "$MNT/data/postmaster.pid"
start
pg pg_amcheck --heapallindexed postgres || fail "pg_amcheck after a kill"
# Every branch's balance is what its tellers and accounts say.
torn=$(pg psql -qAtc 'SELECT count(*) FROM pgbench_branches b WHERE bbalance != (SELECT sum(tbalance) FROM pgbench_tellers t WHERE t.bid = b.bid)
  OR bbalance != (SELECT sum(abalance) FROM pgbench_accounts a WHERE a.bid = b.bid)' postgres)
[ "$torn" = 0 ] || fail "$torn branches do not balance"
stop
